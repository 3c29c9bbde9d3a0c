"""Runs over an archive that grows: what each hears, what the books say over all of them, and that nothing is lost."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import RATE, sound, tag_parts, tiny_bundle, write
from conftest import ROOT, environment

from instrunet.archive import books, listing, runs, sources
from instrunet.archive.units import UnitSpec
from instrunet.audio.io import probe
from instrunet.bundle import Bundle
from instrunet.data import parts
from instrunet.errors import DataError

SPEC = UnitSpec(unit_s=2)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for k, name in enumerate(("a.wav", "b/c.wav", "d.wav")):
        write(tmp_path / "in" / name, sound(1.0 + k, 300 + 50 * k))
    return tmp_path / "in"


def job(archive: Path | str, bundle: Bundle, spec: UnitSpec = SPEC) -> runs.Job:
    return runs.Job(sources.archive(archive), bundle.spec, spec, probe)


def run(archive: Path, out: Path, bundle: Bundle) -> tuple[Path, dict[str, Any] | None]:
    """As the pipeline, without Ray; no ledger where there was nothing to do."""
    folder, before, work = runs.begin_next(runs.home(out, bundle.fingerprint), job(archive, bundle))
    if work is None:
        return folder, None
    tag_parts(work, folder, bundle)
    ledger = books.close(folder, work, bundle)
    ledger["since_last"] = runs.account(folder, before, ledger["files"]["out"])
    parts.finish(folder)
    return folder, ledger


def changes(folder: Path) -> dict[str, str]:
    return {row["name"]: row["change"] for row in listing.rows(folder / listing.FILES)}


def statuses(folder: Path) -> dict[str, str]:
    return {Path(row["uri"]).name: row["status"] for row in pq.read_table(folder / "recordings").to_pylist()}


def hashes(folder: Path) -> dict[Path, tuple[int, str]]:
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_hears_what_is_new_or_changed_and_marks_what_is_gone(
    archive: Path, tmp_path: Path, bundle: Bundle
) -> None:
    out = tmp_path / "out"
    first, ledger = run(archive, out, bundle)
    assert ledger and ledger["closed"] and ledger["since_last"]["closed"]
    assert first == out / f"model={bundle.fingerprint}/run=00001" and set(changes(first).values()) == {"new"}
    before = hashes(out)
    assert run(archive, out, bundle) == (first, None) and hashes(out) == before
    write(archive / "a.wav", sound(1.5, 700))
    (archive / "d.wav").unlink()
    write(archive / "b/new.wav", sound(0.7, 800))
    second, ledger = run(archive, out, bundle)
    assert second.name == "run=00002"
    assert changes(second) == {"a.wav": "changed", "b/c.wav": "unchanged", "b/new.wav": "new", "d.wav": "deleted"}
    assert statuses(second) == {"a.wav": "tagged", "new.wav": "tagged", "d.wav": "deleted"}
    assert ledger and ledger["closed"]
    assert ledger["since_last"] == {
        "run": "run=00001",
        "files": {"new": 1, "changed": 1, "again": 0, "unchanged": 1, "deleted": 1},
        "closed": True,
    }
    assert {path: was for path, was in hashes(out).items() if path in before} == before
    assert run(archive, out, bundle) == (second, None)
    rows = [
        row | {"run": path.parts[-3]}
        for path in sorted(out.glob("*/*/recordings/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    newest = {Path(row["uri"]).name: row for row in rows}  # of each file the newest run's row holds
    assert {name: row["status"] for name, row in newest.items()} == {
        "a.wav": "tagged",
        "c.wav": "tagged",
        "d.wav": "deleted",
        "new.wav": "tagged",
    }
    assert newest["a.wav"]["duration_s"] == 1.5 and newest["c.wav"]["run"] == "run=00001"


def test_a_file_that_comes_back_is_new(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    run(archive, tmp_path / "out", bundle)
    (archive / "d.wav").rename(tmp_path / "d.wav")
    assert statuses(run(archive, tmp_path / "out", bundle)[0]) == {"d.wav": "deleted"}
    (tmp_path / "d.wav").rename(archive / "d.wav")
    third, _ = run(archive, tmp_path / "out", bundle)
    assert third.name == "run=00003" and statuses(third) == {"d.wav": "tagged"}


def test_another_bundle_tags_all_beside_the_old_results(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    first, _ = run(archive, tmp_path / "out", bundle)
    before = hashes(tmp_path / "out")
    other, ledger = run(archive, tmp_path / "out", tiny_bundle("multi"))
    assert ledger and ledger["files"]["in"] == 3 and other.parent != first.parent and other.name == "run=00001"
    assert {path: was for path, was in hashes(tmp_path / "out").items() if path in before} == before
    assert runs.each(tmp_path / "out") == sorted(path.relative_to(tmp_path / "out") for path in (first, other))


def test_a_copy_of_a_file_of_an_earlier_run_is_its_duplicate(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    """Though its name comes first; and when the original goes, the copy is heard."""
    out = tmp_path / "out"
    run(archive, out, bundle)
    (archive / "a_copy.wav").write_bytes((archive / "d.wav").read_bytes())
    second, _ = run(archive, out, bundle)
    assert statuses(second) == {"a_copy.wav": "duplicate"}
    (row,) = pq.read_table(second / "recordings").to_pylist()
    assert row["error"] == f"the same bytes as {archive / 'd.wav'}"
    (archive / "d.wav").unlink()
    third, ledger = run(archive, out, bundle)
    assert statuses(third) == {"a_copy.wav": "tagged", "d.wav": "deleted"}
    assert (
        ledger and ledger["closed"] and ledger["since_last"]["closed"] and ledger["since_last"]["files"]["again"] == 1
    )


def test_contents_are_hashed_once(
    archive: Path, tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files of one size, of which an archive of fixed lengths has no others."""
    for k in range(4):
        write(archive / f"same{k}.wav", sound(1.0, 900 + 20 * k))
    read: list[str] = []
    digest = listing.sha256_of

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(listing, "sha256_of", counted)
    run(archive, tmp_path / "out", bundle)
    assert sorted(read) == ["a.wav", "same0.wav", "same1.wav", "same2.wav", "same3.wav"]
    read.clear()
    write(archive / "same9.wav", sound(1.0, 999))
    run(archive, tmp_path / "out", bundle)
    assert read == ["same9.wav"]


