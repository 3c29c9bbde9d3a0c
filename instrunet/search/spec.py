"""What a study may be told."""

from typing import Any, Literal

from pydantic import Field

from instrunet.config import Spec
from instrunet.training.optim import Monitor


class ConfirmSpec(Spec):
    """The best `top` configurations are trained again with `seeds` new seeds each, and the best mean is chosen."""

    top: int = Field(2, ge=1)
    seeds: int = Field(2, ge=1)


class SearchSpec(Spec):
    """A study: which fields are searched, and how. `instrunet/search/space.py` says what `space` may hold."""

    samples: int = Field(4, ge=1)
    space: dict[str, Any] = {}
    metric: Monitor = "val_balanced_accuracy"
    sampler: Literal["random", "tpe"] = "random"  # tpe: Optuna's, each draw looks at what the earlier ones gave
    scheduler: Literal["asha", "hyperband", "pbt", "random"] = "asha"  # random: every trial runs all its epochs
    grace_epochs: int = Field(1, ge=1)  # asha: before a trial may be stopped; pbt: between changes
    reduction: int = Field(2, ge=2)
    concurrent: int = Field(2, ge=1)
    confirm: ConfirmSpec | None = None

    @property
    def sign(self) -> int:
        """By which the figure is multiplied so that larger is better."""
        return -1 if self.metric == "val_loss" else 1
