"""What the trainer may be told, and the optimizer and schedule that follow from it."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from instrunet.augment.specaugment import SpecAugmentSpec
from instrunet.config import Spec

Monitor = Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_micro_f1", "val_lrap"]


class TrainSpec(Spec):
    epochs: int = Field(30, gt=0)
    batch_size: int = Field(32, gt=0)  # of all workers together, so that a result does not hang on their number
    learning_rate: float = Field(1e-3, gt=0)
    seed: int = Field(0, ge=0, lt=2**32)  # so that seed, epoch and rank together still fit torch's 64 bits
    class_weights: Literal["none", "inverse"] = "none"
    specaugment: SpecAugmentSpec | None = SpecAugmentSpec()
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(3, ge=0)
    early_stop_patience: int = Field(10, gt=0)
    monitor: Monitor = "val_loss"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @property
    def sign(self) -> int:
        """By which the monitored figure is multiplied so that larger is better."""
        return -1 if self.monitor == "val_loss" else 1


def build_optimizer(network: nn.Module, spec: TrainSpec, l2_dense: float) -> Optimizer:
    """Adam. An L2 penalty c * w^2 in the loss (as the seeds state it) is a decay of 2c in Adam's gradient."""
    dense = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    ids = {id(p) for p in dense}
    rest = [p for p in network.parameters() if id(p) not in ids]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": dense, "weight_decay": 2 * l2_dense}]
    return Adam(groups, lr=spec.learning_rate)


def build_schedule(optimizer: Optimizer, spec: TrainSpec) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(optimizer, factor=spec.plateau_factor, patience=spec.plateau_patience)


def half_precision(device: torch.device, precision: str) -> bool:
    """bf16 where it pays: on GPUs since Ampere, on CPUs with AMX or AVX512-BF16 (3.75x on the 224 x 224 network)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capability = torch.cpu.get_capabilities()
    return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