def test_what_could_not_be_had_is_tried_with_the_next_run(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    out, lost = tmp_path / "out", archive / "d.wav"
    folder, _, work = runs.begin_next(runs.home(out, bundle.fingerprint), job(archive, bundle))
    assert work
    lost.rename(tmp_path / "away.wav")  # between listing and hearing
    tag_parts(work, folder, bundle)
    books.close(folder, work, bundle)
    parts.finish(folder)
    assert statuses(folder)["d.wav"] == "unreadable"
    (tmp_path / "away.wav").rename(lost)
    assert run(archive, out, bundle) == (folder, None)  # alone it is no reason
    write(archive / "e.wav", sound(1.0))
    second, _ = run(archive, out, bundle)
    assert statuses(second) == {"d.wav": "tagged", "e.wav": "tagged"} and changes(second)["d.wav"] == "again"


def test_a_run_that_was_begun_is_finished_with_its_own_files(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    out = tmp_path / "out"
    folder, _, work = runs.begin_next(runs.home(out, bundle.fingerprint), job(archive, bundle))
    assert work and runs.is_open(folder.parent)
    write(archive / "late.wav", sound(1.0))
    again, ledger = run(archive, out, bundle)
    assert again == folder and ledger and ledger["closed"] and "late.wav" not in statuses(folder)
    assert not runs.is_open(folder.parent)
    assert statuses(run(archive, out, bundle)[0]) == {"late.wav": "tagged"}


def test_a_run_that_died_before_its_list_begins_anew(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    out = tmp_path / "out"
    folder, _, _ = runs.begin_next(runs.home(out, bundle.fingerprint), job(archive, bundle))
    for name in (listing.FILES, "work_list.parquet", "bundle.json"):
        (folder / name).unlink()
    write(archive / "late.wav", sound(1.0))
    again, ledger = run(archive, out, bundle)
    assert again == folder and ledger and ledger["files"]["in"] == 4


def test_what_does_not_belong_together_is_refused(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    run(archive, tmp_path / "out", bundle)
    write(tmp_path / "other/a.wav", sound(1.0))
    with pytest.raises(DataError, match=r"over another archive: its archive is .*/in, this one's is .*/other;"):
        run(tmp_path / "other", tmp_path / "out", bundle)
    runs.begin(tmp_path / "plain", job(archive, bundle))
    with pytest.raises(DataError, match=r"expected the folder of several runs at .*/plain, found the tags of one"):
        run(archive, tmp_path / "plain", bundle)
    with pytest.raises(DataError, match="expected a new folder or one of the same job"):
        runs.begin(tmp_path / "out", job(archive, bundle))


def test_an_archive_that_is_empty_all_at_once_is_no_deletion(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    """A disk that is not mounted."""
    run(archive, tmp_path / "out", bundle)
    archive.rename(tmp_path / "away")
    archive.mkdir()
    before = hashes(tmp_path / "out")
    with pytest.raises(DataError, match="expected sound files"):
        run(archive, tmp_path / "out", bundle)
    assert hashes(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "field"), [("bundle", "bundle"), ("units", "units"), ("archive", "archive"), ("files", "listing")]
)
def test_another_configuration_is_refused_by_the_field(
    change: str, field: str, archive: Path, tmp_path: Path, bundle: Bundle
) -> None:
    runs.begin(tmp_path / "out", job(archive, bundle))
    other = archive.rename(tmp_path / "moved") if change == "archive" else archive
    if change == "files":
        write(archive / "more.wav", sound(1.0))
    ours = tiny_bundle("multi") if change == "bundle" else bundle
    spec = UnitSpec(unit_s=3) if change == "units" else SPEC
    with pytest.raises(DataError, match=rf"belongs to another job: its {field} is .*, this one's is"):
        runs.begin(tmp_path / "out", job(other, ours, spec))


def test_tags_that_are_done_are_left_alone(archive: Path, tmp_path: Path, bundle: Bundle) -> None:
    """No unit, no byte, and no Ray: the job itself, as a user runs it."""
    place, out = tmp_path / "bundle", tmp_path / "out"
    bundle = Bundle.load(bundle.save(place))
    _, work = runs.begin(out, job(archive, bundle, UnitSpec()))
    assert work
    tag_parts(work, out, bundle)
    books.close(out, work, bundle)
    parts.finish(out)
    before, began = hashes(out), time.monotonic()
    command = [sys.executable, ROOT / "jobs/tag.py", place, archive, "--out", out]
    done = subprocess.run(
        command, env=environment() | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "is done: 3 files were tagged before" in done.stderr and done.stdout.splitlines() == [str(out)]
    assert hashes(out) == before
    assert time.monotonic() - began < 60  # 10 s on a quiet machine, nearly all of it imports


HALF = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from archives import tiny_bundle, write_part
from instrunet.archive import books, runs, sources, tagger
from instrunet.archive.units import UnitSpec
from instrunet.audio.io import probe
from instrunet.data import parts
bundle, out = tiny_bundle(), Path(sys.argv[2])
_, work = runs.begin(out, runs.Job(sources.archive(sys.argv[1]), bundle.spec, UnitSpec(unit_s=2, part_units=1), probe))
made = 0
for k in (range(work.n_parts) if sys.argv[3] == "up" else reversed(range(work.n_parts))):
    rows = tagger.table([tagger.tag(unit, bundle) for unit in work.part(k)])
    import pyarrow.parquet as pq
    made += parts.publish(parts.part_path(out, books.UNITS, k), lambda aside: pq.write_table(rows, aside))
while parts.left(out, books.UNITS, work.n_parts):
    time.sleep(0.05)
assert books.close(out, work, bundle)["closed"]
parts.finish(out)
print(made)
"""


def test_two_jobs_on_one_folder_at_once_help_each_other(tmp_path: Path, bundle: Bundle) -> None:
    """Two processes begin, publish and close the same folder; every part is one of theirs, and none is lost."""
    rng = np.random.default_rng(0)
    for k in range(12):
        write(tmp_path / f"in/{k}.wav", 0.1 * rng.standard_normal(4 * RATE).astype(np.float32))
    arguments = [tmp_path / "in", tmp_path / "out"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, *arguments, way, ROOT / "tests"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for way in ("up", "down")
    ]
    made = [int(one.communicate(timeout=900)[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0] and sum(made) == 24
    assert not [path for path in (tmp_path / "out").rglob("*.tmp")]
    ledger = json.loads((tmp_path / "out/ledger.json").read_text())
    assert ledger["closed"] and ledger["units"]["in"] == ledger["units"]["out"] == 24
