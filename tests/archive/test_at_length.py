"""A day in one file, and units that kill their process: what they cost in memory and in time, by `make soak`."""

import json
import logging
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archives import sound, tiny_bundle, write
from conftest import ROOT, environment, make_place
from nodes import below

from instrunet.archive import runs, sources
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.isolated import Limits
from instrunet.bundle import Bundle
from pipelines.design import ON_A_CORE
from pipelines.tag import Worker

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]
DAY_S, RATE = 86_400, 22_050
MOST = 700 << 20  # bytes of a worker with its decoder
FILES, POISON, ROUNDS = 200, 2, 7
LOG = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures


def memory(pid: int) -> int:
    """Bytes of its own now; the libraries, of which CUDA's torch maps 300 MB, are pages of files that all share."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
    return 0


@pytest.mark.ray
def test_a_day_in_one_file(tmp_path: Path) -> None:
    place = make_place(tmp_path / "instrunet")
    tiny_bundle("multi").save(place / "bundle")
    (place / "archive").mkdir()
    minute = (0.2 * sound(60.0, 300.0, RATE) + 0.01 * np.random.default_rng(0).standard_normal(60 * RATE)).astype("f4")
    with soundfile.SoundFile(place / "archive/day.flac", "w", RATE, 1, "PCM_16") as file:
        for k in range(DAY_S // 60):
            file.write(np.roll(minute, 997 * k))
    with (place / "log").open("w") as log:
        command = ["bash", "-c", "exec python jobs/tag.py bundle archive --out tags"]
        job = subprocess.Popen(command, cwd=place, env=environment(), stdout=log, stderr=log)
    most: dict[int, int] = {}
    while job.poll() is None:
        for pid in below(job.pid):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes()
                if name.startswith(b"ray::") or b"instrunet.audio.child" in name:
                    most[pid] = max(most.get(pid, 0), memory(pid))
        time.sleep(0.5)
    assert job.returncode == 0, (place / "log").read_text()
    ledger = json.loads((place / "tags/ledger.json").read_text())
    assert ledger["closed"] and ledger["audio_s"]["out"] == DAY_S and ledger["units"]["in"] == DAY_S // 300
    assert len(most) >= 4 and max(most.values()) < MOST, sorted(most.values())
    LOG.info("%d processes, the largest %d MiB; %s", len(most), max(most.values()) >> 20, (place / "log").read_text())


@pytest.mark.parametrize(("mark", "n", "most_s"), [(b"abort at read", POISON, None), (b"stall at read", 1, 1.5)])
def test_poison_costs_the_others_next_to_nothing(
    mark: bytes, n: int, most_s: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLACs of 30 s (44.1 kHz, stereo), and one WAV in a hundred that aborts its decoder, beside those without it.

    A decoder that sleeps, as on a disk that hangs, is waited for twice, beside the others' work.
    """
    monkeypatch.syspath_prepend(str(ROOT / "tests/crashing"))
    tiny_bundle("multi").save(tmp_path / "bundle")
    bad = set(random.Random(0).sample(range(FILES), n) if n > 1 else [0])
    (tmp_path / "calm").mkdir()
    for k in range(FILES):
        wave = sound(1.0 if k in bad else 30.0, 200 + k, 44_100)[:, None] * (1.0, 0.9)
        if k not in bad:
            soundfile.write(tmp_path / f"calm/{k:04d}.flac", wave, 44_100)
            continue
        path = write(tmp_path / f"bad/{k:04d}.wav", wave, 44_100)
        content = bytearray(path.read_bytes())
        content[44:64] = mark.ljust(20, b"\0")
        path.write_bytes(bytes(content))
    shutil.copytree(tmp_path / "calm", tmp_path / "poison")
    shutil.copytree(tmp_path / "bad", tmp_path / "poison", dirs_exist_ok=True)
    took: dict[str, list[float]] = {"calm": [], "poison": []}
    for turn in range(ROUNDS):
        for kind, found in took.items():
            found.append(_tagged(tmp_path, kind, f"{kind}-{turn}", len(bad) if kind == "poison" else 0))
    share = min(took["calm"]) / min(took["poison"])
    lost_s = min(took["poison"]) - min(took["calm"])
    LOG.info("throughput of the others: %.3f; lost in %.1f s: %.2f s", share, min(took["calm"]), lost_s)
    assert share >= 0.95 if most_s is None else lost_s < most_s, took


def _tagged(home: Path, kind: str, name: str, n_bad: int) -> float:
    """Seconds of one actor's work, as Ray has it: two threads that take turns."""
    spec = Bundle.load(home / "bundle").spec
    work = runs.begin(home / name, runs.Job(sources.archive(home / kind), spec, UnitSpec(), io.probe))[1]
    assert work
    worker = Worker(str(home / name), str(home / "bundle"), Limits(wait_s=1.0), n_decoders=ON_A_CORE)
    with worker.decoder, ThreadPoolExecutor(ON_A_CORE) as pool:
        worker.decoder.probe(next((home / kind).iterdir()))  # its process starts
        began = time.perf_counter()
        counts = list(pool.map(worker.make, range(work.n_parts)))
        took = time.perf_counter() - began
    assert sum(one.get("bad", 0) for one in counts) == n_bad, counts[0]
    return took
