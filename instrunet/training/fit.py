"""Training, as one worker of a run sees it. The same function serves Ray Train, Ray Tune, a notebook and a test."""

import os
import time
from collections.abc import Callable
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
from instrunet.errors import JobError
from instrunet.features import mapped, shards
from instrunet.losses import build_loss, class_weights
from instrunet.training import guard, start
from instrunet.training.augment import Augment
from instrunet.training.feed import Feed, is_mapped
from instrunet.training.job import Job, check
from instrunet.training.optim import half_precision
from instrunet.training.state import (
    BUNDLE_FOLDER,
    MISSES_FILE,
    SNAPSHOTS,
    Progress,
    Save,
    copied,
    load_state,
    save_state,
)
from instrunet.training.step import Stepper, gathered, share_buffers, sum_over_workers
from instrunet.training.validate import clip_scores, hear, misclassified, some_of

Metrics = dict[str, float]
Report = Callable[[Metrics, Save], None]
Between = Callable[[int, Save], None]
Weights = dict[str, torch.Tensor]


def fit(
    job: Job, report: Report, device: torch.device, resume: Path | None = None, between: Between | None = None
) -> Progress:
    """Train to the end, calling `report(metrics, save)` after each validation on every worker; only one need save.

    `between(step, save)` is called after each step on the first worker alone: it may save there, and the run goes on
    from what it saved as if it had never stopped.
    """
    run = _Run(job, device, resume, between)
    while run.steps_left():
        metrics = run.to_next_validation()
        report(metrics, run.save)
    return run.progress


