"""LOSSES: logits [B, K] and targets [B, K] to one number. Targets are 0 and 1, or shares between them (mixup)."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor

from instrunet.config import Spec
from instrunet.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
ClassWeights = Literal["none", "inverse", "effective"]


class CrossEntropySpec(Spec):
    """Softmax. `smoothing` is the share of a target that is spread over all labels alike."""

    name: Literal["cross_entropy"] = "cross_entropy"
    smoothing: float = Field(0.0, ge=0, lt=1)


class BinarySpec(Spec):
    """A sigmoid a label."""

    name: Literal["bce"] = "bce"


class FocalSpec(Spec):
    """Cross-entropy of which what is decided rightly already counts less, by (1 - p)^gamma (Lin et al. 2017)."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0)
    alpha: float | None = Field(None, gt=0, lt=1)  # sigmoid: of positives, the rest of negatives; softmax: of the loss


def cross_entropy(spec: CrossEntropySpec, weights: Tensor | None, logits: Tensor, targets: Tensor) -> Tensor:
    """The weighted mean, as in torch for whole targets, so that class weights do not change the size of a step."""
    soft = targets * (1 - spec.smoothing) + spec.smoothing / targets.shape[1]
    return _mean(-soft * F.log_softmax(logits, 1), targets, weights)


def binary(spec: BinarySpec, weights: Tensor | None, logits: Tensor, targets: Tensor) -> Tensor:
    """`weights` weigh the labels."""
    del spec
    return F.binary_cross_entropy_with_logits(logits, targets, weight=weights)


def focal_softmax(spec: FocalSpec, weights: Tensor | None, logits: Tensor, targets: Tensor) -> Tensor:
    """`alpha` scales the whole, as in Keras: it matters beside a penalty on weights."""
    log_p = F.log_softmax(logits, 1)
    each = -targets * (1 - log_p.exp()) ** spec.gamma * log_p
    return _mean(each, targets, weights) * (1.0 if spec.alpha is None else spec.alpha)


def focal_sigmoid(spec: FocalSpec, weights: Tensor | None, logits: Tensor, targets: Tensor) -> Tensor:
    """As torchvision's `sigmoid_focal_loss`, which would be the only use of torchvision here."""
    p = logits.sigmoid()
    right = p * targets + (1 - p) * (1 - targets)
    each = F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="none")
    each = each * (1 - right) ** spec.gamma
    if spec.alpha is not None:
        each = each * (spec.alpha * targets + (1 - spec.alpha) * (1 - targets))
    return each.mean()


def _mean(each: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return each.sum(1).mean()
    return (each * weights).sum() / (targets * weights).sum()


# What `train.loss.name` may be in a task of which kind; the first of a kind is what is taken when nothing is said.
LOSSES: dict[tuple[str, str], tuple[type[Spec], Callable[..., Tensor]]] = {
    ("cross_entropy", "single"): (CrossEntropySpec, cross_entropy),
    ("bce", "multi"): (BinarySpec, binary),
    ("focal", "single"): (FocalSpec, focal_softmax),
    ("focal", "multi"): (FocalSpec, focal_sigmoid),
}


def _from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


LossSpec = Annotated[
    Annotated[CrossEntropySpec | BinarySpec | FocalSpec, Field(discriminator="name")], BeforeValidator(_from_name)
]


def build_loss(spec: Spec | None, kind: str, weights: Tensor | None = None) -> Loss:
    """The loss of a specification, or the plain one of the task's kind."""
    suiting = [name for name, of in LOSSES if of == kind]
    name = getattr(spec, "name", suiting[0])
    if name not in suiting:
        raise ConfigError(
            f"train.loss.name={name} does not suit a task of kind {kind}; expected one of {', '.join(suiting)}"
        )
    of_spec, function = LOSSES[name, kind]
    return partial(function, spec or of_spec(), weights)


def class_weights(targets: Tensor, how: ClassWeights, beta: float = 0.999) -> Tensor | None:
    """One over the rows of each label, or over their effective number (Cui et al. 2019): (1 - beta^n) / (1 - beta).

    The mean over what is labelled is 1. A label without rows weighs 1: with 0 a network of many labels would never
    learn that it is absent.
    """
    if how == "none":
        return None
    counts = targets.sum(0)
    numbers = counts if how == "inverse" else (1 - beta ** counts.double()).to(counts) / (1 - beta)
    present = counts > 0
    inverse = torch.where(present, 1 / numbers.clamp_min(1e-12), 0)
    return torch.where(present, inverse * counts.sum() / (inverse * counts).sum(), 1)
