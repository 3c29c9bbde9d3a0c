"""Learning from another model's answers instead of, or beside, the labels.

Shapes: B clips, K labels.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from instrunet.config import Spec


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


class DistillSpec(Spec):
    """`teacher` is a bundle, or a list of them, whose answers are averaged."""

    teacher: Annotated[tuple[Path, ...], BeforeValidator(_as_list), Field(min_length=1)]
    weight: float = Field(0.5, gt=0, le=1)  # of the teachers' answers in the loss; the labels have the rest
    temperature: float = Field(2.0, gt=0)  # by which logits are divided: above 1, small chances are told as well


@torch.no_grad()
def soft_targets(teachers: list[nn.Module], features: dict[str, Tensor], kind: str, temperature: float) -> Tensor:
    """[B, K]: the mean of what a model, or an ensemble, says at this temperature, for `distillation` to follow.

    The teachers must be built on the student's front end: their features are these.
    """
    logits = [teacher(features).float() / temperature for teacher in teachers]
    return torch.stack([x.softmax(1) if kind == "single" else x.sigmoid() for x in logits]).mean(0)


def distillation(logits: Tensor, targets: Tensor, kind: str, temperature: float) -> Tensor:
    """The cross-entropy with soft targets, times the temperature's square: gradients then keep their size."""
    softened = logits / temperature
    if kind == "single":
        return F.cross_entropy(softened, targets) * temperature**2
    return F.binary_cross_entropy_with_logits(softened, targets) * temperature**2
