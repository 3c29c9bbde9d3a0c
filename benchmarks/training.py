"""Training steps against a plain fp32 eager loop, waiting for data, and Ray Train against bare DDP, in one run.

The last line is JSON: how many times the plain loop's clips a second (on the same 224 x 224 colour pictures, and on
the native one-channel mel grid), the share of a step spent waiting, and Ray's seconds an epoch over bare DDP's.
Sides take turns, round by round, so that a machine that slows down slows both; figures are medians of rounds.
"""

import json
import os
import statistics
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instrunet import experiment as experiments
from instrunet.data import manifest, parts
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.shards import Features
from instrunet.losses import build_loss
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.training.augment import Augment
from instrunet.training.feed import Feed
from instrunet.training.fit import fit
from instrunet.training.job import Job, config_of, job_of
from instrunet.training.lesson import Lesson
from instrunet.training.meter import Meter
from instrunet.training.optim import TrainSpec, build_optimizer, half_precision
from instrunet.training.step import Stepper
from pipelines import features, train

LABELS = tuple("abcdefghijk")
BATCH, N_CLIPS, ROUNDS = 16, 64, 7
EPOCHS, RUNS = 5, 2
FRONT = FrontEnd()
NATIVE = Iteration11Spec(picture=PictureSpec(size=None, colour=False))
STATISTICS = Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (3.0,)}, n_windows=1)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
        torch.set_num_threads(2)
    rival, colour, native = Plain(device), Ours(Iteration11Spec(), device), Ours(NATIVE, device)
    rounds = [[side.clips_per_s() for side in (rival, colour, native)] for _ in range(ROUNDS + 1)][1:]
    for name, rates in zip(("plain fp32", "ours, 224 x 224", "ours, native"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: {statistics.median(rates):.1f} clips/s ({min(rates):.1f} to {max(rates):.1f})")
    found = {
        "vs_fp32_eager": statistics.median(ours / plain for plain, ours, _ in rounds),
        "native_vs_fp32_eager": statistics.median(ours / plain for plain, _, ours in rounds),
        "wait_share": statistics.median(colour.waits[1:] + native.waits[1:]),
        "ray_over_ddp": ray_over_ddp(),
    }
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


class Plain:
    """What a tutorial writes: float32, channels first, pictures that lie ready in memory."""

    def __init__(self, device: torch.device) -> None:
        network = Network(Iteration11Spec(), FRONT, STATISTICS, len(LABELS)).to(device)
        self.body, self.device = network.body.train(), device
        self.optimizer = torch.optim.Adam(self.body.parameters())
        logmel = torch.randn(N_CLIPS, *FRONT.shapes()["logmel"])
        with torch.no_grad():
            self.pictures = network.picture.cpu()(logmel)
        self.targets = torch.arange(N_CLIPS) % len(LABELS)

    def clips_per_s(self) -> float:
        began = time.perf_counter()
        for at in torch.randperm(N_CLIPS).split(BATCH):
            self.optimizer.zero_grad()
            logits = self.body(self.pictures[at].to(self.device))
            F.cross_entropy(logits, self.targets[at].to(self.device)).backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return N_CLIPS / (time.perf_counter() - began)


class Ours:
    """The trainer's own epoch: from half-precision features to the step, with normalisation, masks and the picture."""

    def __init__(self, model: Iteration11Spec, device: torch.device) -> None:
        self.spec, self.waits, self.epoch = TrainSpec(batch_size=BATCH), list[float](), 0
        network = Network(model, FRONT, STATISTICS, len(LABELS)).to(device)
        half = half_precision(device, "auto")
        if half:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(network, self.spec, model.l2_dense)
        self.stepper = Stepper(network, optimizer, Lesson(build_loss(None, "single")), device, half, lambda: None)
        values = np.random.default_rng(0).normal(size=(N_CLIPS, *FRONT.shapes()["logmel"])).astype(np.float16)
        names = [str(k) for k in range(N_CLIPS)]
        labels = [[LABELS[k % len(LABELS)]] for k in range(N_CLIPS)]
        clips: dict[str, list[Any]] = {"clip_id": names, "uri": names, "labels": labels}
        self.feed = Feed(Features({"logmel": values}, clips), LABELS, "train")

    def clips_per_s(self) -> float:
        self.epoch += 1
        meter = Meter.on(self.stepper.device)
        augment = Augment(self.spec, self.epoch, STATISTICS)
        self.stepper.train_epoch(self.feed, self.spec, (0, 1), augment, meter)
        told = meter.figures(BATCH)
        self.waits.append(told["wait_share"])
        return told["clips_per_s"]


def ray_over_ddp() -> float:
    """Seconds from one epoch's report to the next, checkpoints included: two gloo workers each, runs in turn.

    What Ray adds is some 0.2 s a validation, whatever lies between two of them: of epochs of 2 s that is 8 %.
    """
    ratios = []
    with TemporaryDirectory() as home:
        for seed in range(RUNS):
            job, ray_s = _with_ray(Path(home), seed)
            bare_s = _bare(job, Path(home) / f"bare-{seed}")
            ratios.append(ray_s / bare_s)
            print(f"an epoch takes {ray_s:.2f} s with Ray Train, {bare_s:.2f} s with bare DDP")
    return statistics.median(ratios)


def _with_ray(home: Path, seed: int) -> tuple[Job, float]:
    changes = ["model={name: iteration11}", f"train.epochs={EPOCHS}", f"train.seed={seed}", f"out={home}"]
    changes += ["tracking.enabled=false"]
    one = experiments.load(Path(__file__).parent.parent / "configs/smoke.yaml", changes)
    bundle = train.run(one)
    curve = EventAccumulator(str(bundle.parent / "tensorboard"))
    curve.Reload()
    times = [event.wall_time for event in curve.Scalars("train_loss")]
    folder = features.run(one)
    frame = manifest.load(folder / manifest.FILE)
    draft = train.draft_of(one, frame, features.statistics(folder), features.profile(folder))
    return Job(draft, one.train, folder), (times[-1] - times[1]) / (len(times) - 2)


def _bare(job: Job, home: Path) -> float:
    home.mkdir()
    torch.multiprocessing.spawn(_rank, (2, home, config_of(job)), nprocs=2)
    times = parts.read_json(home / "times.json")["times"]
    return float((times[-1] - times[1]) / (len(times) - 2))


def _rank(rank: int, world: int, home: Path, config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    meet = f"file://{home}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=timedelta(seconds=600))
    times: list[float] = []

    def report(metrics: dict[str, float], save: Any) -> None:
        if rank == 0:
            folder = home / f"epoch-{int(metrics['epoch'])}"
            folder.mkdir()
            save(folder)
        times.append(time.time())

    fit(job_of(config), report, torch.device("cpu"))
    if rank == 0:
        parts.write_json(home / "times.json", {"times": times})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
