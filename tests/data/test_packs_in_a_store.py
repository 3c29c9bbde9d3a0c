"""Packs of and in a store: the same bytes, few requests, and a store that fails."""

import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from archives import pack_archive, sound, tag_archive, tiny_bundle, write
from pydantic import TypeAdapter
from stores import Proxy, Store, proxied, settings

from instrunet.archive.units import UnitSpec
from instrunet.data import corpora, packed, packing, packs, places, readahead, store
from instrunet.data.packed import INDEX
from instrunet.data.readahead import Reader
from instrunet.data.remote import CHUNK, Remote
from instrunet.data.store import ObjectError
from instrunet.errors import DataError
from pipelines import pack

N = 150


@pytest.fixture
def proxy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(packed, "READER", Reader())
    with proxied(store) as running:
        enter(running.port, monkeypatch)
        yield running


def enter(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(port, timeout_s=20, tries=2).items():
        monkeypatch.setenv(name, value)
    store._file_system.cache_clear()


@pytest.fixture
def bucket(store: Store, proxy: Proxy, request: pytest.FixtureRequest) -> str:
    return store.bucket(f"p{abs(hash(request.node.name)):x}")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "archive"
    rng = random.Random(0)
    for k in range(N):
        (folder / f"{k % 7}").mkdir(parents=True, exist_ok=True)
        (folder / f"{k % 7}/{k:03d}.bin").write_bytes(rng.randbytes(rng.randrange(30_000)))
    return folder


def shards_in(store: Store, url: str, folder: Path) -> dict[str, bytes]:
    made = store.download(url, folder)
    return {path.name: path.read_bytes() for path in (made / "shards").iterdir()}


def test_a_pack_from_store_to_store_is_the_pack_of_the_disk(
    store: Store, bucket: str, proxy: Proxy, many: Path, tmp_path: Path
) -> None:
    """Though one request in twenty fails."""
    store.upload(many, f"{bucket}/archive")
    proxy.fault = lambda method, path, n: "503 SlowDown" if n % 20 == 0 else ""
    pack_archive(places.place(f"{bucket}/archive"), places.place(f"{bucket}/x.packed"), shard_mb=1)
    here = pack_archive(many, tmp_path / "x.packed", shard_mb=1)
    theirs = {path.name: path.read_bytes() for path in (Path(str(here)) / "shards").iterdir()}
    assert shards_in(store, f"{bucket}/x.packed", tmp_path / "made") == theirs
    ours, theirs_index = (pq.read_table(folder / INDEX) for folder in (tmp_path / "made", Path(str(here))))
    assert ours.drop_columns(["version"]).equals(theirs_index.drop_columns(["version"]))
    assert (tmp_path / "made/_SUCCESS").is_file()


def test_files_that_follow_each_other_come_in_one_request(store: Store, bucket: str, proxy: Proxy, many: Path) -> None:
    there = pack_archive(many, places.place(f"{bucket}/x.packed"), shard_mb=9)
    began = len(proxy.seen)
    paths = sorted(path for path in there.rglob("*") if path.is_file())
    assert [path.relative_to(there) for path in paths] == sorted(p.relative_to(many) for p in many.rglob("*.bin"))
    for path in paths:
        assert path.read_bytes() == (many / path.relative_to(there)).read_bytes()
    assert len(proxy.seen) - began < N / 10


def test_threads_that_look_at_many_files_do_not_ask_for_each(
    store: Store, bucket: str, proxy: Proxy, many: Path
) -> None:
    there = pack_archive(many, places.place(f"{bucket}/x.packed"), shard_mb=9)
    began, paths = len(proxy.seen), sorted(path for path in there.rglob("*") if path.is_file())
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda path: path.read_bytes(), paths))
    assert contents == [(many / path.relative_to(there)).read_bytes() for path in paths]
    assert len(proxy.seen) - began < N / 4


