"""Training, as one worker of a run sees it. The same function serves Ray Train, Ray Tune, a notebook and a test."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from instrunet import bundle as bundles
from instrunet.data.parts import read_json, write_json
from instrunet.features import shards
from instrunet.losses import build_loss, class_weights
from instrunet.training import guard, start
from instrunet.training.augment import Augment
from instrunet.training.feed import Feed
from instrunet.training.job import Job, check
from instrunet.training.optim import half_precision, slow_down
from instrunet.training.state import (
    BUNDLE_FOLDER,
    MISSES_FILE,
    Progress,
    copied,
    load_state,
    save_state,
    schedule_state,
)
from instrunet.training.step import Stepper, share_buffers
from instrunet.training.validate import clip_scores, hear, misclassified

Metrics = dict[str, float]
Save = Callable[[Path], None]
Report = Callable[[Metrics, Save], None]


def fit(job: Job, report: Report, device: torch.device, resume: Path | None = None) -> Progress:
    """Train to the end, calling `report(metrics, save)` after each validation on every worker; only one need save."""
    run = _Run(job, device, resume)
    while run.epoch_left():
        metrics = run.to_next_validation()
        report(metrics, run.save)
    return run.progress


class _Run:
    """One worker's objects."""

    def __init__(self, job: Job, device: torch.device, resume: Path | None) -> None:
        self.spec, self.device = job.train, device
        draft, parent = start.from_parent(job.draft, job.train.init_from)
        self.job = job = replace(job, draft=draft)
        self.share = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        check(job, self.share[1])
        self.train, self.val = (self._feed(split) for split in ("train", "val"))
        torch.manual_seed(job.train.seed)
        steps = self.spec.epochs * self.train.n_batches(self.spec.batch_size)
        self.trainee = start.trainee(job, parent, device, steps)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] = {}
        self.misses: dict[str, Any] = {}
        if resume:
            self.progress = load_state(resume, self.trainee)
            self.best = dict(bundles.Bundle.load(resume / BUNDLE_FOLDER).network.state_dict())
            self.misses = read_json(resume / MISSES_FILE)
        self.stepper = self._stepper()

    def epoch_left(self) -> bool:
        done = self.progress.epoch + 1
        return done < self.spec.epochs and done - 1 - self.progress.best_epoch < self.spec.early_stop_patience

    def to_next_validation(self) -> Metrics:
        """Train and validate; after a collapse, once more from the last good weights with a tenth of the rate."""
        while True:
            before = self._clock()
            try:
                return self._attempt()
            except guard.CollapseError as collapse:
                self._recover(collapse, before)

    def save(self, folder: Path) -> None:
        """A checkpoint: the best bundle so far plus the trainer's state."""
        network = start.network_of(self.job.draft)
        network.load_state_dict(self.best)
        best = {k: v for k, v in self.progress.best_metrics.items() if k.startswith("val_")}
        trained = self.job.draft.trained.model_copy(update={"epoch": self.progress.best_epoch, "metrics": best})
        bundles.save(self.job.draft.model_copy(update={"trained": trained}), network, folder / BUNDLE_FOLDER)
        write_json(folder / MISSES_FILE, self.misses)
        save_state(folder, self.progress, self.trainee)

    def _attempt(self) -> Metrics:
        began, first = time.perf_counter(), self.progress.epoch + 1
        last = min(first + self.spec.val_every_epochs, self.spec.epochs) - 1
        for epoch in range(first, last + 1):
            trained = self._train_epoch(epoch)
        metrics = {"epoch": float(last), "learning_rate": self._rate()} | trained
        metrics |= {"recoveries": float(self.progress.recoveries)} if self.progress.recoveries else {}
        return self._validate(last, metrics, began)

    def _train_epoch(self, epoch: int) -> Metrics:
        seed = (self.spec.seed * 1_000_003 + epoch) * 1_009 + self.share[0]
        torch.manual_seed(seed)  # dropout: a resumed epoch draws what the undisturbed one would have drawn
        augment = Augment(self.spec, epoch, self.job.draft.statistics)
        trained = self.stepper.train_epoch(self.train, self.spec, self.share, augment)
        if self.trainee.average:
            share_buffers(self.trainee.average.network)
        for name, what in (("train_loss", "training loss"), ("gradient_norm", "gradient's norm")):
            if not np.isfinite(trained[name]):
                raise guard.NotFiniteError(f"the {what} is {trained[name]} in epoch {epoch}; expected a finite number")
        return trained

    def _validate(self, epoch: int, metrics: Metrics, began: float) -> Metrics:
        logits = self.stepper.logits(self.trainee.served, self.val, self.spec.batch_size, self.share)
        if not np.isfinite(logits).all():
            raise guard.NotFiniteError(
                "the network's answers to the validation split are not finite numbers after this epoch"
            )
        heard = hear(logits, self.val, self.job.draft)
        # The plain loss of the kind, whatever was trained with: runs can be compared, and it is what calibration lowers
        loss = float(build_loss(None, self.job.draft.kind)(torch.from_numpy(logits), self.val.targets))
        metrics |= {"val_loss": loss} | clip_scores(heard) | guard.figures(heard)
        if self.spec.on_collapse != "ignore":
            guard.check(
                [*self.progress.history, metrics], heard, (epoch + 1) * self.train.n_batches(self.spec.batch_size)
            )
        if isinstance(self.trainee.schedule, ReduceLROnPlateau):
            self.trainee.schedule.step(loss)
        value = metrics[self.spec.monitor] * self.spec.sign
        if value > self.progress.best:
            self.progress.best, self.progress.best_epoch = value, epoch
            self.best, self.misses = copied(self.trainee.served), misclassified(heard, self.val)
        if self.spec.on_collapse == "recover" and not guard.one_answer(metrics):
            self.trainee.good = copied(self.trainee.trained)
        self.progress.epoch = epoch
        self.progress.history.append(metrics | {"epoch_s": time.perf_counter() - began})
        return self.progress.history[-1]

    def _clock(self) -> dict[str, Any]:
        """Where rates and schedule stand, to come back to."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.trainee.optimizer.param_groups]
        return deepcopy({"groups": groups, "schedule": schedule_state(self.trainee.schedule)})

    def _recover(self, collapse: guard.CollapseError, before: dict[str, Any]) -> None:
        """The optimizer's moments led into the collapse: they begin anew."""
        if self.spec.on_collapse != "recover" or self.progress.recoveries == self.spec.max_recoveries:
            raise collapse.failure(self.spec, self.progress.recoveries) from None
        self.progress.recoveries += 1
        trainee = self.trainee
        trainee.trained.load_state_dict(trainee.good)
        if trainee.average:
            trainee.average.restart()
        trainee.optimizer.state.clear()
        for group, settings in zip(trainee.optimizer.param_groups, before["groups"], strict=True):
            group.update(settings)
        trainee.schedule.load_state_dict(trainee.schedule.state_dict() | before["schedule"])
        slow_down(trainee.optimizer, trainee.schedule, 0.1)

    def _stepper(self) -> Stepper:
        network = self.trainee.trained
        if self.spec.compile:
            self.trainee.network.compile()
        if self.share[1] > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            # What learns later is part of what DDP exchanges from the first step on
            network = DistributedDataParallel(network, devices, find_unused_parameters=self.trainee.held.for_a_while)
        weights = class_weights(self.train.targets, self.spec.class_weights, self.spec.effective_beta)
        loss = build_loss(self.spec.loss, self.job.draft.kind, None if weights is None else weights.to(self.device))
        half = half_precision(self.device, self.spec.precision)
        lesson = start.lesson(self.job, loss, self.trainee.adversary, self.device, self.share)
        return Stepper(network, self.trainee.optimizer, lesson, self.device, half, self._after_step, self.trainee.held)

    def _rate(self) -> float:
        """The head's, where a body learns slower."""
        return float(max(group["lr"] for group in self.trainee.optimizer.param_groups))

    def _after_step(self) -> None:
        if self.trainee.average:
            self.trainee.average.update()
        if not isinstance(self.trainee.schedule, ReduceLROnPlateau):
            self.trainee.schedule.step()

    def _feed(self, split: str) -> Feed:
        return Feed(shards.load(self.job.features, self.job.draft.front, split), self.job.draft.labels, split)
