"""Where to draw a line through scores: for each label, for all of them, and below which score to give no answer.

Shapes: C clips, K labels.

Conventions:

* A threshold lies halfway between two scores that were seen. `f1` takes the best F1 (of equal ones the threshold
  nearest to 0.5), `precision=p` the lowest threshold with that precision, `recall=r` the highest with that recall.
* A risk is the share of the labels given that were wrong, on these clips: on others it may come out higher.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import ConfigError, DataError
from instrunet.metrics import calibration

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
NEVER = 1.1  # a threshold that no probability reaches


@dataclass(frozen=True)
class ThresholdRule:
    """`f1`, `precision=0.9` or `recall=0.8`."""

    name: str
    least: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        name, _, least = text.partition("=")
        if name == "f1" and not least:
            return cls("f1")
        if name in ("precision", "recall") and re.fullmatch(r"0?\.\d*[1-9]\d*|1(\.0*)?", least):
            return cls(name, float(least))
        raise ConfigError(
            f"expected --thresholds f1, precision=P or recall=R with P, R over 0, at most 1; got {text!r}"
        )


def thresholds(rule: ThresholdRule, truth: Bools, scores: Array, labels: Sequence[str]) -> tuple[Array, list[str]]:
    """One a label [K], and what a user should read of those that could not be fitted."""
    found, notes = np.full(len(labels), 0.5), []
    for k, label in enumerate(labels):
        if not truth[:, k].any():
            notes.append(f"{label}: no clip of it to fit a threshold on, it stays 0.5")
            continue
        value, reached = _threshold(rule, truth[:, k], scores[:, k])
        found[k] = value
        if not reached:
            notes.append(f"{label}: no threshold reaches {rule.name} {rule.least:g}, it will never be given")
    return found, notes


def _threshold(rule: ThresholdRule, truth: Bools, scores: Array) -> tuple[float, bool]:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))  # equal scores are on one side
    hits, given = truth[order].cumsum()[ends], ends + 1
    cut = halfway(scores[order][ends])
    precision, recall = hits / given, hits / truth.sum()
    if rule.name == "f1":
        f1 = 2 * hits / (given + truth.sum())
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        return float(cut[best[np.abs(cut[best] - 0.5).argmin()]]), True
    reach = np.flatnonzero((precision if rule.name == "precision" else recall) >= rule.least - 1e-12)
    if not len(reach):
        return NEVER, False
    return float(cut[reach[-1] if rule.name == "precision" else reach[0]]), True


def halfway(scores: Array) -> Array:
    """Of falling scores: halfway from each to the next lower one, of the last to 0."""
    middle: Array = (scores + np.append(scores[1:], 0.0)) / 2
    return middle


def one_threshold(truth: Bools, scores: Array) -> float:
    """The one for all classes [C, K] that has the best micro F1: what papers on IRMAS choose."""
    rule = ThresholdRule("f1")
    return _threshold(rule, truth.ravel(), scores.ravel())[0] if truth.any() else 0.5


def limit(truth: Bools, decided: Bools, best: Array, max_risk: float) -> float:
    """The lowest score of a clip's best label under which answers stay within the risk."""
    if not 0 <= max_risk < 1:
        raise ConfigError(f"expected --max-risk from 0 to below 1, got {max_risk:g}; 0.05 is one wrong label in twenty")
    curve = calibration.risk_coverage(truth, decided, best)
    within = np.flatnonzero(curve["risk"] <= max_risk)
    if not len(within):
        raise DataError(
            f"no limit keeps the risk at {max_risk:g}: the least is {curve['risk'].min():.3f} on {len(best)} clips; "
            "allow a higher --max-risk, or train a better model"
        )
    if curve["coverage"][within[-1]] == 1:
        return 0.0
    return float(halfway(np.asarray(curve["below"], np.float64))[within[-1]])
