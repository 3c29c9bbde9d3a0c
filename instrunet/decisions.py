"""From scores to answers: what a bundle holds of it, beside its temperature and its thresholds.

Shapes: C clips, K labels.

Conventions:

* Everything here is about clips: the mean over the windows is what is bent by a curve, compared, and answered or not.
* `isotonic` has a rising curve for each label. Where a clip has one label the bent scores are divided by their sum
  (Zadrozny & Elkan, 2002), so another label than before may come out best.
* A clip whose best score is below `abstain_below` gets no answer: no label, and the flag `no_answer`.
"""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from instrunet.config import Spec

Kind = Literal["single", "multi"]
Method = Literal["temperature", "isotonic"]
Scores = NDArray[np.floating[Any]]
NO_ANSWER = "no_answer"  # the flag


class Curve(Spec):
    """Scores `at` become `to`, in between as a line runs, outside as at the ends."""

    at: tuple[float, ...] = Field(min_length=1)
    to: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.at) != len(self.to) or (np.diff(self.at) <= 0).any() or (np.diff(self.to) < 0).any():
            raise ValueError("a curve needs as many `to` as `at`, both rising; calibrate the bundle anew")
        return self


class Measured(Spec):
    """How far scores could be believed, see metrics/calibration.py."""

    ece: float
    brier: float
    reliability: tuple[dict[str, float], ...] = ()


class Fitted(Spec):
    """What the decisions were fitted on. `after` is of clips by a fit that had not heard their groups: five folds."""

    parent: str = ""  # fingerprint of the bundle that was calibrated
    corpus: str = ""
    manifest: str = ""  # digest
    n_clips: int
    n_groups: int
    method: Method
    thresholds: str = ""  # the rule
    max_risk: float | None = None
    coverage: float = 1.0  # share of the clips that get an answer, and the share of their labels that is wrong
    risk: float = 0.0
    before: Measured
    after: Measured | None = None  # one group: it cannot be said
    risk_coverage: tuple[dict[str, float], ...] = ()


class Decisions(Spec):
    isotonic: tuple[Curve, ...] = ()  # one a label; empty: as they are
    abstain_below: float = Field(0.0, ge=0)
    fitted: Fitted | None = None

    def calibrated(self, scores: Scores, kind: Kind) -> Scores:
        """Mean scores [..., K] bent by the curves of their labels."""
        return bent(self.isotonic, scores, kind) if self.isotonic else scores


def bent(curves: tuple[Curve, ...], scores: Scores, kind: Kind) -> Scores:
    columns = [np.interp(scores[..., k], curve.at, curve.to) for k, curve in enumerate(curves)]
    found = np.stack(columns, axis=-1)
    if kind == "single":
        found = found / found.sum(-1, keepdims=True)  # fitted curves stay above 0
    bent_: Scores = found.astype(scores.dtype)
    return bent_