class _Run:
    """One worker's objects."""

    def __init__(self, job: Job, device: torch.device, resume: Path | None, between: Between | None) -> None:
        self.spec, self.device = job.train, device
        draft, parent = start.from_parent(job.draft, job.train.init_from)
        self.job = job = replace(job, draft=draft)
        self.share = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        check(job, self.share[1])
        self.train, self.val, self.tried_on = self._feeds()
        self.n_batches = self.train.n_batches(self.spec.batch_size)  # of an epoch
        self.between = between if self.share[0] == 0 else None
        torch.manual_seed(job.train.seed)
        self.trainee = start.trainee(job, parent, device, self.spec.epochs * self.n_batches)
        self.trainee.validated()
        self.progress = Progress()
        self.best: Weights = {}
        self.misses: dict[str, Any] = {}
        self.snapshots: dict[int, Weights] = {}  # by the epoch after which they were taken
        if resume:
            self.progress = load_state(resume, self.trainee)
        if resume and self.progress.history:
            self.best = dict(bundles.Bundle.load(resume / BUNDLE_FOLDER).network.state_dict())
            self.misses = read_json(resume / MISSES_FILE)
            for path in (resume / SNAPSHOTS).glob("*"):
                one = bundles.Bundle.load(path)
                self.snapshots[int(one.spec.trained.epoch)] = dict(one.network.state_dict())
        self.stepper = self._stepper()

    def steps_left(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        patient = waited < self.spec.early_stop_patience or self.spec.cycles > 1  # a new cycle is worse at first
        return self.progress.step < self.spec.epochs * self.n_batches and patient

    def to_next_validation(self) -> Metrics:
        """Train and validate; after a collapse, once more from the last good weights with a tenth of the rate."""
        while True:
            try:
                return self._attempt()
            except guard.CollapseError as collapse:
                if self.spec.on_collapse != "recover" or self.progress.recoveries == self.spec.max_recoveries:
                    raise collapse.failure(self.spec, self.progress.recoveries) from None
                self.progress.recoveries += 1
                self.trainee.go_back()
                dead = [at for at in self.snapshots if guard.one_answer(self.progress.metrics_of(at))]
                for at in dead:
                    del self.snapshots[at]

    def save(self, folder: Path) -> None:
        """A checkpoint: the best bundle so far plus the trainer's state."""
        save_state(folder, self.progress, self.trainee)
        if not self.best:
            return
        self._save_bundle(self.best, self.progress.best_epoch, folder / BUNDLE_FOLDER)
        for cycle, (epoch, weights) in enumerate(sorted(self.snapshots.items()), start=1):
            self._save_bundle(weights, epoch, folder / SNAPSHOTS / f"cycle-{cycle}")
        write_json(folder / MISSES_FILE, self.misses)

    def _save_bundle(self, weights: Weights, epoch: float, path: Path) -> None:
        network = start.network_of(self.job.draft)
        network.load_state_dict(weights)
        figures = {k: v for k, v in self.progress.metrics_of(epoch).items() if k.startswith("val_")}
        trained = self.job.draft.trained.model_copy(update={"epoch": epoch, "metrics": figures})
        bundles.save(self.job.draft.model_copy(update={"trained": trained}), network, path)

    def _attempt(self) -> Metrics:
        began = time.perf_counter()
        every = self.spec.val_every_steps or self.spec.val_every_epochs * self.n_batches
        until = min(self.progress.step + every, self.spec.epochs * self.n_batches)
        self._train(until)
        epoch = until / self.n_batches - 1 if self.spec.val_every_steps else until // self.n_batches - 1
        figures = self.trainee.meter.figures(self.spec.batch_size) | self.stepper.lesson.figures(sum_over_workers)
        metrics = {"epoch": float(epoch), "step": float(until), "learning_rate": self.trainee.learning_rate} | figures
        for name, what in (("train_loss", "training loss"), ("gradient_norm", "gradient's norm")):
            if not np.isfinite(figures[name]):
                at = guard.where(metrics)
                raise guard.NotFiniteError(f"the {what} is {figures[name]} in {at}; expected a finite number")
        metrics |= {"recoveries": float(self.progress.recoveries)} if self.progress.recoveries else {}
        return self._validate(metrics, began)

    def _train(self, until: int) -> None:
        """From wherever the run is to a step, epoch by epoch."""
        while (step := self.progress.step + self.trainee.meter.n) < until:
            epoch, first = divmod(step, self.n_batches)
            span = slice(first, min(self.n_batches, first + until - step))
            augment = Augment(self.spec, epoch, self.job.draft.statistics)
            self.stepper.train_epoch(self.train, self.spec, self.share, augment, self.trainee.meter, span)
        if self.trainee.average:
            share_buffers(self.trainee.average.network)

    def _validate(self, metrics: Metrics, began: float) -> Metrics:
        step = int(metrics["step"])
        epoch = int(metrics["epoch"]) if metrics["epoch"].is_integer() else metrics["epoch"]
        logits = self.stepper.logits(self.trainee.served, self.val, self.spec.batch_size, self.share)
        if not np.isfinite(logits).all():
            raise guard.NotFiniteError(
                "the network's answers to the validation split are not finite numbers after this epoch"
            )
        heard = hear(logits, self.val, self.job.draft)
        # The plain loss of the kind, whatever was trained with: runs can be compared, and it is what calibration lowers
        loss = float(build_loss(None, self.job.draft.kind)(torch.from_numpy(logits), self.val.targets))
        scores = {"loss": loss} | clip_scores(heard)
        metrics |= {f"{self.tried_on}_{name}": value for name, value in scores.items()} | guard.figures(heard)
        if self.spec.on_collapse != "ignore":
            guard.check([*self.progress.history, metrics], heard, step)
        if isinstance(self.trainee.schedule, ReduceLROnPlateau):
            self.trainee.schedule.step(loss)
        value = metrics.get(self.spec.monitor, 0.0) * self.spec.sign
        if value > self.progress.best or self.spec.keep == "last":
            self.progress.best, self.progress.best_epoch = value, epoch
            self.best = copied(self.trainee.served)
            self.misses = {"tried_on": self.tried_on} | misclassified(heard, self.val)
        if self.spec.cycles > 1 and (epoch + 1) % (self.spec.epochs // self.spec.cycles) == 0:
            self.snapshots[int(epoch)] = copied(self.trainee.served)
        if self.spec.on_collapse == "recover" and not guard.one_answer(metrics):
            self.trainee.good = copied(self.trainee.trained)
        self.progress.epoch, self.progress.step = epoch, step
        self.trainee.validated()
        self.progress.history.append(metrics | {"epoch_s": time.perf_counter() - began})
        return self.progress.history[-1]

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

    def _after_step(self) -> None:
        if self.trainee.average:
            self.trainee.average.update()
        if not isinstance(self.trainee.schedule, ReduceLROnPlateau):
            self.trainee.schedule.step()
        if self.between:
            self.between(self.progress.step + self.trainee.meter.n, self.save)

    def _feeds(self) -> tuple[Feed, Feed, str]:
        """Clips to learn from and to be tried on, and which those are: `val`, or `learnt` where all clips train.

        The first worker makes the files that all of them map, if one of them has too little memory.
        """
        folder, front = self.job.features, self.job.draft.front
        near = int(os.environ.get("LOCAL_WORLD_SIZE", self.share[1]))
        mapping = any(gathered(is_mapped(folder, front, self.spec.feed, near)))
        problem: str | None = None
        try:
            for split in ("train", "val") if mapping and self.share[0] == 0 else ():
                mapped.make(folder, front, split)
        except JobError as error:
            problem = str(error)
        if problems := [said for said in gathered(problem) if said]:
            raise JobError(problems[0])
        load = mapped.load if mapping else shards.load
        labels = self.job.draft.labels
        train, val = (load(folder, front, split) for split in ("train", "val"))
        if len(val) or self.job.draft.trained.n_clips.get("val") or not self.spec.chooses_nothing:
            return Feed(train, labels, "train"), Feed(val, labels, "val"), "val"
        return Feed(train, labels, "train"), Feed(some_of(train), labels, "train"), "learnt"
