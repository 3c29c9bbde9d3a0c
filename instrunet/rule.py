"""How scores become answers: what a bundle decides by, without its network.

Shapes: W windows, K labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.bundle_spec import BundleSpec
from instrunet.decisions import NO_ANSWER, Decisions

Scores = NDArray[np.floating[Any]]


class Rule:
    def __init__(self, spec: BundleSpec) -> None:
        self.spec = spec

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint()

    @property
    def decisions(self) -> Decisions:
        return self.spec.decisions or Decisions()

    @property
    def thresholds(self) -> NDArray[np.float32]:
        return np.array(self.spec.thresholds or [0.5] * len(self.spec.labels), np.float32)

    def of_clip(self, windows: Scores) -> NDArray[np.float32]:
        """Scores [W, K] of a sound's windows to the one row [K] that is decided on: their mean, calibrated."""
        return np.asarray(self.calibrated(windows.mean(0)), np.float32)

    def calibrated(self, mean: Scores) -> Scores:
        """Mean scores of clips [..., K] by the bundle's curves, if it has any."""
        return self.decisions.calibrated(mean, self.spec.kind)

    def answers(self, scores: Scores) -> NDArray[np.bool_]:
        """Whether clips of these scores [..., K] get an answer [...]."""
        return np.asarray(scores.max(-1) >= self.decisions.abstain_below)

    def chosen(self, scores: Scores) -> NDArray[np.bool_]:
        """[..., K]: the best label, or every one at or above its threshold; none of what is unsure."""
        if self.spec.kind == "single":
            picked = scores.argmax(-1)[..., None] == np.arange(scores.shape[-1])
        else:
            picked = scores >= self.thresholds
        return np.asarray(picked & self.answers(scores)[..., None])

    def decide(self, scores: Scores) -> list[str]:
        """Labels for a clip's scores [K]."""
        return [label for label, yes in zip(self.spec.labels, self.chosen(scores), strict=True) if yes]

    def flagged(self, flags: Sequence[str], scores: Scores) -> list[str]:
        return [*flags] if self.answers(scores) else sorted({*flags, NO_ANSWER})

    def drift(self, measures: Sequence[float]) -> float | None:
        return self.spec.profile.drift(measures) if self.spec.profile else None
