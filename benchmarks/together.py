"""Windows of several files in one batch: what it gains on one core, and how an actor with a device fares by them.

python benchmarks/together.py [--device cuda] [--decoders 8] [--files 64]

First, on one core by the processor's own time, ms of features and network for a window of short files (3 s) and of
longer ones (30 s), each alone and 16 and 32 windows at a time. Then on the device: windows a second at each size of a
batch, and what an actor of a tagging makes of files of 30 s (half FLAC, half MP3), one and four parts at a time, by as
many decoders. The last line is JSON. Without a GPU the device is PyTorch's CPU, which says nothing of a GPU's speed.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tagging import NETWORKS, make_files

from instrunet.archive import runs, sources, speed
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.isolated import Limits
from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models import Network
from pipelines.design import AT_ONCE
from pipelines.tag import Worker

RUNTIMES = (("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "bf16"))
TRIES = 4


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args.add_argument("--decoders", type=int, default=2)
    args.add_argument("--files", type=int, default=64)
    asked = args.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="together-") as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle")
        found: dict[str, object] = {"on a core": on_a_core(bundle)}
        make_files(folder / "archive", asked.files)
        for at_once in (1, AT_ONCE):
            found[f"{at_once} parts at a time"] = parts(folder, at_once, asked.device, asked.decoders)
    print(json.dumps(found))


def make_bundle(folder: Path) -> Bundle:
    front, statistics = FrontEnd(), Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (3.0,)}, n_windows=1)
    labels = tuple(f"label{k}" for k in range(11))
    spec = BundleSpec(kind="single", labels=labels, front=front, model=NETWORKS["native"], statistics=statistics)
    torch.manual_seed(0)
    return Bundle.load(Bundle(spec, Network(spec.model, front, statistics, len(labels))).save(folder))


def on_a_core(plain: Bundle) -> dict[str, float]:
    found = {}
    for where, precision in RUNTIMES:
        bundle = plain.on(where, precision)
        for seconds, n in ((3.0, 64), (30.0, 8)):
            rng, rate = np.random.default_rng(0), plain.spec.front.sample_rate
            sounds = [io.Sound((0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)) for _ in range(n)]
            each = round(seconds / plain.spec.front.window_s)  # windows of a file
            took = {"alone": least(lambda: [bundle.hear(sound) for sound in sounds])}  # noqa: B023
            for together in (16, 32):
                step = max(1, together // each)
                groups = [sounds[at : at + step] for at in range(0, n, step)]
                took[f"{together}"] = least(lambda: [bundle.hear_together(some) for some in groups])  # noqa: B023
            found |= {f"{where}, {seconds:g} s, {how}": round(1e3 * s / n / each, 2) for how, s in took.items()}
    return found


def least(do: Callable[[], object]) -> float:
    took = []
    for _ in range(TRIES):
        began = time.process_time()
        do()
        took.append(time.process_time() - began)
    return min(took)


def parts(folder: Path, at_once: int, device: str, n_decoders: int) -> dict[str, object]:
    """Seconds of sound a second of one actor, the shares of its stages by the clock, and its device's rates."""
    out = folder / f"out-{at_once}"
    job = runs.Job(sources.archive(folder / "archive"), Bundle.load(folder / "bundle").spec, UnitSpec(), io.probe)
    _, work = runs.begin(out, job)
    assert work
    worker = Worker(str(out), str(folder / "bundle"), Limits(), where=f"{device}/fp32", n_decoders=n_decoders)
    with worker.decoder, ThreadPoolExecutor(at_once) as threads:
        worker.make(0)  # processes and device begin
        began = time.perf_counter()
        made = list(threads.map(worker.make, range(1, work.n_parts)))
        took = time.perf_counter() - began
        assert worker._device
        rates = worker._device.rates() if at_once == 1 else {}
    stages = {stage: round(sum(one[stage] for one in made) / took, 2) for stage in speed.STAGES}
    sound_s = sum(one["audio_s"] for one in made)
    found = {"sound_s_per_s": round(sound_s / took), "of_the_time": stages, "batch": made[0]["windows"]}
    return found | ({"windows_per_s": {n: round(rate) for n, rate in rates.items()}} if rates else {})


if __name__ == "__main__":
    main()