class Ranges:
    """A shard of a store, and what was asked of it."""

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.content, self.asked = random.Random(1).randbytes(size), list[tuple[int, int]]()
        monkeypatch.setattr(Remote, "known", lambda _: {"size": size})
        monkeypatch.setattr(Remote, "ranged", lambda _, start, n: iter([self._range(start, n)]))
        self.shard = Remote("s3://bucket/x.packed/shards/part-00000.tar")

    def _range(self, start: int, n_bytes: int) -> bytes:
        self.asked.append((start, n_bytes))
        return self.content[start : start + n_bytes]

    def read(self, reader: Reader, start: int, n_bytes: int) -> None:
        assert b"".join(reader.read(self.shard, start, n_bytes)) == self.content[start : start + n_bytes]


def test_a_file_by_itself_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges, reader = Ranges(40 << 20, monkeypatch), Reader()
    for start in (30 << 20, 3 << 20, 11 << 20, 20 << 20, 1 << 20):
        ranges.read(reader, start, 50_000)
    assert [n for _, n in ranges.asked] == [50_000] * 5


def test_what_is_read_on_is_fetched_ahead_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges, reader, step = Ranges(40 << 20, monkeypatch), Reader(), 50_000
    for start in range(512, (40 << 20) - step, step + 700):
        ranges.read(reader, start, step)
    sizes = [n for _, n in ranges.asked]
    assert len(sizes) < 12 and max(sizes) == CHUNK
    assert sum(sizes) <= (40 << 20) + len(sizes) * step  # what lies across the end of one is fetched with the next


def test_a_large_file_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges, reader = Ranges(40 << 20, monkeypatch), Reader()
    ranges.read(reader, 512, readahead.LARGE + 1)
    assert ranges.asked == [(512, readahead.LARGE + 1)]
    assert not reader._blocks


