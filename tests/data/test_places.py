"""Places: a folder or a store, and a store that fails, stalls, throttles and cuts short."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter, ValidationError
from stores import SECRET, Fault, Proxy, Store, proxied, settings

from instrunet.audio.decoder import DecodeError
from instrunet.config import Spec
from instrunet.data import corpora, manifest, parts, places, store
from instrunet.data.corpora import CsvSpec
from instrunet.data.places import Place, asked, place, sound
from instrunet.data.remote import Remote
from instrunet.data.store import StoreError
from instrunet.errors import ConfigError, DataError

TIMEOUT_S = 1.0  # where the test waits for it


class Home(Spec):
    root: Place


@pytest.fixture
def proxy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy, and an environment that leads to it."""
    with proxied(store) as running:
        yield enter(running.port, monkeypatch) or running


@pytest.fixture
def bucket(store: Store, proxy: Proxy, request: pytest.FixtureRequest) -> str:
    return store.bucket(f"b{abs(hash(request.node.name)):x}")


@pytest.fixture
def in_a_hurry(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUNET_STORE_TIMEOUT_S", str(TIMEOUT_S))


def enter(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(port, timeout_s=20, tries=2).items():
        monkeypatch.setenv(name, value)
    store._file_system.cache_clear()


def first(n: int, fault: str) -> Fault:
    """What befalls the first requests for an object's content."""
    left = [fault] * n
    return lambda method, path, _: left.pop() if left and method == "GET" and "list-type" not in path else ""


def test_a_url_stays_whole_in_a_spec() -> None:
    home = Home(root="s3://bucket/a b/ü")
    assert isinstance(home.root, Remote)
    assert home.model_dump(mode="json") == {"root": "s3://bucket/a b/ü"}
    assert Home.model_validate(home.model_dump(mode="json")) == home
    assert CsvSpec(root="s3://bucket/x").root == place("s3://bucket/x")


def test_a_local_path_stays_a_path(tmp_path: Path) -> None:
    assert type(Home(root=str(tmp_path)).root) is type(tmp_path)
    assert place(f"file://{tmp_path}") == tmp_path
    with sound(tmp_path / "nothing.wav") as path:
        assert path == tmp_path / "nothing.wav"


def test_names_are_taken_apart_as_paths_are() -> None:
    path = place("S3://bucket/a/b.wav")
    assert str(path) == "s3://bucket/a/b.wav"
    assert (path.name, path.suffix, str(path.parent)) == ("b.wav", ".wav", "s3://bucket/a")
    assert path.relative_to(place("s3://bucket")).as_posix() == "a/b.wav"
    assert str(path.with_suffix(".txt")) == "s3://bucket/a/b.txt"
    assert place("s3://bucket/a") / "b.wav" == path


@pytest.mark.parametrize("url", ["s3://key:hushhush@bucket/x", "https://host/x?X-Amz-Signature=hushhush"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID") as told:
        asked(url)
    with pytest.raises(ConfigError, match=r"root: .*refused") as told_too:
        Home.parse({"root": url}, "x.yaml")
    assert "hushhush" not in str(told.value) + str(told_too.value)


def test_a_store_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="nosuch:// is no store that can be reached here"):
        place("nosuch://bucket/x").exists()


def test_no_call_of_the_system_takes_an_object_for_a_file() -> None:
    with pytest.raises(TypeError, match="no file of this machine"):
        open(place("s3://bucket/a.wav"))  # noqa: PTH123, SIM115


def test_a_listing_tells_size_and_version(store: Store, bucket: str) -> None:
    for key in ("a/x.wav", "a/deep/y.wav", "a/box/", "ab/z.wav"):
        store.write(f"{bucket}/{key}", b"12345")
    folder = place(f"{bucket}/a")
    found = sorted(folder.rglob("*"))
    assert [path.relative_to(folder).as_posix() for path in found] == ["deep/y.wav", "x.wav"]
    assert places.identity(found[0]) == places.identity(place(f"{bucket}/a/deep/y.wav"))
    assert places.identity(found[0])[0] == 5
    assert [path.name for path in folder.glob("*.wav")] == ["x.wav"]
    assert {path.name for path in folder.iterdir()} == {"deep", "x.wav"}
    assert (folder.is_dir(), folder.is_file(), (folder / "x.wav").is_file(), (folder / "q").exists()) == (
        *(True, False, True, False),
    )


def test_a_copy_is_whole_and_goes(store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instrunet.data.remote.CHUNK", 1000)
    content = bytes(k % 251 for k in range(2501))
    store.write(f"{bucket}/a b+ü%20.wav", content)
    with sound(f"{bucket}/a b+ü%20.wav") as path:
        assert path.read_bytes() == content
    assert not path.exists()


def test_reasons_name_the_object(store: Store, bucket: str) -> None:
    with pytest.raises(DecodeError, match=rf"^{bucket}/a.wav is broken$"), sound(f"{bucket}/a.wav", 0) as path:
        raise DecodeError("corrupt", f"{path} is broken")


@pytest.mark.parametrize("fault", ["503 SlowDown", "500 InternalError", "drop", "cut", "short"])
def test_what_passes_is_waited_for(fault: str, store: Store, bucket: str, proxy: Proxy) -> None:
    store.write(f"{bucket}/a.wav", b"x" * 1000)
    proxy.fault = first(1, fault)
    with sound(f"{bucket}/a.wav", 1000) as path:
        assert path.read_bytes() == b"x" * 1000
    assert [what for *_, what in proxy.seen] == [fault, ""]


@pytest.mark.parametrize("fault", ["503 SlowDown", "stall", "slow", "short"])
@pytest.mark.usefixtures("in_a_hurry")
def test_one_object_that_never_comes_is_unreadable(fault: str, store: Store, bucket: str, proxy: Proxy) -> None:
    store.write(f"{bucket}/a.wav", b"x" * 100_000)
    proxy.fault = first(99, fault)
    began = time.monotonic()
    with (
        pytest.raises(DecodeError, match=f"^{bucket}/a.wav cannot be had, after 3 tries: ") as told,
        sound(f"{bucket}/a.wav", 100_000),
    ):
        pass
    assert told.value.status == "unreadable"
    assert time.monotonic() - began < 3 * (TIMEOUT_S + 1) + 10  # tries, each with a second for 100 kB; a loaded machine
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("fault", ["503 SlowDown", "stall", "drop"])
@pytest.mark.usefixtures("in_a_hurry")
def test_a_store_that_is_away_is_no_bad_file(fault: str, bucket: str, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, n: fault
    for ask in (lambda: sound(f"{bucket}/a.wav", 10).__enter__(), lambda: list(place(bucket).rglob("*"))):
        with pytest.raises(StoreError, match=f"^{bucket} does not answer: .*; run the same command again"):
            ask()


def test_a_store_that_nothing_listens_for_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(9, monkeypatch)  # the port of "discard"
    with pytest.raises(StoreError, match="s3://b does not answer: "):
        place("s3://b/x").exists()


def test_answers_are_final(store: Store, bucket: str, proxy: Proxy) -> None:
    with (
        pytest.raises(DecodeError, match=f"{bucket}/gone.wav cannot be had: nothing is there"),
        sound(f"{bucket}/gone.wav", 10),
    ):
        pass
    assert len(proxy.seen) == 1


def test_missing_credentials_are_asked_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    with pytest.raises(ConfigError, match=f"{bucket} cannot be used: .*; set AWS_ACCESS_KEY_ID"):
        place(f"{bucket}/x").exists()


def test_patience_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUNET_STORE_TRIES", "none")
    with pytest.raises(ConfigError, match=r"INSTRUNET_STORE_\*: tries: "):
        place("s3://b/x").exists()


def test_the_first_writer_wins(store: Store, bucket: str) -> None:
    def write(content: bytes) -> Callable[[Path], object]:
        return lambda aside: aside.write_bytes(content)

    path = place(f"{bucket}/units/part-00000.parquet")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda k: places.put(path, write(bytes([k])), create=True), range(8)))
    assert won.count(True) == 1
    assert store.read(str(path)) == bytes([won.index(True)])
    assert not parts.publish(path, write(b"late"))
    parts.write_aside(path, write(b"over"))
    assert store.read(str(path)) == b"over"


def test_a_plan_is_claimed_once(bucket: str) -> None:
    folder = place(f"{bucket}/tags")
    parts.claim(folder, {"job": "tag", "k": 1})
    parts.claim(folder, {"job": "tag", "k": 1})
    with pytest.raises(DataError, match=r"belongs to another job: its k is 1, this one's is 2"):
        parts.claim(folder, {"job": "tag", "k": 2})
    assert parts.left(folder, "units", 2) == [0, 1]
    parts.publish(parts.part_path(folder, "units", 1), lambda aside: aside.write_bytes(b"x"))
    assert parts.left(folder, "units", 2) == [0]
    parts.finish(folder)
    assert parts.is_done(folder)


def test_a_folder_with_other_objects_is_refused(store: Store, bucket: str) -> None:
    store.write(f"{bucket}/mine/letter.txt", b"x")
    with pytest.raises(DataError, match="found other files"):
        parts.claim(place(f"{bucket}/mine"), {"job": "tag"})


def test_a_bucket_that_is_not_there_is_said(proxy: Proxy) -> None:
    with pytest.raises(DataError, match="s3://no-such-bucket/tags/plan.json cannot be written: nothing is there"):
        parts.claim(place("s3://no-such-bucket/tags"), {"job": "tag"})


def test_other_stores_of_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place("memory://here/tags")
    parts.claim(folder, {"job": "tag"})
    parts.claim(folder, {"job": "tag"})
    assert not parts.publish(folder / parts.PLAN, lambda aside: aside.write_text("other"))
    assert parts.read_json(folder / parts.PLAN) == {"job": "tag"}
    assert [path.name for path in folder.iterdir()] == [parts.PLAN]


@pytest.mark.parametrize("name", ["folder", "csv", "irmas"])
def test_a_corpus_in_a_store_is_the_corpus_on_disk(
    name: str, store: Store, bucket: str, small_corpus: Path, small_folder: Path
) -> None:
    root = small_folder if name == "csv" else small_corpus / "IRMAS-TrainingData"
    store.upload(root, f"{bucket}/{root.name}")
    there, here = (
        corpora.read(TypeAdapter(corpora.CorpusSpec).validate_python({"name": name, "root": str(place)}))
        for place in (f"{bucket}/{root.name}", root)
    )
    assert manifest.digest(there) == manifest.digest(here)
    pd.testing.assert_frame_equal(there.drop(columns="uri"), here.drop(columns="uri"))
    assert set(there["uri"].str.startswith(f"{bucket}/{root.name}/")) == {True}


def test_the_embedded_corpus_is_made_on_a_disk() -> None:
    with pytest.raises(ValidationError, match="the embedded corpus is made in a folder of a disk"):
        corpora.SynthCorpusSpec(root="s3://bucket/x")
