"""What an archive may be, and that each of them gives the same files in the same order."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_work, sound, work_rows, write
from stores import Store, proxied, settings

from instrunet.archive import listing, sources, units
from instrunet.archive.units import UnitSpec
from instrunet.audio.io import Header
from instrunet.data import store as stores
from instrunet.errors import ConfigError, DataError

NAMES = ["a-b/xx.wav", "a.wav", "a/b.flac", "a/c.wav", "a/deep/d.flac", "a.d/e.wav", "ab.wav", "Z.FLAC", "ä/箏.wav"]
SPEC = UnitSpec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "in"
    for k, name in enumerate(NAMES):
        write(folder / name, sound(0.5 + k / 10))
    (folder / "notes.txt").write_text("no sound")
    return folder


def names(archive: str | Path) -> list[str]:
    return [file.name for file in sources.archive(archive).files()]


def uris(archive: str | Path) -> list[str]:
    return [row["uri"] for row in work_rows(archive, SPEC)]


def test_a_folder_is_walked_in_the_order_of_paths(folder: Path) -> None:
    wanted = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    assert names(folder) == sorted(path.relative_to(folder).as_posix() for path in wanted) == sorted(NAMES)


def test_a_store_lists_in_the_same_order_page_by_page(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here four names a request (S3: a thousand), and none is asked for before it is needed."""
    bucket = store.bucket("listed")
    store.upload(folder, bucket)
    with proxied(store) as proxy:
        for name, value in settings(proxy.port).items():
            monkeypatch.setenv(name, value)
        stores._file_system.cache_clear()
        monkeypatch.setattr(stores, "PAGE", 4)
        patience = stores.Patience.of_environment()
        stores._file_system("s3", patience, patience.tries).req_kw = {"MaxKeys": 4}
        found, seen = [], []
        for file in sources.archive(bucket).files():
            found.append(file.name)
            seen.append(sum("list-type" in path and "max-keys=4" in path.lower() for _, path, _ in proxy.seen))
        stores._file_system.cache_clear()
    assert found == sorted(NAMES) == names(folder)
    assert seen == sorted(seen) and seen[0] == 1 and seen[-1] == 3  # of nine sounds and a text


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("**/*.flac", ["a/b.flac", "a/deep/d.flac"]),
        ("**/*.[fF]*", ["Z.FLAC", "a/b.flac", "a/deep/d.flac"]),
        ("*.wav", ["a.wav", "ab.wav"]),
        ("a*/?.wav", ["a.d/e.wav", "a/c.wav"]),
        ("**/[!abc].*", ["Z.FLAC", "a/deep/d.flac", "a.d/e.wav", "ä/箏.wav"]),
        ("a/**", ["a/b.flac", "a/c.wav", "a/deep/d.flac"]),
    ],
)
def test_a_glob_names_some(pattern: str, wanted: list[str], folder: Path) -> None:
    found = uris(f"{folder}/{pattern}")
    assert found == [f"{folder}/{name}" for name in sorted(wanted)]


def test_a_file_that_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "in/[x]/a*.wav", sound(1.0))
    assert names(str(path)) == ["a*.wav"] and names(str(path.parent)) == ["a*.wav"]


def test_a_glob_of_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^expected sound files .* under .*/\*\*/\*.mp3, found none$"):
        listing.scan(sources.archive(f"{folder}/**/*.mp3"), tmp_path / "found.parquet")


@pytest.mark.parametrize("head", ["", "label,path", "uri", "path,label"])
def test_a_list_is_what_it_names_each_once(head: str, folder: Path) -> None:
    path = folder.parent / ("list.csv" if head else "list.txt")
    rows = [f"{folder}/a.wav", "in/ab.wav", "in/nowhere.wav", "in/a/c.wav", "in/ab.wav"]
    lines = [f"x,{row}" if head.startswith("label") else f"{row},x" if "," in head else row for row in rows]
    path.write_text("\n".join([head, *lines] if head else lines) + "\n", encoding="utf-8")
    found = {row["uri"]: row["status"] for row in work_rows(path, SPEC)}
    assert found == {
        f"{folder}/a.wav": "",
        f"{folder}/a/c.wav": "",
        f"{folder}/ab.wav": "",
        f"{folder}/nowhere.wav": "unreadable",
    }


def inventory(where: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), where)
    return where


def test_an_inventory_saves_looking_at_files(tmp_path: Path) -> None:
    """None of these exist: sizes and durations are as it says."""
    path = inventory(tmp_path / "i.parquet", uri=["s3://b/y.wav", "/x.wav"], size=[2, 1], duration=[700.0, 10.0])
    work = make_work(path, tmp_path / "out", SPEC, look=_refuse)
    rows = [(row["uri"], row["start_s"], row["stop_s"], row["n_bytes"]) for row in work.table().to_pylist()]
    assert rows == [
        ("/x.wav", 0.0, 10.0, 1),
        *(("s3://b/y.wav", start, stop, 2) for start, stop in ((0.0, 300.0), (300.0, 600.0), (600.0, 700.0))),
    ]


def _refuse(path: Path) -> Header:
    raise AssertionError(path)


def test_an_inventory_without_more_is_a_list(folder: Path, tmp_path: Path) -> None:
    path = inventory(tmp_path / "i.parquet", uri=[f"{folder}/ab.wav", f"{folder}/a.wav"])
    assert work_rows(path, SPEC) == [
        row | {"unit_id": ours["unit_id"]}
        for row, ours in zip(work_rows(f"{folder}/*.wav", SPEC), work_rows(path, SPEC), strict=True)
    ]


def test_another_version_in_an_inventory_is_another_file(tmp_path: Path) -> None:
    ids = []
    for version in ("one", "two", "two"):
        path = inventory(tmp_path / "i.parquet", uri=["/x.wav"], size=[1], duration=[1.0], etag=[version])
        ids.append(work_rows(path, SPEC)[0]["unit_id"])
    assert ids[0] != ids[1] == ids[2]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"path": ["/a.wav"]}, "needs a column uri; it has path"),
        ({"uri": [None], "size": [1]}, "has a row without a uri"),
        ({"uri": ["a.wav"], "size": ["big"]}, "no Parquet inventory that can be read"),
    ],
)
def test_an_inventory_that_says_too_little_is_refused(columns: dict[str, list[Any]], told: str, tmp_path: Path) -> None:
    path = inventory(tmp_path / "i.parquet", **columns)
    with pytest.raises(DataError, match=told):
        list(sources.archive(path).files())


def test_credentials_in_a_list_are_refused(tmp_path: Path) -> None:
    path = inventory(tmp_path / "i.parquet", uri=["s3://key:hush@b/a.wav"], size=[1])
    with pytest.raises(ConfigError, match="with credentials") as told:
        list(sources.archive(path).files())
    assert "hush" not in str(told.value)


def test_a_folder_that_may_not_be_read_is_a_file_that_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("/deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    rows = {row["uri"]: row["status"] for row in work_rows(folder, SPEC)}
    assert rows[f"{folder}/a/deep"] == "unreadable" and len(rows) == len(NAMES)


def test_a_larger_archive_has_larger_parts_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MOST_PARTS", 100)
    n_parts = [len(units.bounds_of(np.full(n, 300.0), np.full(n, 1e7), SPEC)) - 1 for n in (300, 3000, 30_000)]
    assert n_parts == [75, 100, 100]
