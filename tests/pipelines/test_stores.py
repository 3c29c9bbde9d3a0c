"""Jobs whose sound and results lie in a store, one that misbehaves included."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import sound, tiny_bundle, write, write_archive
from conftest import ROOT, environment, make_place, run
from stores import SECRET, Proxy, Store, proxied, settings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    with proxied(store) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("stores") / "instrunet")
    tiny_bundle().save(place / "bundle")
    return place


def around(port: int) -> dict[str, str]:
    """The environment of a job, which runs the code that is tested here and not another that is installed."""
    return settings(port, timeout_s=3, tries=3) | {"PYTHONPATH": str(ROOT)}


def tag(home: Path, archive: str, out: str, proxy: Proxy, **more: str) -> "subprocess.CompletedProcess[str]":
    command = f"python jobs/tag.py bundle {archive} --out {out} --unit-s 3"
    return run(command, home, **around(proxy.port) | more)


def recordings(folder: Path) -> dict[str, str]:
    rows = pq.read_table(folder / "recordings/part-00000.parquet").to_pylist()
    return {row["uri"].split("/archive/")[-1]: row["status"] for row in rows}


def test_an_archive_in_a_store_gets_tags_in_a_store(store: Store, proxy: Proxy, home: Path, tmp_path: Path) -> None:
    """One request in four fails, half of the bodies that are cut; the result is that of the same files on disk."""
    bucket, local = store.bucket("both"), tmp_path / "archive"
    expected = write_archive(local)
    for name in ("gone.wav", "box.wav"):  # no such things in a store
        expected.pop(name)
    store.upload(local, f"{bucket}/archive")
    proxy.fault = lambda method, path, n: ["503 SlowDown", "", "", "", "500 InternalError", "", "", "cut", "", ""][
        n % 10
    ]
    done = tag(home, f"{bucket}/archive", f"{bucket}/tags", proxy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{bucket}/tags"
    made = store.download(f"{bucket}/tags", tmp_path / "tags")
    assert recordings(made) == expected
    assert (made / "_SUCCESS").is_file() and json.loads((made / "ledger.json").read_text())["closed"]
    assert sum(what != "" for *_, what in proxy.seen) > 10
    for path in made.rglob("*.json"):
        assert SECRET not in path.read_text()
    assert SECRET not in done.stdout + done.stderr
    again = tag(home, f"{bucket}/archive", f"{bucket}/tags", proxy)
    assert again.returncode == 0 and "is done" in again.stderr
    other = run(
        f"python jobs/tag.py bundle {bucket}/archive --out {bucket}/tags --unit-s 4", home, **around(store.port)
    )
    assert other.returncode == 2 and "belongs to another job: its units is" in other.stderr


def test_an_object_that_never_comes_has_its_row(store: Store, proxy: Proxy, home: Path, tmp_path: Path) -> None:
    bucket = store.bucket("holes")
    for k in range(6):
        store.write(f"{bucket}/archive/{k}.wav", write(tmp_path / "x.wav", sound(1.0, 300 + 40 * k)).read_bytes())
    proxy.fault = lambda method, path, n: {"3.wav": "stall", "4.wav": "503 SlowDown"}.get(path.split("/")[-1], "")
    began = time.monotonic()
    done = tag(home, f"{bucket}/archive", str(tmp_path / "tags"), proxy, INSTRUNET_STORE_TIMEOUT_S="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 100  # 25 s where nothing else runs
    rows = pq.read_table(tmp_path / "tags/recordings/part-00000.parquet").to_pylist()
    assert {row["uri"][-5:]: row["status"] for row in rows} == {
        f"{k}.wav": "unreadable" if k in (3, 4) else "tagged" for k in range(6)
    }
    assert rows[3]["error"].startswith(f"{bucket}/archive/3.wav cannot be had, after 4 tries: ")
    assert json.loads((tmp_path / "tags/ledger.json").read_text())["closed"]


def test_a_store_that_goes_away_fails_the_job_which_then_goes_on(
    store: Store, proxy: Proxy, home: Path, tmp_path: Path
) -> None:
    bucket = store.bucket("away")
    for k in range(40):  # two parts, as in the next
        store.write(f"{bucket}/archive/{k}.wav", write(tmp_path / "x.wav", sound(10.0, 300 + 9 * k)).read_bytes())
    gone: list[int] = []

    def away_after_a_part(method: str, path: str, n: int) -> str:
        if method == "PUT" and "/tags/units/" in path:
            gone.append(n)
        return "drop" if len(gone) > 1 else ""

    proxy.fault = away_after_a_part
    failed = tag(home, f"{bucket}/archive", f"{bucket}/tags", proxy, INSTRUNET_STORE_TRIES="2")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert f"error: {bucket} does not answer: " in failed.stderr
    assert "run the same command again" in failed.stderr
    proxy.fault = lambda method, path, n: ""
    n_seen = len(proxy.seen)
    done = tag(home, f"{bucket}/archive", f"{bucket}/tags", proxy)
    assert done.returncode == 0, done.stdout + done.stderr
    made = store.download(f"{bucket}/tags", tmp_path / "tags")
    assert len(recordings(made)) == 40 and set(recordings(made).values()) == {"tagged"}
    heard = {path for method, path, _ in proxy.seen[n_seen:] if method == "GET" and path.endswith(".wav")}
    assert 0 < len(heard) < 40  # a part was kept


@pytest.mark.soak
def test_a_killed_job_goes_on_in_a_store(store: Store, proxy: Proxy, home: Path, tmp_path: Path) -> None:
    bucket = store.bucket("killed")
    for k in range(40):
        write(tmp_path / f"archive/{k}.wav", sound(10.0, 300 + 9 * k))
    command = f"exec python jobs/tag.py bundle {tmp_path}/archive --out {bucket}/tags"
    job = subprocess.Popen(
        ["bash", "-c", command], cwd=home, env=environment() | around(proxy.port), stderr=subprocess.DEVNULL
    )
    while not any(method == "PUT" and "/tags/units/" in path for method, path, _ in proxy.seen):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    done = run(command, home, **around(proxy.port))
    assert done.returncode == 0, done.stdout + done.stderr
    made = store.download(f"{bucket}/tags", tmp_path / "tags")
    assert len(recordings(made)) == 40 and set(recordings(made).values()) == {"tagged"}


def test_credentials_in_an_argument_are_refused(home: Path) -> None:
    refused = run("python jobs/tag.py bundle s3://key:hushhush@bucket/archive --out tags", home, PYTHONPATH=str(ROOT))
    assert refused.returncode == 2 and "set AWS_ACCESS_KEY_ID" in refused.stderr
    assert "hushhush" not in refused.stderr + refused.stdout


FRONT = "front.window_s=1 front.hop_s=1"


def test_features_of_a_corpus_in_a_store_in_a_store(
    store: Store, proxy: Proxy, home: Path, small_folder: Path, tmp_path: Path
) -> None:
    """The same folder name and the same rows as from disk to disk, though requests fail."""
    bucket = store.bucket("features")
    store.upload(small_folder, f"{bucket}/FOLDER")
    proxy.fault = lambda method, path, n: "503 SlowDown" if n % 5 == 0 else ""
    command = f"python jobs/featurize.py configs/csv.yaml {FRONT}"
    there = run(f"{command} data.root={bucket}/FOLDER out={bucket}/runs", home, **around(proxy.port))
    here = run(f"{command} data.root={small_folder} out={tmp_path}/runs", home, PYTHONPATH=str(ROOT))
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    folder, url = Path(here.stdout.splitlines()[-1]), there.stdout.splitlines()[-1]
    assert url == f"{bucket}/runs/features/{folder.name}"
    made = store.download(url, tmp_path / "made")
    assert {p.relative_to(made) for p in made.rglob("*.*")} == {p.relative_to(folder) for p in folder.rglob("*.*")}
    assert (made / "statistics.json").read_text() == (folder / "statistics.json").read_text()
    ours, theirs = (pq.read_table(p / "shards/part-00000.parquet") for p in (made, folder))
    assert ours.drop_columns(["uri"]).equals(theirs.drop_columns(["uri"]))
    assert set(ours["uri"].to_pylist()) == {f"{bucket}/FOLDER/{Path(uri).name}" for uri in theirs["uri"].to_pylist()}


def test_training_into_a_store_is_refused(home: Path) -> None:
    refused = run("python jobs/train.py configs/smoke.yaml out=s3://bucket/runs", home, PYTHONPATH=str(ROOT))
    assert refused.returncode == 2
    assert "training writes to a folder of a disk that all workers share, got s3://bucket/runs" in refused.stderr