def test_a_shard_that_is_too_short_or_gone_costs_a_status_and_few_requests(
    store: Store, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    for k in range(9):
        write(tmp_path / f"archive/{k}.wav", sound(1.0, 300 + 40 * k))
    there = pack_archive(tmp_path / "archive", places.place(f"{bucket}/x.packed"), shard_mb=0.06)  # three in each
    store.write(
        f"{bucket}/x.packed/shards/part-00000.tar", store.read(f"{bucket}/x.packed/shards/part-00000.tar")[:-9000]
    )
    content = store.read(f"{bucket}/x.packed/shards/part-00001.tar")
    store.write(f"{bucket}/x.packed/shards/part-00001.tar", content[:900] + b"rot" + content[903:])
    store.client.delete_object(Bucket=bucket.removeprefix("s3://"), Key="x.packed/shards/part-00002.tar")
    tag_archive(there, tmp_path / "tags", tiny_bundle(), UnitSpec())
    began = len(proxy.seen)
    rows = pq.read_table(tmp_path / "tags/units").to_pylist()
    status = {row["uri"][-5]: (row["status"], row["error"]) for row in rows}
    bad = {name: why for name, (kind, why) in status.items() if kind == "unreadable"}
    assert {name for name, (kind, _) in status.items() if kind == "tagged"} == set("012345678") - set(bad)
    assert set("678") <= set(bad) and "nothing is there" in bad["6"] and "part-00002.tar" in bad["6"]
    assert "bytes are needed" in bad["2"] or "are needed" in bad["2"]
    assert "is not what was packed" in bad["3"]
    assert "0" not in bad and "4" not in bad
    assert began < 120


def change(store: Store, url: str) -> None:
    store.write(url, b"another content")


def vanish(store: Store, url: str) -> None:
    store.client.delete_object(Bucket=url.split("/")[2], Key=url.split("/", 3)[3])


@pytest.mark.parametrize("what", [change, vanish])
def test_an_object_that_changes_after_it_was_listed_is_not_packed(
    what: Callable[[Store, str], None], store: Store, bucket: str, tmp_path: Path
) -> None:
    for k in range(3):
        store.write(f"{bucket}/archive/{k}.wav", b"a content of 15")
    entries = packs.list_entries(places.place(f"{bucket}/archive"))
    what(store, f"{bucket}/archive/1.wav")
    with pytest.raises(DataError, match=r"/1.wav has changed or gone since the archive was listed"):
        packing.write_shard(places.place(f"{bucket}/archive"), 0, entries, tmp_path / "x.tar", skip=True)


def test_an_object_that_never_comes_fails_the_job_or_is_left_out(store: Store, bucket: str, proxy: Proxy) -> None:
    for k in range(3):
        store.write(f"{bucket}/archive/{k}.wav", b"content" * k)
    archive, out = places.place(f"{bucket}/archive"), places.place(f"{bucket}/x.packed")
    proxy.fault = lambda method, path, n: "503 SlowDown" if method == "GET" and path.endswith("1.wav") else ""
    with pytest.raises(
        DataError, match=r"/1.wav cannot be read: .* cannot be had, after 3 tries: .*; mend it, or leave"
    ):
        pack_archive(archive, out)
    made = pack_archive(archive, out, skip=True)
    assert [(made / name).exists() for name in ("0.wav", "1.wav", "2.wav")] == [True, False, True]
    assert (made / "2.wav").read_bytes() == b"contentcontent"


def test_names_that_lead_elsewhere_are_refused(store: Store, bucket: str) -> None:
    for name in ("a.wav", "b//c.wav", "d/../e.wav"):
        store.write(f"{bucket}/archive/{name}", b"x")
    entries = packs.list_entries(places.place(f"{bucket}/archive"))
    assert {entry.name for entry in entries if not entry.refused} == {"a.wav"}
    with pytest.raises(
        DataError, match=r"2 files cannot be packed, the first is b/c.wav: its name has // or /\./ in it"
    ):
        pack._refuse(entries, skip=False)
    made = pack_archive(places.place(f"{bucket}/archive"), places.place(f"{bucket}/x.packed"), skip=True)
    assert [path.name for path in made.rglob("*") if path.is_file()] == ["a.wav"]


def test_an_unfinished_pack_in_a_store_is_refused(store: Store, bucket: str, many: Path) -> None:
    pack_archive(many, places.place(f"{bucket}/x.packed"), shard_mb=3)
    vanish(store, f"{bucket}/x.packed/_SUCCESS")
    packed._opened.cache_clear()
    with pytest.raises(DataError, match=r"found one that is not finished \(it has no _SUCCESS\)"):
        places.place(f"{bucket}/x.packed/0").is_dir()


def test_a_corpus_in_a_pack_in_a_store(store: Store, bucket: str, proxy: Proxy, small_folder: Path) -> None:
    corpus = shutil.copytree(small_folder, small_folder.parent / "COPY", dirs_exist_ok=True)
    there = pack_archive(corpus, places.place(f"{bucket}/COPY.packed"), shard_mb=9)
    began = len(proxy.seen)
    ours, theirs = (
        corpora.read(TypeAdapter(corpora.CorpusSpec).validate_python({"name": "csv", "root": str(root)}))
        for root in (there, corpus)
    )
    pd.testing.assert_frame_equal(ours.drop(columns="uri"), theirs.drop(columns="uri"))
    assert set(ours["uri"].str.startswith(f"{bucket}/COPY.packed/")) == {True}
    assert len(proxy.seen) - began < len(ours)


def test_no_member_is_taken_for_a_file_of_this_machine(bucket: str, many: Path) -> None:
    there = pack_archive(many, places.place(f"{bucket}/x.packed"), shard_mb=3)
    with pytest.raises(TypeError, match="no file of this machine"):
        open(there / "0/000.bin")  # noqa: PTH123, SIM115
    with pytest.raises(ObjectError, match="expected a file at .*/0, found a folder"):
        (there / "0").read_bytes()
