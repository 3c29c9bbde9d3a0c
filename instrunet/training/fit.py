"""Training, as one worker of a run sees it. The same function serves Ray Train, Ray Tune, a notebook and a test."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from instrunet import bundle as bundles
from instrunet.bundle import BundleSpec
from instrunet.errors import ConfigError, JobError
from instrunet.features import shards
from instrunet.losses import LOSSES
from instrunet.metrics import multi, single
from instrunet.models import Network
from instrunet.training.feed import Feed, class_weights
from instrunet.training.optim import TrainSpec, build_optimizer, build_schedule, half_precision
from instrunet.training.state import BUNDLE_FOLDER, Progress, load_state, save_state
from instrunet.training.step import Stepper

Metrics = dict[str, float]
Save = Callable[[Path], None]
Report = Callable[[Metrics, Save], None]
SCORES = {  # by the kind of the task: what `clip_scores` gives of an epoch
    "single": ("accuracy", "balanced_accuracy", "macro_f1"),
    "multi": ("micro_f1", "macro_f1", "lrap"),
}


@dataclass(frozen=True)
class Job:
    """What one run trains: the bundle it will become (no weights yet), how, and the folder of features."""

    draft: BundleSpec
    train: TrainSpec
    features: Path


def fit(job: Job, report: Report, device: torch.device, resume: Path | None = None) -> Progress:
    """Train to the end, calling `report(metrics, save)` after each epoch on every worker; only one needs to save."""
    run = _Run(job, device, resume)
    while run.epoch_left():
        metrics = run.one_epoch()
        report(metrics, run.save)
    return run.progress


class _Run:
    """One worker's objects."""

    def __init__(self, job: Job, device: torch.device, resume: Path | None) -> None:
        self.job, self.device = job, device
        self.share = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        _check(job, self.share[1])
        self.train, self.val = (self._feed(split) for split in ("train", "val"))
        torch.manual_seed(job.train.seed)
        draft = job.draft
        self.network = Network(draft.model, draft.front, draft.statistics, len(draft.labels)).to(device)
        if half_precision(device, job.train.precision):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.network, job.train, draft.model.l2_dense)
        self.schedule = build_schedule(self.optimizer, job.train)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] = {}
        if resume:
            self.progress = load_state(resume, self.network, self.optimizer, self.schedule)
            self.best = dict(bundles.Bundle.load(resume / BUNDLE_FOLDER).network.state_dict())
        self.stepper = self._stepper()

    def epoch_left(self) -> bool:
        done, train = self.progress.epoch + 1, self.job.train
        return done < train.epochs and done - 1 - self.progress.best_epoch < train.early_stop_patience

    def one_epoch(self) -> Metrics:
        epoch, began = self.progress.epoch + 1, time.perf_counter()
        seed = (self.job.train.seed * 1_000_003 + epoch) * 1_009 + self.share[0]
        torch.manual_seed(seed)  # dropout: a resumed epoch draws what the undisturbed one would have drawn
        trained = self.stepper.train_epoch(self.train, self.job.train, epoch, self.share, self.job.draft.statistics)
        metrics = {"epoch": float(epoch), "learning_rate": self.optimizer.param_groups[0]["lr"]} | trained
        metrics |= self._validate()
        self.schedule.step(metrics["val_loss"])
        self._advance(epoch, metrics | {"epoch_s": time.perf_counter() - began})
        return self.progress.history[-1]

    def save(self, folder: Path) -> None:
        """A checkpoint: the best bundle so far plus the trainer's state."""
        network = Network(
            self.job.draft.model, self.job.draft.front, self.job.draft.statistics, len(self.job.draft.labels)
        )
        network.load_state_dict(self.best)
        best = self.progress.history[self.progress.best_epoch]
        trained = self.job.draft.trained.model_copy(
            update={
                "epoch": self.progress.best_epoch,
                "metrics": {k: v for k, v in best.items() if k.startswith("val_")},
            }
        )
        bundles.save(self.job.draft.model_copy(update={"trained": trained}), network, folder / BUNDLE_FOLDER)
        save_state(folder, self.progress, self.network, self.optimizer, self.schedule)

    def _validate(self) -> Metrics:
        logits = self.stepper.logits(self.val, self.job.train.batch_size, self.share)
        if not np.isfinite(logits).all():
            raise JobError(
                "the network's answers to the validation split are not finite numbers after this epoch: lower "
                f"train.learning_rate (now {self.job.train.learning_rate:g}) or set train.precision=fp32"
            )
        loss = LOSSES[self.job.draft.kind](torch.from_numpy(logits), self.val.targets, None)
        return {"val_loss": float(loss)} | clip_scores(logits, self.val, self.job.draft)

    def _advance(self, epoch: int, metrics: Metrics) -> None:
        self.progress.epoch = epoch
        self.progress.history.append(metrics)
        value = metrics[self.job.train.monitor] * self.job.train.sign
        if value > self.progress.best:
            self.progress.best, self.progress.best_epoch = value, epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def _stepper(self) -> Stepper:
        network: nn.Module = self.network
        if self.share[1] > 1:
            network = DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)
        weights = None
        if self.job.train.class_weights == "inverse":
            weights = class_weights(self.train.targets).to(self.device)
        stepper = Stepper(network, self.optimizer, LOSSES[self.job.draft.kind], weights, self.device)
        stepper.half = half_precision(self.device, self.job.train.precision)
        return stepper

    def _feed(self, split: str) -> Feed:
        return Feed(shards.load(self.job.features, self.job.draft.front, split), self.job.draft.labels, split)


def _check(job: Job, n_workers: int) -> None:
    """What no single spec can know of the others."""
    kind, train = job.draft.kind, job.train
    measured = ("val_loss", *(f"val_{name}" for name in SCORES[kind]))
    if train.monitor not in measured:
        raise ConfigError(
            f"train.monitor={train.monitor} is not measured in a task of kind {kind}; expected {', '.join(measured)}"
        )
    if train.batch_size < n_workers:
        raise ConfigError(
            f"train.batch_size={train.batch_size} cannot be shared by {n_workers} workers; "
            f"raise it to {n_workers} or more, or lower cluster.workers"
        )


def clip_scores(logits: NDArray[np.float32], feed: Feed, draft: BundleSpec) -> Metrics:
    """Validation by clip, not by window: the mean over a clip's windows decides, as it does in service."""
    scores = softmax(logits, axis=1) if draft.kind == "single" else expit(logits)
    _, first, clip = np.unique(np.array(feed.clip_ids), return_index=True, return_inverse=True)
    mean = np.zeros((len(first), scores.shape[1]))
    np.add.at(mean, clip, scores)
    mean /= np.bincount(clip)[:, None]
    targets = feed.targets.numpy()[first]
    if draft.kind == "single":
        found = single.evaluate(targets.argmax(1), mean, draft.labels)
    else:
        found = multi.evaluate(targets.astype(bool), mean, draft.labels, np.full(len(draft.labels), 0.5))
    return {f"val_{name}": float(found[name]) for name in SCORES[draft.kind]}
