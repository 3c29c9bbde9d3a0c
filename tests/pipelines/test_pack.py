"""The packing job: killed and gone on with, from store to store, and what is made of a pack afterwards."""

import argparse
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from archives import pack_archive, sound, tag_archive, tiny_bundle, write
from conftest import ROOT, environment, make_place, run
from stores import Store, proxied, settings

from instrunet.archive.units import UnitSpec
from instrunet.errors import DataError
from pipelines import pack

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
HERE = {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("packing") / "instrunet")
    tiny_bundle().save(place / "bundle")
    return place


def shards_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "shards").glob("*.tar"))]


def test_a_killed_job_goes_on_and_a_second_does_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "archive").mkdir()
    for k in range(40):
        (tmp_path / f"archive/{k}.bin").write_bytes(bytes([k % 251]) * 3000)
    out = tmp_path / "archive.packed"
    command = f"exec python jobs/pack.py {tmp_path}/archive --out {out} --shard-mb 0.004"
    job = subprocess.Popen(["bash", "-c", command], cwd=home, env=environment() | HERE, stderr=subprocess.DEVNULL)
    while len(list(out.glob("shards/part-*.tar"))) < 3:
        assert job.poll() is None
        time.sleep(0.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/part-*.tar")}
    assert not (out / "index.parquet").exists() and not (out / "_SUCCESS").exists()
    done = run(command, home, **HERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["packed 40 files, 0.00 GB, into 40 shards", str(out)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    whole = pack_archive(tmp_path / "archive", tmp_path / "whole.packed", shard_mb=0.004)
    assert shards_of(out) == shards_of(Path(str(whole)))
    assert not ray.is_initialized()
    again = argparse.Namespace(archive=f"{tmp_path}/archive", out=str(out), shard_mb=0.004, skip_unreadable=False)
    assert pack.run(again) == out
    assert "is done: 40 files were packed before" in capsys.readouterr().err
    (tmp_path / "archive/40.bin").write_bytes(b"new")
    with pytest.raises(DataError, match="belongs to another job: its listing is"):
        pack.run(again)
    assert not ray.is_initialized()


@pytest.mark.soak
def test_an_archive_in_a_store_is_packed_there_and_tagged(store: Store, home: Path, tmp_path: Path) -> None:
    bucket, n = store.bucket("packing"), 60
    for k in range(n):
        write(tmp_path / f"archive/{k % 3}/{k:02d}.wav", sound(0.6, 300 + 9 * k))
    store.upload(tmp_path / "archive", f"{bucket}/archive")
    with proxied(store) as proxy:
        there = HERE | settings(proxy.port, timeout_s=20)
        packed = run(f"python jobs/pack.py {bucket}/archive --out {bucket}/archive.packed", home, **there)
        assert packed.returncode == 0, packed.stderr
        assert packed.stdout.splitlines()[-1] == f"{bucket}/archive.packed"
        began = len(proxy.seen)
        tagged = run(f"python jobs/tag.py bundle {bucket}/archive.packed --out {tmp_path}/tags", home, **there)
        assert tagged.returncode == 0, tagged.stderr
        assert len(proxy.seen) - began < n
    tag_archive(tmp_path / "archive", tmp_path / "plain", tiny_bundle(), UnitSpec())
    ours, theirs = (
        {row["uri"].split("/archive")[-1].removeprefix(".packed"): (row["status"], row["scores"]) for row in rows}
        for rows in (pq.read_table(tmp_path / name / "units").to_pylist() for name in ("tags", "plain"))
    )
    assert len(ours) == n and ours == theirs
