"""Tags on a disk that is full: said so, nothing of it unreadable, and gone on with once there is room."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import RATE, sound, tiny_bundle, write
from disks import small_disk

from instrunet.archive import books, runs, sources
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.isolated import Limits
from instrunet.bundle import Bundle
from instrunet.data import parts
from instrunet.errors import JobError
from pipelines.tag import Worker

FILES, FILE_S = 12, 60.0  # parts have five minutes
SAID = r"^{}/\S+ cannot be written: No space left on device; make room, then the same command goes on$"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as disk:
        yield disk


def test_a_full_disk_is_told_and_the_same_command_goes_on(disk: Path, tmp_path: Path) -> None:
    tiny_bundle().save(tmp_path / "bundle")
    bundle, out, ballast = Bundle.load(tmp_path / "bundle"), disk / "out", disk / "ballast"
    for k in range(FILES):
        write(tmp_path / f"archive/{k:02d}.wav", sound(FILE_S, 200 + 20 * k, RATE))
    job = runs.Job(sources.archive(tmp_path / "archive"), bundle.spec, UnitSpec(), io.probe)

    def fill() -> None:
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    def whole() -> None:
        assert not list(disk.rglob("*.tmp"))
        for path in out.rglob("*.parquet"):
            pq.read_table(path)
        for path in out.rglob("*.json"):
            json.loads(path.read_text())

    fill()
    with pytest.raises(JobError, match=SAID.format(out)):
        runs.begin(out, job)
    whole()
    ballast.unlink()
    _, work = runs.begin(out, job)
    assert work and work.n_parts > 1
    worker = Worker(str(out), str(tmp_path / "bundle"), Limits())
    with worker.decoder:
        assert not worker({"part": 0})["failed"]
        fill()
        failed = worker({"part": 1})["failed"]
        with pytest.raises(JobError, match=SAID.format(out)):
            raise JobError(failed)
        whole()
        ballast.unlink()
        left = parts.left(out, books.UNITS, work.n_parts)
        assert left == list(range(1, work.n_parts))
        assert not any(worker({"part": number})["failed"] for number in left)
    fill()
    with pytest.raises(JobError, match=SAID.format(out)):
        books.close(out, work, bundle)
    whole()
    ballast.unlink()
    assert books.close(out, work, bundle)["closed"]
