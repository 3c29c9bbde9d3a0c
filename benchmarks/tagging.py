"""Tagging against what one would write by hand, in one run on two cores, on made-up stereo FLACs and MP3s of 30 s.

`--files` (200, 40 at least) of them, half of each kind. The last line is JSON, all but `fixed_core_s` ratios of rates:

vs_naive_native  over librosa.load, librosa's mel window by window and the same network in PyTorch, a file at a time
vs_naive_224     the same with the network on pictures of 224 x 224
of_decode_only   over decoding and resampling alone, in as many processes
ray_vs_plain     the steady rate of the job over that of the same actor in plain processes, the middle of three pairs
fixed_core_s     processor seconds of a job with next to nothing to do, of all its processes, for each actor
vs_mn10          over EfficientAT's mn10 as rebuilt here (`MN10`)

`--runtime` is where our network runs, as in jobs/tag.py: `auto`, the default, takes bf16 if it changes no decision on
eight of the files. What it is beside runs on PyTorch in fp32. A loop by hand is one process with both cores for
PyTorch and a tenth of the files; ours are two of one thread each.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import librosa
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
import torch
from torchaudio.transforms import MelSpectrogram

from instrunet import parity, runtime
from instrunet.archive import books, runs, sources, tagger
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.isolated import Limits
from instrunet.bundle import CALL, Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from pipelines.tag import Worker

MN10 = """mn10 was rebuilt as: 32 kHz, log-mel of 128 bands (window 800, hop 320) by torchaudio, windows of 10 s, timm's
mobilenetv3_large_100 with 527 random outputs in fp32, one by one"""
SECONDS, RATE, CORES = 30.0, 44_100, 2
NETWORKS = {"native": Iteration11Spec(picture=PictureSpec(size=None, colour=False)), "224": Iteration11Spec()}
JOB = Path(__file__).resolve().parent.parent / "jobs/tag.py"


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--files", type=int, default=200)
    args.add_argument("--runtime", default=runtime.AUTO)
    asked = args.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    with TemporaryDirectory(prefix="tagging-") as name:
        folder = Path(name)
        files = make_files(folder / "archive", max(40, asked.files))
        some = files[:: max(1, asked.files // max(4, asked.files // 10))]
        made = {name: make_bundle(folder / name, name, some[:8]) for name in NETWORKS}
        where = {name: chosen(bundle, asked.runtime) for name, bundle in made.items()}
        rates = {
            "decode": rate_of("decode", folder, files),
            "ours_native": rate_of("native", folder, files, where["native"]),
            "naive_native": by_hand(some, naive(made["native"])),
            "mn10": by_hand(some, mn10()),
            "ours_224": rate_of("224", folder, files, where["224"]),
            "naive_224": by_hand(some, naive(made["224"])),
        }
        pairs = [pair(folder, files, where["native"]) for _ in range(3)]
        fixed = spent(job(folder, files[:2], "fixed", where["native"]))
    print(", ".join(f"our {name} network runs on {at}" for name, at in where.items()))
    print(MN10, *(f"{name}: {rate:.0f} s of sound a second" for name, rate in rates.items()), sep="\n")
    print("steady, plain and Ray:", ", ".join(f"{plain:.0f} and {ray:.0f}" for plain, ray in pairs))
    found = {f"vs_naive_{name}": round(rates[f"ours_{name}"] / rates[f"naive_{name}"], 2) for name in NETWORKS} | {
        "of_decode_only": round(rates["ours_native"] / rates["decode"], 3),
        "ray_vs_plain": round(statistics.median(ray / plain for plain, ray in pairs), 3),
        "fixed_core_s": round(fixed / CORES, 1),
        "vs_mn10": round(rates["ours_native"] / rates["mn10"], 2),
    }
    print(json.dumps(found))


def make_files(folder: Path, n: int) -> list[Path]:
    """Notes in noise, each file another, so that none is a duplicate."""
    folder.mkdir()
    t = np.arange(round(SECONDS * RATE)) / RATE
    made = []
    for k in range(n):
        rng = np.random.default_rng(k)
        hz = rng.choice(440 * 2 ** (np.arange(-24, 24) / 12), 60).repeat(round(SECONDS * RATE) // 60 + 1)[: len(t)]
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(hz) / RATE)[:, None] + 0.02 * rng.standard_normal((len(t), 2))
        made.append(folder / f"{k:04d}.{('flac', 'mp3')[k % 2]}")
        soundfile.write(made[-1], wave, RATE)
    return made


def make_bundle(folder: Path, name: str, files: list[Path]) -> Bundle:
    """Of random weights; it knows which runtimes decide alike on these files."""
    front, labels = FrontEnd(), tuple(f"label{k}" for k in range(11))
    statistics = Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (3.0,)}, n_windows=1)
    spec = BundleSpec(kind="single", labels=labels, front=front, model=NETWORKS[name], statistics=statistics)
    torch.manual_seed(0)
    bundle = Bundle(spec, Network(spec.model, front, statistics, len(labels)))
    found = tuple(parity.measured(bundle, [io.read(path, front.sample_rate) for path in files]))
    return Bundle.load(Bundle(spec.model_copy(update={"runtimes": found}), bundle.network).save(folder))


def chosen(bundle: Bundle, asked: str) -> str:
    """As in an actor, which has one thread."""
    torch.set_num_threads(1)
    return "/".join(runtime.fastest(bundle, CALL) if asked == runtime.AUTO else runtime.named(asked))


def rate_of(side: str, folder: Path, files: list[Path], where: str = runtime.PLAIN) -> float:
    """Seconds of sound a second, of as many processes as cores; as `by_hand`, from the second file on."""
    if side != "decode":
        shutil.rmtree(folder / f"out-{side}", ignore_errors=True)
        bundle = Bundle.load(folder / side)
        job = runs.Job(sources.archive(folder / "archive"), bundle.spec, UnitSpec(), io.probe)
        assert runs.begin(folder / f"out-{side}", job)[1]
    spawn = multiprocessing.get_context("spawn")
    ready, times = spawn.Barrier(CORES), spawn.Queue()
    for k in range(CORES):
        spawn.Process(target=_process, args=(side, folder, k, files, where, ready, times)).start()
    found = [times.get() for _ in range(CORES)]
    return len(files) * SECONDS / (max(end for _, end in found) - min(begin for begin, _ in found))


def _process(side: str, folder: Path, k: int, files: list[Path], where: str, *shared: Any) -> None:
    ready, times = shared
    torch.set_num_threads(1)
    steps: list[Callable[[], Any]]
    if side == "decode":
        steps = [partial(io.read, path, FrontEnd().sample_rate) for path in files[k::CORES]]
        steps[0]()
    else:
        worker = Worker(str(folder / f"out-{side}"), str(folder / side), Limits(), where=where)
        steps = [partial(worker.make, number) for number in range(k, worker.work.n_parts, CORES)]
        tagger.tag_all(worker.work.part(0)[:1], worker.bundle, worker.decoder.read)
    ready.wait()
    began = time.time()
    for step in steps:
        step()
    times.put((began, time.time()))


def by_hand(files: list[Path], do: Callable[[Path], None]) -> float:
    torch.set_num_threads(CORES)
    do(files[0])
    began = time.perf_counter()
    for path in files:
        do(path)
    return len(files) * SECONDS / (time.perf_counter() - began)


def naive(bundle: Bundle) -> Callable[[Path], None]:
    front, logmel, rate = bundle.spec.front, bundle.spec.front.features[0], bundle.spec.front.sample_rate
    how: dict[str, Any] = {"n_fft": logmel.n_fft, "hop_length": logmel.hop_length, "n_mels": logmel.n_mels}
    how |= {"fmin": logmel.fmin_hz, "fmax": logmel.fmax_hz}

    @torch.inference_mode()
    def do(path: Path) -> None:
        wave, _ = librosa.load(path, sr=rate)
        step = round(front.window_s * rate)
        pictures = []
        for at in range(0, len(wave) - step + 1, round(front.hop_s * rate)):
            mel = librosa.feature.melspectrogram(y=wave[at : at + step], sr=rate, **how, pad_mode="constant")
            pictures.append(np.log(mel + logmel.floor))
        bundle.network({"logmel": torch.from_numpy(np.stack(pictures)).float()}).softmax(1)

    return do


def mn10() -> Callable[[Path], None]:
    import timm

    network = timm.create_model("mobilenetv3_large_100", pretrained=False, in_chans=1, num_classes=527).eval()
    mel = MelSpectrogram(32_000, n_fft=1024, win_length=800, hop_length=320, n_mels=128)

    @torch.inference_mode()
    def do(path: Path) -> None:
        wave, _ = librosa.load(path, sr=32_000)
        for at in range(0, len(wave) - 320_000 + 1, 320_000):
            picture = torch.log(mel(torch.from_numpy(wave[at : at + 320_000])) + 1e-5)
            network(picture[None, None]).sigmoid()

    return do


def pair(folder: Path, files: list[Path], where: str) -> tuple[float, float]:
    """The steady rates of plain processes and of the job, in turn: a shared machine is another after minutes."""
    rate_of("native", folder, files, where)
    assert job(folder, files, "ray", where).wait() == 0
    return steady(folder / "out-native"), steady(folder / "out-ray")


def job(folder: Path, files: list[Path], name: str, where: str) -> "subprocess.Popen[bytes]":
    """`jobs/tag.py` on these files."""
    shutil.rmtree(folder / f"out-{name}", ignore_errors=True)
    listed = folder / f"{name}.txt"
    listed.write_text("".join(f"{path}\n" for path in files))
    command = [sys.executable, JOB, folder / "native", listed, "--out", folder / f"out-{name}", "--runtime", where]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def spent(process: "subprocess.Popen[bytes]") -> float:
    """Processor seconds of all that comes of it; looking takes some of a core's time, so that nothing else is timed."""
    found = dict[int, float]()
    while process.poll() is None:
        found |= _spent_below(process.pid)
        time.sleep(0.2)
    assert process.returncode == 0
    return sum(found.values())


def _spent_below(pid: int) -> dict[int, float]:
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(path.parent.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = {pid}
    while more := {child for child, (parent, _) in stats.items() if parent in found} - found:
        found |= more
    return {one: stats[one][1] for one in found if one in stats}


def steady(out: Path) -> float:
    """From the fourth part on, until one actor has no more to do; a slope, for parts come in pairs or one by one."""
    made = sorted((out / books.UNITS).glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)[3 : 1 - CORES]
    tables = [pq.read_table(path, columns=["start_s", "stop_s"]) for path in made[1:]]
    seconds = [pc.sum(pc.subtract(table["stop_s"], table["start_s"])).as_py() for table in tables]
    return float(np.polyfit([path.stat().st_mtime for path in made[1:]], np.cumsum(seconds), 1)[0])


if __name__ == "__main__":
    main()
