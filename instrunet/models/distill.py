"""Learning from another model's answers instead of, or beside, the labels.

Shapes: B clips, K labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
