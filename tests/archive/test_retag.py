"""Other thresholds from stored scores equal a tagging under them; exports say what the tables say."""

import csv
import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import tag_archive, tiny_bundle, write_archive
from conftest import make_place, run

from instrunet.archive import books, exports, retag
from instrunet.archive.units import UnitSpec
from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.data import parts, places
from instrunet.errors import ConfigError, DataError

SPEC = UnitSpec(unit_s=2, part_units=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished tags of several labels a clip in `tags`, as the pipeline leaves them."""
    folder = make_place(tmp_path_factory.mktemp("retag") / "instrunet")
    write_archive(folder / "archive")
    tag(folder, "tags", tiny_bundle("multi"))
    return folder


def tag(home: Path, name: str, bundle: Bundle) -> None:
    out, archive = home / name, home / "archive"
    parts.claim(out, {"job": "tag", "archive": str(archive)})
    retag.keep_spec(out, bundle.spec)
    books.close(out, tag_archive(archive, out, bundle, SPEC), bundle)
    parts.finish(out)


def decided(folder: Path) -> dict[str, list[str]]:
    return {Path(row["uri"]).name: row["labels"] for row in pq.read_table(folder / "recordings").to_pylist()}


def job(home: Path, arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(f"python jobs/retag.py {arguments}", home)


def test_thresholds_change_decisions_as_tagging_under_them_would(home: Path, tmp_path: Path) -> None:
    scores = [row["scores"] for row in pq.read_table(home / "tags/recordings").to_pylist() if row["scores"]]
    limit = sorted(score for row in scores for score in row)[len(scores)] + 1e-4
    told = job(home, f"tags --threshold {limit} --to {tmp_path}/again")
    assert told.returncode == 0 and told.stdout.splitlines()[-1] == f"{tmp_path}/again", told.stderr
    spec = tiny_bundle("multi").spec.model_copy(update={"thresholds": (limit,) * 3})
    tag(home, "wanted", Bundle(spec, tiny_bundle("multi").network))
    for table in ("recordings", "intervals"):
        assert pq.read_table(tmp_path / "again" / table).equals(pq.read_table(home / "wanted" / table)), table
    assert decided(tmp_path / "again") != decided(home / "tags")
    ledger = json.loads((tmp_path / "again/ledger.json").read_text())
    assert ledger == json.loads((home / "wanted/ledger.json").read_text()) and ledger["closed"]
    assert (tmp_path / "again/_SUCCESS").exists() and not (tmp_path / "again/units").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "again").rglob("*")}
    assert retag.run(home / "tags", tmp_path / "again", limit, None) == ledger
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "again").rglob("*")}
    with pytest.raises(DataError, match="belongs to another job: its bundle is"):
        retag.run(home / "tags", tmp_path / "again", 0.9, None)


def test_a_file_of_thresholds_changes_those_it_names() -> None:
    spec = tiny_bundle("multi").spec
    assert retag.changed(spec, None, {"drum": 0.25}).thresholds == (0.5, 0.25, 0.5)
    assert retag.changed(spec, 0.4, None).thresholds == (0.4, 0.4, 0.4)
    assert retag.changed(spec, None, None) == spec


def test_one_label_a_clip_is_left_out_below_the_threshold() -> None:
    made = retag.changed(tiny_bundle().spec, 0.4, None)
    assert made.decisions and made.decisions.abstain_below == 0.4 and made.thresholds == ()


@pytest.mark.parametrize(
    ("kind", "threshold", "of_label", "message"),
    [
        ("multi", None, {"drun": 0.5}, "no label 'drun'; did you mean drum?"),
        ("multi", None, {"drum": "half"}, "a threshold is a number from 0 to 1, got 'half'"),
        ("multi", 1.5, None, "a threshold is a number from 0 to 1, got 1.5"),
        ("single", None, {"drum": 0.5}, "--threshold T leaves out answers"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, threshold: float, of_label: dict[str, float], message: str) -> None:
    spec: BundleSpec = tiny_bundle(kind).spec  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        retag.changed(spec, threshold, of_label)


def test_unfinished_tags_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^expected the finished tags of jobs/tag.py at .*nowhere, found no _SUCCESS"):
        retag.run(home / "nowhere", tmp_path / "to", 0.4, None)


@pytest.fixture(scope="module")
def exported(home: Path) -> Path:
    exports.write(home / "tags", exports.asked(",".join(exports.FORMATS)), tiny_bundle("multi").spec, f"{home}/archive")
    return home / "tags"


def test_csv_and_json_lines_hold_every_recording(exported: Path) -> None:
    rows = pq.read_table(exported / "recordings").to_pylist()
    with (exported / "csv/recordings.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (exported / "jsonl/recordings.jsonl").read_text().splitlines()]
    assert [row["uri"] for row in rows] == [row["uri"] for row in table] == [row["uri"] for row in lines]
    for row, ours, line in zip(rows, table, lines, strict=True):
        assert ours["labels"].split(";") == (row["labels"] or [""]) and line["labels"] == row["labels"]
        assert [float(ours[f"score.{n}"]) for n in ("bell", "drum", "horn") if ours[f"score.{n}"]] == pytest.approx(
            row["scores"], abs=1e-6
        )
    with (exported / "csv/intervals.csv").open(encoding="utf-8", newline="") as file:
        ranges = list(csv.DictReader(file))
    assert (
        len(ranges) == len(pq.read_table(exported / "intervals")) == sum(len(line["intervals"]) for line in lines) > 0
    )


def test_audacity_and_raven_get_a_file_for_each_recording_that_was_heard(exported: Path) -> None:
    heard = {"a.wav", "cut.mp3", "deep/er/long.wav", "deep/räksmörgås 箏.flac"}
    for name, ending in (("audacity", ".txt"), ("raven", ".Table.1.selections.txt"), ("sidecar", ".json")):
        folder = exported / name
        paths = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "_SUCCESS"]
        assert set(paths) == {f"{each}{ending}" for each in heard}
    ranges = [r for r in pq.read_table(exported / "intervals").to_pylist() if r["uri"].endswith("long.wav")]
    labels = (exported / "audacity/deep/er/long.wav.txt").read_text().splitlines()
    assert labels == [f"{r['start_s']:.6f}\t{r['stop_s']:.6f}\t{r['label']}" for r in ranges]
    head, *rows = (exported / "raven/deep/er/long.wav.Table.1.selections.txt").read_text().splitlines()
    assert head.split("\t")[:7] == [
        *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
    ]
    assert len(rows) == len(ranges) and rows[0].split("\t")[5:8] == ["0.0", "4000.0", ranges[0]["label"]]
    assert json.loads((exported / "sidecar/a.wav.json").read_text())["uri"].endswith("/archive/a.wav")


def test_exports_that_are_there_are_not_written_again(exported: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in exported.rglob("*")}
    exports.write(exported, exports.FORMATS, tiny_bundle("multi").spec, "")
    assert before == {p: p.stat().st_mtime_ns for p in exported.rglob("*")}


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--format takes csv, jsonl, audacity, raven, sidecar, .*; got 'xls'"):
        exports.asked("csv,xls")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/in/b/a.wav", "b/a.wav"),
        ("/other/a.wav", "other/a.wav"),
        ("s3://bucket/x//../a.wav", "s3/bucket/x/_/a.wav"),
    ],
)
def test_no_name_leads_out_of_its_folder(uri: str, name: str) -> None:
    assert exports.name_of(uri, "/data/in") == name


def test_the_sound_itself_is_not_needed(home: Path, tmp_path: Path) -> None:
    """No inference: the archive may be gone."""
    (home / "archive").rename(home / "gone")
    try:
        assert retag.run(home / "tags", tmp_path / "to", 0.3, None)["closed"]
    finally:
        (home / "gone").rename(home / "archive")


def test_tables_are_divided_by_the_first_folder_and_by_the_day(exported: Path) -> None:
    for kind in ("recordings", "intervals"):
        rows = pq.read_table(exported / kind).to_pylist()
        divided = pq.read_table(exported / "prefix" / kind).to_pylist()
        key = lambda row: (row["uri"], row.get("start_s", 0), row.get("label", ""))  # noqa: E731
        assert sorted(({n: row[n] for n in rows[0]} for row in divided), key=key) == sorted(rows, key=key)
        assert {row["prefix"] for row in divided} == {".", "deep"}
        assert {row["prefix"] for row in divided if "/deep/" in row["uri"]} == {"deep"}
    assert {p.name for p in (exported / "day/recordings").iterdir()} == {"day=unknown"}


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("SITE_20240531_040000.wav", "2024-05-31"),
        ("a/2024-05-31/x.flac", "2024-05-31"),
        ("a/2024.12.01.wav", "2024-12-01"),
        ("a/202405311.wav", "unknown"),
        ("a/20241301.wav", "unknown"),
        ("take 7.wav", "unknown"),
    ],
)
def test_the_day_is_the_date_in_a_name(name: str, day: str) -> None:
    assert exports.DIVIDED["day"](name) == day


def test_what_is_divided_goes_to_a_disk() -> None:
    assert exports.asked("csv,day", Path("/x")) == ["csv", "day"]
    with pytest.raises(ConfigError, match="--format day is written to a disk, got s3://bucket/tags"):
        exports.asked("csv,day", places.place("s3://bucket/tags"))
