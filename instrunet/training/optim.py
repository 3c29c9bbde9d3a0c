"""What the trainer may be told, and the optimizer and schedule that follow from it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from instrunet.augment.batch import MixupSpec, PolymixSpec
from instrunet.augment.specaugment import SpecAugmentSpec
from instrunet.augment.spectrogram import CropSpec, RollSpec
from instrunet.config import Spec
from instrunet.losses import ClassWeights, LossSpec
from instrunet.models.transfer import TransferSpec

Monitor = Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_micro_f1", "val_lrap"]
RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a group of parameters
WARMUP_SHARE = {"cosine": 0.05, "one_cycle": 0.3}


class TrainSpec(Spec):
    epochs: int = Field(30, gt=0)
    batch_size: int = Field(32, gt=0)  # rows of a step, of all workers together: a result does not hang on their number
    accumulate: int = Field(1, gt=0)  # parts in which each worker takes its rows of a step, so that more fit in memory
    seed: int = Field(0, ge=0, lt=2**32)  # so that seed, epoch and rank together still fit torch's 64 bits
    # balanced: each class as often as any other in an epoch; groups: and of a class each recording, speaker or player
    sampling: Literal["shuffled", "balanced", "groups"] = "shuffled"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # torch.compile: a minute before the first step

    init_from: Path | None = None  # a bundle, weights and statistics; or weights.safetensors
    transfer: TransferSpec = TransferSpec()  # how they learn on

    loss: LossSpec | None = None  # None: cross_entropy or bce, by the kind of the task
    class_weights: ClassWeights = "none"
    effective_beta: float = Field(0.999, gt=0, lt=1)

    specaugment: SpecAugmentSpec | None = SpecAugmentSpec()
    roll: RollSpec | None = None
    crop: CropSpec | None = None
    polymix: PolymixSpec | None = None
    mixup: MixupSpec | None = None

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)  # of matrices and kernels, not of biases and norms
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd
    clip_norm: float | None = Field(None, gt=0)  # of all gradients together
    ema: float | None = Field(None, gt=0, lt=1)  # decay of a mean of the weights that is validated and kept instead
    schedule: Literal["plateau", "cosine", "one_cycle", "constant"] = "plateau"
    warmup_share: float | None = Field(None, ge=0, lt=1)  # of all steps; None: 0.05 of cosine, 0.3 of one_cycle
    cycles: int = Field(1, gt=0)  # of cosine, each down to nothing; the weights at the end of each are kept: snapshots
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(3, ge=0)  # validations

    feed: Literal["auto", "memory", "map"] = "auto"  # where features lie; auto: mapped files where memory is short
    val_every_epochs: int = Field(1, gt=0)  # validation, report and checkpoint
    val_every_steps: int | None = Field(None, gt=0)  # the same, inside an epoch, instead
    early_stop_patience: int = Field(10, gt=0)  # epochs
    monitor: Monitor = "val_loss"
    keep: Literal["best", "last"] = "best"  # the validation whose weights are kept; `last` stops at no plateau
    on_collapse: Literal["stop", "recover", "ignore"] = "stop"
    max_recoveries: int = Field(3, ge=0)

    @property
    def sign(self) -> int:
        """By which the monitored figure is multiplied so that larger is better."""
        return -1 if self.monitor == "val_loss" else 1

    @property
    def chooses_nothing(self) -> bool:
        """Whether no validation split is needed: neither weights nor rates hang on how well clips are answered."""
        return self.keep == "last" and self.schedule != "plateau"

    def tick(self, metrics: Mapping[str, float]) -> int:
        """Where a validation stands on the axis of curves: its epoch, or its step where these are what is counted."""
        return int(metrics["step"] if self.val_every_steps else metrics["epoch"])

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.val_every_steps and self.val_every_epochs != 1:
            raise ValueError(
                f"expected val_every_epochs or val_every_steps, got both ({self.val_every_epochs} and "
                f"{self.val_every_steps}); leave one out"
            )
        return self

    @model_validator(mode="after")
    def _cycles_end_at_validations(self) -> Self:
        if self.cycles == 1:
            return self
        if self.schedule != "cosine":
            raise ValueError(f"cycles belong to schedule=cosine; got schedule={self.schedule}: set it, or cycles=1")
        if self.val_every_steps or self.epochs % (self.cycles * self.val_every_epochs):
            raise ValueError(
                f"{self.cycles} cycles each end at a validation: expected epochs a multiple of "
                f"{self.cycles * self.val_every_epochs} and no val_every_steps, got {self.epochs} epochs and "
                f"val_every_steps={self.val_every_steps}"
            )
        warmup = WARMUP_SHARE["cosine"] if self.warmup_share is None else self.warmup_share
        if warmup * self.cycles >= 1:
            raise ValueError(
                f"the warm-up is {warmup:g} of all steps, a cycle {1 / self.cycles:g}: the first would never fall; "
                f"set warmup_share below that"
            )
        return self

    @model_validator(mode="after")
    def _only_what_has_learnt_is_held(self) -> Self:
        if self.init_from is None and self.transfer != TransferSpec():
            raise ValueError("transfer says how the weights of init_from learn on, got none: set init_from")
        return self

    @model_validator(mode="after")
    def _warmup_leaves_something(self) -> Self:
        if self.warmup_share is not None and self.schedule not in WARMUP_SHARE:
            raise ValueError(
                f"warmup_share belongs to the schedules {' and '.join(WARMUP_SHARE)}; got schedule={self.schedule}: "
                "leave it out or change the schedule"
            )
        return self


def build_optimizer(
    network: nn.Module, spec: TrainSpec, l2_dense: float, scales: Mapping[nn.Parameter, float] | None = None
) -> Optimizer:
    """An L2 penalty c * w^2 in the loss (as the seeds state it) is a decay of 2c in the gradient; AdamW's is apart.

    `scales` are by what the rate of each parameter is multiplied, where that is not 1.
    """
    dense = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    ids = {id(p) for p in dense}
    rest = [p for p in network.parameters() if id(p) not in ids]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        {"params": dense, "weight_decay": spec.weight_decay + 2 * l2_dense},
    ]
    groups = [one for group in groups for one in _by_rate(group, spec.learning_rate, scales or {}) if one["params"]]
    if spec.optimizer == "sgd":
        return SGD(groups, lr=spec.learning_rate, momentum=spec.momentum)
    return (AdamW if spec.optimizer == "adamw" else Adam)(groups, lr=spec.learning_rate)


def _by_rate(group: dict[str, Any], rate: float, scales: Mapping[nn.Parameter, float]) -> list[dict[str, Any]]:
    """The group, or as many as its parameters have rates; the largest first."""
    if all(scale == 1 for scale in scales.values()):
        return [group]
    apart: dict[float, list[nn.Parameter]] = {}
    for p in group["params"]:
        apart.setdefault(scales.get(p, 1.0), []).append(p)
    return [group | {"params": apart[scale], "lr": rate * scale} for scale in sorted(apart, reverse=True)]


def build_schedule(optimizer: Optimizer, spec: TrainSpec, steps: int) -> LRScheduler:
    """Of a whole run of so many steps. Each is stepped after each step, but for `plateau`: after a validation."""
    warmup = spec.warmup_share if spec.warmup_share is not None else WARMUP_SHARE.get(spec.schedule, 0.0)
    match spec.schedule:
        case "plateau":
            return ReduceLROnPlateau(optimizer, factor=spec.plateau_factor, patience=spec.plateau_patience)
        case "one_cycle":
            # 0.3 of a few steps may be less than one, by which torch divides
            share = min(max(warmup, 2 / steps), 1.0)
            rates = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, rates, total_steps=steps + 1, pct_start=share)
        case "cosine":
            return LambdaLR(optimizer, lambda step: _cosine(step, steps, round(warmup * steps), spec.cycles))
        case "constant":
            return LambdaLR(optimizer, lambda step: 1.0)


def _cosine(step: int, steps: int, warmup: int, cycles: int) -> float:
    """Up in a line, down by half a wave to nothing after the last step of each cycle; the next begins at the top."""
    length = steps // cycles
    if step >= steps:
        return 0.0
    if step >= length:
        return 0.5 * (1 + math.cos(math.pi * (step % length) / length))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, length - warmup)))


def slow_down(optimizer: Optimizer, schedule: LRScheduler, factor: float) -> None:
    """Every rate that an optimizer and its schedule remember, times a factor."""
    for group in optimizer.param_groups:
        group.update({key: group[key] * factor for key in RATES if key in group})
    if hasattr(schedule, "base_lrs"):
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]


def half_precision(device: torch.device, precision: str) -> bool:
    """bf16 where it pays: on GPUs since Ampere, on CPUs with AMX or AVX512-BF16 (3.75x on the 224 x 224 network)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capability = torch.cpu.get_capabilities()
    return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
