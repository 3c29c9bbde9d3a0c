"""The books: one recording a file, whatever parts its units lie in, and a ledger that closes only when all is there."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import tag_archive, tiny_bundle, write_archive, write_part

from instrunet.archive import books, tagger
from instrunet.archive.tagger import STATUSES
from instrunet.archive.units import UnitSpec, WorkList
from instrunet.bundle import Bundle
from instrunet.data import parts

# Point 11 of issue 2: the output contract, in this order.
UNITS = {
    "unit_id": "string",
    "uri": "string",
    "start_s": "double",
    "stop_s": "double",
    "status": "string",
    "flags": "list<string>",
    "error": "string",
    "window_start_s": "list<float>",
    "scores": "list<list<halffloat>>",
    "bundle": "string",
    "measures": "list<float>",  # issue 3, behind the contract's
}
RECORDINGS = {
    "uri": "string",
    "status": "string",
    "flags": "list<string>",
    "duration_s": "double",
    "labels": "list<string>",
    "scores": "list<float>",
    "error": "string",
    "measures": "list<float>",
    "drift": "double",
}


class Tagged(NamedTuple):
    out: Path
    work: WorkList
    bundle: Bundle
    expected: dict[str, str]
    ledger: dict[str, Any]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Tagged:
    """Three units a part: the long file's four lie in two of them."""
    folder = tmp_path_factory.mktemp("books")
    expected = write_archive(folder / "archive")
    work = tag_archive(folder / "archive", folder / "out", bundle, UnitSpec(unit_s=2, part_units=3))
    return Tagged(folder / "out", work, bundle, expected, books.close(folder / "out", work, bundle))


@pytest.fixture
def broken(tagged: Tagged, tmp_path: Path) -> Tagged:
    """A copy whose units may be harmed."""
    for k in range(tagged.work.n_parts):
        write_part(tmp_path, k, pq.read_table(parts.part_path(tagged.out, books.UNITS, k)))
    return tagged._replace(out=tmp_path)


def columns(path: Path) -> dict[str, str]:
    schema = pq.read_schema(path)
    return {field.name: re.sub(r"(element|item): ", "", str(field.type)) for field in schema}


def unit_rows(tagged: Tagged) -> list[dict[str, Any]]:
    paths = [parts.part_path(tagged.out, books.UNITS, k) for k in range(tagged.work.n_parts)]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def recordings(tagged: Tagged) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(tagged.out / "recordings").to_pylist()
    found = {Path(row["uri"]).name: row for row in rows}
    assert len(found) == len(rows)
    return found


