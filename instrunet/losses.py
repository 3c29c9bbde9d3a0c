"""LOSSES: logits [B, K] and targets [B, K] (0 and 1) to one number."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Softmax; the weighted mean, as in torch, so that class weights do not change the size of a step."""
    return F.cross_entropy(logits, targets.argmax(1), weight=weights)


def binary(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """A sigmoid a label; `weights` weigh the labels."""
    return F.binary_cross_entropy_with_logits(logits, targets, weight=weights)


Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
LOSSES: dict[str, Loss] = {"single": cross_entropy, "multi": binary}  # by the kind of the task
