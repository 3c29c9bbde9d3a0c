"""A split held in memory against one mapped from files, in one run: rows a second, and the share of a step waiting.

2.7 GB of made-up features in random order. The page cache is cold (what the files had in it is dropped) or warm. Each
figure is of a span of batches from another epoch, so that no row is asked for twice before the cache is warm.
The last line is JSON.
"""

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import training
from training import FRONT, LABELS, NATIVE, STATISTICS, Ours

from instrunet.features import mapped
from instrunet.features.shards import Features
from instrunet.training.augment import Augment
from instrunet.training.feed import Feed
from instrunet.training.meter import Meter

N, BATCH, SPAN = 80_000, training.BATCH, slice(0, 250)
STEPS = slice(0, 24)


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with TemporaryDirectory(dir=os.environ.get("FEEDING_DISK")) as folder:
        path = _write(Path(folder))
        names = [str(k) for k in range(N)]
        clips: dict[str, list[Any]] = {"clip_id": names, "uri": names, "labels": [[LABELS[k % 11]] for k in range(N)]}
        side = Ours(NATIVE, torch.device("cpu"))
        for epoch, how in enumerate(("cold", "cold", "cold", "warm", "memory")):
            if how == "cold":
                _drop(path)
            elif how == "warm":
                path.read_bytes()
            values = np.load(path) if how == "memory" else mapped.load_values(path)
            feed = Feed(Features({"logmel": values}, clips), LABELS, "train")
            rate, wait = _rate(feed, side, 2 * epoch), _wait(feed, side, 2 * epoch + 1, path if how == "cold" else None)
            print(f"{how}: {rate:.0f} rows/s from the feed alone, {wait:.4f} of a step spent waiting", flush=True)
            found |= {f"{how}_rows_per_s": round(rate), f"{how}_wait_share": round(wait, 4)}
            del feed, values
    print(json.dumps(found))


def _write(folder: Path) -> Path:
    """Noise: no file system can make it smaller."""
    path, rng = folder / "logmel.npy", np.random.default_rng(0)
    values = np.lib.format.open_memmap(path, "w+", np.float16, (N, *FRONT.shapes()["logmel"]))
    for at in range(0, N, 1000):
        values[at : at + 1000] = rng.standard_normal(values[at : at + 1000].shape, np.float32)
    values.flush()
    return path


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rate(feed: Feed, side: Ours, epoch: int) -> float:
    batches = feed.epoch(side.spec, epoch, (0, 1), SPAN)
    next(batches)  # the order of the epoch is made once for all its batches
    began = time.perf_counter()
    for batch in batches:
        batch.to(torch.device("cpu"))
    return (SPAN.stop - 1) * BATCH / (time.perf_counter() - began)


def _wait(feed: Feed, side: Ours, epoch: int, cold: Path | None) -> float:
    """Without the first wait, in which the order of the epoch is made."""
    if cold:
        _drop(cold)
    began = time.perf_counter()
    next(feed.epoch(side.spec, epoch, (0, 1), STEPS))
    first = time.perf_counter() - began
    meter = Meter.on(torch.device("cpu"))
    side.stepper.train_epoch(feed, side.spec, (0, 1), Augment(side.spec, epoch, STATISTICS), meter, STEPS)
    return max(0.0, meter.waited - first) / (meter.took - first)


if __name__ == "__main__":
    main()