def harm(broken: Tagged, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    write_part(broken.out, number, tagger.table(rows))
    return books.close(broken.out, broken.work, broken.bundle)


def unit(status: str, scores: list[list[float]] | None = None, **fields: Any) -> dict[str, Any]:
    plain = {"uri": "/a.wav", "start_s": 0.0, "stop_s": 2.0, "flags": [], "error": ""}
    plain["window_start_s"] = [float(k) for k in range(len(scores or []))]
    return {"unit_id": "u", "bundle": "b", **plain, "status": status, "scores": scores or [], **fields}


def joined(tmp_path: Path, bundle: Bundle, *rows: dict[str, Any]) -> dict[str, Any]:
    write_part(tmp_path, 0, tagger.table(list(rows)))
    ((made, _),) = books.recordings(tmp_path, 1, bundle)
    return made


def test_units_keep_the_output_contract(tagged: Tagged) -> None:
    for k in range(tagged.work.n_parts):
        path = tagged.out / f"units/part-{k:05d}.parquet"
        assert list(columns(path).items()) == list(UNITS.items())


def test_recordings_keep_the_output_contract(tagged: Tagged) -> None:
    (path,) = (tagged.out / "recordings").glob("*.parquet")
    assert list(columns(path).items()) == list(RECORDINGS.items())


def test_a_file_is_one_recording(tagged: Tagged) -> None:
    assert {name: row["status"] for name, row in recordings(tagged).items()} == {
        Path(name).name: status for name, status in tagged.expected.items()
    }


def test_units_in_two_parts_are_one_recording(tagged: Tagged) -> None:
    rows = [row for row in tagged.work.table().to_pylist() if row["uri"].endswith("long.wav")]
    assert len(rows) == 4 and len({row["part"] for row in rows}) == 2
    assert recordings(tagged)["long.wav"]["duration_s"] == pytest.approx(7.3)


def test_scores_are_the_mean_over_all_windows(tagged: Tagged) -> None:
    for name, row in recordings(tagged).items():
        windows = [s for u in unit_rows(tagged) if Path(u["uri"]).name == name for s in u["scores"]]
        if not windows:
            assert (row["scores"], row["labels"]) == ([], [])
            continue
        mean = np.mean(windows, axis=0)
        np.testing.assert_allclose(row["scores"], mean, atol=1e-6)
        assert row["labels"] == [tagged.bundle.spec.labels[mean.argmax()]]


def test_windows_weigh_the_same_whatever_unit_they_are_in(tmp_path: Path, bundle: Bundle) -> None:
    row = joined(tmp_path, bundle, unit("tagged", [[0.0, 1.0, 0.0]] * 3), unit("tagged", [[1.0, 0.0, 0.0]]))
    assert row["scores"] == [0.25, 0.75, 0.0]
    assert row["labels"] == ["drum"]


def test_several_labels_are_those_over_their_threshold(tmp_path: Path) -> None:
    row = joined(tmp_path, tiny_bundle("multi"), unit("tagged", [[0.9, 0.2, 0.4]]), unit("tagged", [[0.8, 0.1, 0.6]]))
    assert row["labels"] == ["bell", "horn"]  # 0.5 reaches 0.5


@pytest.mark.parametrize(
    ("whole", "of_units"),
    [
        ("tagged", ["silent", "tagged", "too_short"]),
        ("damaged", ["tagged", "damaged", "corrupt"]),
        ("damaged", ["tagged", "corrupt"]),
        ("damaged", ["unreadable", "tagged"]),
        ("corrupt", ["silent", "corrupt"]),
        ("unreadable", ["unreadable", "too_short"]),
        ("silent", ["silent", "too_short"]),
        ("duplicate", ["duplicate", "duplicate"]),
    ],
)
def test_a_recording_has_the_status_that_says_most(
    whole: str, of_units: list[str], tmp_path: Path, bundle: Bundle
) -> None:
    assert joined(tmp_path, bundle, *map(unit, of_units))["status"] == whole


def test_every_status_has_a_rank() -> None:
    assert sorted(books.RANK) == sorted(STATUSES)


def test_flags_and_errors_are_joined(tmp_path: Path, bundle: Bundle) -> None:
    rows = [
        unit("corrupt", error="b breaks", flags=["dc"]),
        unit("tagged", flags=["clipped", "dc"]),
        unit("damaged", error="a is cut"),
        unit("corrupt", error="b breaks"),
    ]
    row = joined(tmp_path, bundle, *rows)
    assert (row["flags"], row["error"]) == (["clipped", "dc"], "a is cut; b breaks")
    assert row["duration_s"] == 8.0


def test_the_ledger_closes_and_says_where_everything_went(tagged: Tagged) -> None:
    ledger, rows = json.loads((tagged.out / "ledger.json").read_text(encoding="utf-8")), unit_rows(tagged)
    assert ledger == tagged.ledger and ledger["closed"] is True
    statuses = list(tagged.expected.values())
    assert ledger["files"] == {"in": 11, "out": 11, "by_status": {s: statuses.count(s) for s in STATUSES}}
    of_units = [row["status"] for row in rows]
    assert ledger["units"] == {
        "in": len(tagged.work),
        "out": len(rows),
        "by_status": {s: of_units.count(s) for s in STATUSES},
    }


def test_seconds_in_are_those_of_each_status(tagged: Tagged) -> None:
    audio = tagged.ledger["audio_s"]
    assert audio["by_status"]["tagged"] == pytest.approx(2.5 + 7.3 + 1.2)
    assert audio["by_status"]["duplicate"] == 2.5
    assert audio["by_status"]["silent"] == 1.0
    assert audio["by_status"]["damaged"] == pytest.approx(4.0, abs=0.1)  # as promised, with an encoder's padding
    assert audio["by_status"]["corrupt"] == audio["by_status"]["unreadable"] == 0  # nobody knows
    assert audio["in"] == audio["out"] == pytest.approx(sum(audio["by_status"].values()), abs=0.01)


def test_a_missing_unit_keeps_the_books_open(broken: Tagged) -> None:
    number = next(row["part"] for row in broken.work.table().to_pylist() if row["uri"].endswith("long.wav"))
    rows = pq.read_table(parts.part_path(broken.out, books.UNITS, number)).to_pylist()
    gone = next(k for k, row in enumerate(rows) if row["uri"].endswith("long.wav"))
    ledger = harm(broken, number, rows[:gone] + rows[gone + 1 :])
    assert ledger["closed"] is False
    assert ledger["units"]["out"] == ledger["units"]["in"] - 1
    assert json.loads((broken.out / "ledger.json").read_text(encoding="utf-8"))["closed"] is False


def test_a_doubled_unit_keeps_the_books_open(broken: Tagged) -> None:
    rows = pq.read_table(parts.part_path(broken.out, books.UNITS, 0)).to_pylist()
    ledger = harm(broken, 0, [rows[0], *rows])
    assert ledger["closed"] is False
    assert ledger["units"]["out"] == ledger["units"]["in"] + 1


def test_one_missing_and_one_doubled_do_not_even_out(broken: Tagged) -> None:
    rows = pq.read_table(parts.part_path(broken.out, books.UNITS, 0)).to_pylist()
    ledger = harm(broken, 0, [rows[0], *rows[:-1]])
    assert ledger["units"]["out"] == ledger["units"]["in"]
    assert ledger["closed"] is False


def test_a_unit_of_another_range_keeps_the_books_open(broken: Tagged) -> None:
    rows = pq.read_table(parts.part_path(broken.out, books.UNITS, 0)).to_pylist()
    assert rows[0]["stop_s"] == 2.0
    assert harm(broken, 0, [rows[0] | {"stop_s": 2.5}, *rows[1:]])["closed"] is False


def test_an_end_found_by_decoding_closes(broken: Tagged) -> None:
    k = next(n for n, row in enumerate(broken.work.table().to_pylist()) if row["stop_s"] is None)
    number = broken.work.table().column("part")[k].as_py()
    path = parts.part_path(broken.out, books.UNITS, number)
    rows = [row | {"stop_s": 9.0} if row["stop_s"] is None else row for row in pq.read_table(path).to_pylist()]
    assert harm(broken, number, rows)["closed"] is True


def test_closing_twice_changes_nothing(tagged: Tagged) -> None:
    before = (tagged.out / "recordings/part-00000.parquet").read_bytes()
    assert books.close(tagged.out, tagged.work, tagged.bundle) == tagged.ledger
    assert (tagged.out / "recordings/part-00000.parquet").read_bytes() == before


def test_recordings_come_part_by_part(broken: Tagged) -> None:
    """The first recording is there before later parts are read: memory does not grow with the archive."""
    n_parts = broken.work.n_parts
    for k in range(2, n_parts):
        parts.part_path(broken.out, books.UNITS, k).unlink()
    stream = books.recordings(broken.out, n_parts, broken.bundle)
    assert Path(next(stream)[0]["uri"]).name == "a.wav"
    with pytest.raises(FileNotFoundError, match=r"part-00002"):
        list(stream)


def test_the_ledger_of_a_leaky_bundle_says_so(tagged: Tagged) -> None:
    assert tagged.ledger["leaky"] == ""
    spec = tagged.bundle.spec
    trained = spec.trained.model_copy(update={"audit": "leaky: 2 groups lie in more than one split"})
    leaky = Bundle(spec.model_copy(update={"trained": trained}), tagged.bundle.network)
    ledger = books.close(tagged.out, tagged.work, leaky)
    assert ledger["leaky"] == "LEAKY: 2 groups lie in more than one split"
    books.close(tagged.out, tagged.work, tagged.bundle)
