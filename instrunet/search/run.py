"""What a trial has come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrunet import bundle as bundles


@dataclass(frozen=True)
class Run:
    """`fields` are what it changes of the experiment, `told` the same as a table says it; `reason` is why it failed."""

    trial: str
    fields: Mapping[str, Any]
    told: Mapping[str, Any]
    features: Path
    bundle: Path | None = None  # that of the kept epoch
    history: Sequence[Mapping[str, float]] = ()
    reason: str = ""
    stopped: bool = False  # before all of its epochs

    @property
    def epochs(self) -> float:
        return float(self.history[-1]["epoch"]) + 1 if self.history else 0.0

    @property
    def seconds(self) -> float:
        return sum(float(row.get("epoch_s", 0.0)) for row in self.history)

    @property
    def status(self) -> str:
        return "failed" if self.reason or not self.bundle else "stopped" if self.stopped else "done"

    def score(self, metric: str) -> float:
        """Of the epoch whose weights were kept."""
        assert self.bundle, "a trial without a bundle has no score"
        return bundles.read_spec(self.bundle).trained.metrics[metric]
