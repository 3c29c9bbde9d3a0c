"""The work list: what is found, in which order, how it is cut, and what makes two units the same."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import make_work, sound, work_rows, write, write_archive, write_boundless_flac

from instrunet.archive import listing, sources, units
from instrunet.archive.units import UnitSpec
from instrunet.errors import DataError

SPEC = UnitSpec(unit_s=3)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units") / "archive"
    write_archive(folder)
    return folder


def rows_of(archive: Path, spec: UnitSpec = SPEC, bundle: str = "b") -> list[dict[str, Any]]:
    return work_rows(archive, spec, bundle)


def ids(archive: Path, spec: UnitSpec = SPEC, bundle: str = "b") -> list[str]:
    return [row["unit_id"] for row in rows_of(archive, spec, bundle)]


def listed(archive: Path, temporary: Path) -> str:
    return listing.scan(sources.archive(archive), temporary / "found.parquet").digest


def files(archive: Path | str) -> list[str]:
    return [file.name for file in sources.archive(archive).files()]


def only(archive: Path) -> dict[str, Any]:
    (row,) = rows_of(archive)
    return row


def in_parts(lengths: list[float | None], spec: UnitSpec, n_bytes: int = 0) -> list[int]:
    bounds = units.bounds_of(np.array([s or 0.0 for s in lengths]), np.full(len(lengths), float(n_bytes)), spec)
    return [k for k, n in enumerate(np.diff(bounds)) for _ in range(n)]


def test_files_stand_in_the_order_of_their_names(archive: Path) -> None:
    names = files(archive)
    assert names == [
        "a.wav",
        "box.wav",
        "cut.mp3",
        "deep/er/long.wav",
        "deep/räksmörgås 箏.flac",
        "empty.wav",
        "gone.wav",
        "letter.wav",
        "short.wav",
        "silent.wav",
        "z_copy.wav",
    ]
    assert list(dict.fromkeys(row["uri"] for row in rows_of(archive))) == [str(archive / name) for name in names]


def test_endings_in_capitals_count(tmp_path: Path) -> None:
    write(tmp_path / "LOUD.WAV", sound(1.0))
    assert only(tmp_path)["status"] == ""


def test_units_tile_a_file(archive: Path) -> None:
    ranges = [(row["start_s"], row["stop_s"]) for row in rows_of(archive) if row["uri"].endswith("long.wav")]
    assert ranges == [(0.0, 3.0), (3.0, 6.0), (6.0, 7.3)]


def test_units_tile_any_duration() -> None:
    rng = np.random.default_rng(0)
    durations = [*(rng.integers(1, 10**8, 300) / 44_100), *(k * 0.1 for k in range(1, 60)), 3.0, 6.0, 300.0]
    for duration_s in map(float, durations):
        for unit_s in (0.1, 0.7, 3.0, 300.0):
            if duration_s / unit_s > 1000:
                continue
            starts, stops = zip(*units._ranges(duration_s, unit_s), strict=True)
            assert (starts[0], stops[-1]) == (0.0, duration_s)
            assert starts[1:] == stops[:-1]
            lengths = np.subtract(stops, starts)
            assert (lengths > 1e-7 * unit_s).all() and (lengths <= unit_s * (1 + 1e-6)).all(), (duration_s, unit_s)


def test_ids_are_stable_and_each_their_own(archive: Path) -> None:
    assert ids(archive) == ids(archive)
    assert len(set(ids(archive))) == len(ids(archive))


def test_another_model_makes_other_units(archive: Path) -> None:
    assert not set(ids(archive)) & set(ids(archive, bundle="c"))


def test_another_range_makes_another_unit(archive: Path) -> None:
    ours = {row["unit_id"] for row in rows_of(archive) if row["uri"].endswith("long.wav")}
    theirs = {row["unit_id"] for row in rows_of(archive, UnitSpec(unit_s=4)) if row["uri"].endswith("long.wav")}
    assert not ours & theirs


def test_another_time_of_change_makes_another_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(1.0))
    before = ids(tmp_path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert ids(tmp_path) != before


def test_another_size_makes_another_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(1.0))
    before, stat = ids(tmp_path), path.stat()
    path.write_bytes(path.read_bytes() + b"\0")  # behind the sound: its length, and so the range, stays
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert only(tmp_path)["stop_s"] == 1.0
    assert ids(tmp_path) != before


def test_an_archive_that_moves_keeps_its_units(tmp_path: Path) -> None:
    write_archive(tmp_path / "here")
    (tmp_path / "here/gone.wav").unlink()  # its target is named by its place
    before, digest = ids(tmp_path / "here"), listed(tmp_path / "here", tmp_path)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert ids(tmp_path / "there") == before
    assert listed(tmp_path / "there", tmp_path) == digest


def test_one_file_is_an_archive(archive: Path) -> None:
    rows = rows_of(archive / "deep/er/long.wav")
    assert [(row["start_s"], row["stop_s"]) for row in rows] == [(0.0, 3.0), (3.0, 6.0), (6.0, 7.3)]
    assert {row["uri"] for row in rows} == {str(archive / "deep/er/long.wav")}


def test_uris_are_absolute(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive)
    assert rows_of(Path("deep")) == rows_of(archive / "deep")


def test_a_small_archive_gets_small_parts() -> None:
    assert in_parts([30.0] * 20, UnitSpec()) == [0] * 10 + [1] * 10  # 300 s are the least
    parts = in_parts([20.0] * 1000, UnitSpec())  # a 64th of 20,000 s is 312 s
    assert parts == [k // 15 for k in range(1000)]


def test_a_large_archive_has_parts_of_part_s_at_most() -> None:
    assert in_parts([300.0] * 1000, UnitSpec(part_s=1800)) == [k // 6 for k in range(1000)]
    assert in_parts([300.0] * 1000, UnitSpec(part_s=200)) == list(range(1000))  # a unit is never split over parts


def test_parts_have_part_units_at_most() -> None:
    assert in_parts([None] * 300, UnitSpec()) == [k // 128 for k in range(300)]
    assert in_parts([0.1] * 10, UnitSpec(part_units=4)) == [k // 4 for k in range(10)]


def test_parts_have_part_bytes_at_most() -> None:
    assert in_parts([None] * 9, UnitSpec(part_bytes=400), n_bytes=100) == [k // 4 for k in range(9)]
    assert in_parts([1.0] * 3, UnitSpec(part_bytes=400), n_bytes=500) == [0, 1, 2]  # a file is not split for it


def test_the_units_of_a_file_share_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(6.0))  # two units of 48 kB
    half = path.stat().st_size // 2
    assert [row["part"] for row in rows_of(tmp_path, UnitSpec(unit_s=3, part_bytes=half + 50))] == [0, 1]
    assert [row["part"] for row in rows_of(tmp_path, UnitSpec(unit_s=3, part_bytes=2 * half))] == [0, 0]


def test_row_group_k_of_a_saved_work_list_is_part_k(archive: Path, tmp_path: Path) -> None:
    work = make_work(archive, tmp_path, UnitSpec(unit_s=1, part_units=3))
    n, table = work.n_parts, work.table()
    assert n == -(-len(table) // 3) > 4
    assert pq.ParquetFile(tmp_path / units.WORK_LIST).num_row_groups == n
    loaded = [work.part(k) for k in range(n)]
    assert [{row["part"] for row in rows} for rows in loaded] == [{k} for k in range(n)]
    assert [row for rows in loaded for row in rows] == table.to_pylist()


def test_the_same_bytes_are_a_duplicate_of_the_first(archive: Path) -> None:
    rows = {Path(row["uri"]).name: row for row in rows_of(archive)}
    assert (rows["z_copy.wav"]["status"], rows["a.wav"]["status"]) == ("duplicate", "")
    assert rows["z_copy.wav"]["error"] == f"the same bytes as {archive / 'a.wav'}"
    assert rows["z_copy.wav"]["stop_s"] == 2.5


def test_other_bytes_of_the_same_size_are_no_duplicate(tmp_path: Path) -> None:
    for name, hz in (("a.wav", 440), ("b.wav", 550), ("c.wav", 440)):
        write(tmp_path / name, sound(1.0, hz))
    assert len({path.stat().st_size for path in tmp_path.iterdir()}) == 1
    assert [row["status"] for row in rows_of(tmp_path)] == ["", "", "duplicate"]


def test_twins_that_are_no_sound_are_both_corrupt(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("dear reader")
        (tmp_path / f"empty_{name}").touch()
    assert [row["status"] for row in rows_of(tmp_path)] == ["corrupt"] * 4


def test_what_cannot_be_opened_is_one_unit_that_says_why(archive: Path) -> None:
    rows = {Path(row["uri"]).name: row for row in rows_of(archive)}
    for name, status, reason in (
        ("gone.wav", "unreadable", "found nothing"),
        ("box.wav", "unreadable", "found a folder"),
        ("empty.wav", "corrupt", "not sound that can be decoded"),
        ("letter.wav", "corrupt", "not sound that can be decoded"),
    ):
        row = rows[name]
        assert (row["status"], row["start_s"], row["stop_s"]) == (status, 0.0, None)
        assert reason in row["error"] and name in row["error"]


def test_a_header_without_samples_is_a_unit_of_no_length(tmp_path: Path) -> None:
    write(tmp_path / "none.wav", sound(0.0))
    assert (only(tmp_path)["start_s"], only(tmp_path)["stop_s"]) == (0.0, 0.0)


def test_a_header_that_promises_an_absurd_length_is_one_unit_to_the_end(tmp_path: Path) -> None:
    write_boundless_flac(tmp_path / "boundless.flac")
    assert (only(tmp_path)["start_s"], only(tmp_path)["stop_s"], only(tmp_path)["status"]) == (0.0, None, "")


@pytest.mark.timeout(20)
def test_loops_and_pipes_hang_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in/a.wav", sound(1.0))
    (tmp_path / "in/loop").symlink_to(tmp_path)
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    (tmp_path / "endless.wav").symlink_to("x" * 300)
    os.mkfifo(tmp_path / "pipe.wav")
    found = {Path(row["uri"]).name: row["status"] for row in rows_of(tmp_path)}
    assert found == {"a.wav": "", "self.wav": "unreadable", "endless.wav": "unreadable", "pipe.wav": "unreadable"}
    assert len(files(tmp_path)) == 4


def test_a_name_that_is_not_utf8_is_a_row_and_hides_no_other(tmp_path: Path) -> None:
    good = write(tmp_path / "b.wav", sound(1.0))
    odd = tmp_path / os.fsdecode(b"a\xff\xe9.wav")
    shutil.copy(good, odd)  # the first of twins: the second must be tagged all the same
    first, second = rows_of(tmp_path)
    assert first["uri"] == f"{tmp_path}/a\\xff\\xe9.wav"
    assert first["status"] == "unreadable"
    assert first["error"] == f"expected a name in UTF-8, got {tmp_path}/a\\xff\\xe9.wav; rename it"
    assert (second["uri"], second["status"]) == (str(good), "")
    assert first["unit_id"] != second["unit_id"]


def test_a_folder_without_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"^expected sound files \(.*\.flac .*\.wav\) under .*, found none$"):
        listed(tmp_path, tmp_path)


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^expected a folder of sound at .*nowhere, found nothing$"):
        listed(tmp_path / "nowhere", tmp_path)
