"""Whether scores can be believed: of what is said with 0.8, eight in ten should be so.

Shapes: N clips, K labels, D decisions, B bins.

Conventions, and how others differ:

* A decision is a probability and whether it came true. Of one label a clip it is the best label and its score, N in
  all ("top-label" calibration); of several labels each label of each clip is one, N x K in all.
* ECE is the mean over the decisions of |mean probability - share that came true| of their bin: 15 bins of one width, a
  bin from its lower limit on and below its upper one, 1.0 in the last. torchmetrics puts 1.0 in a bin of its own.
* Brier is the mean over the clips of the sum over the labels of (p - y)^2, from 0 to 2, where a clip has one label, and
  the mean over the N x K decisions, from 0 to 1, where it has several: scikit-learn's default for either.
* Both are None where the scores are not probabilities: outside 0 to 1, or of one label a clip not summing to 1.
* Risk is the share of the labels given that are wrong, coverage the share of the clips that get an answer: those whose
  best score reaches a limit.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from instrunet.metrics.single import SUM_TOLERANCE, Floats

Bools = NDArray[np.bool_]
BINS = 15


def evaluate(y_true: Bools, scores: Floats, kind: Literal["single", "multi"]) -> dict[str, Any]:
    """ECE, Brier and the reliability curve, as plain numbers; None and an empty curve where scores are no chances."""
    if not are_probabilities(scores, kind):
        return {"ece": None, "brier": None, "reliability": []}
    said, came_true = decisions(y_true, scores, kind)
    return {
        "ece": ece(said, came_true),
        "brier": brier(y_true, scores, kind),
        "reliability": reliability(said, came_true),
    }


def are_probabilities(scores: Floats, kind: Literal["single", "multi"]) -> bool:
    inside = bool((scores >= 0).all() and (scores <= 1 + SUM_TOLERANCE).all())
    return inside and (kind == "multi" or bool((abs(scores.sum(1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all()))


def decisions(y_true: Bools, scores: Floats, kind: Literal["single", "multi"]) -> tuple[Floats, Bools]:
    """Probabilities [D] and what came true [D]."""
    if kind == "multi":
        return scores.ravel(), y_true.ravel()
    rows, best = np.arange(len(scores)), scores.argmax(1)
    return scores[rows, best], y_true[rows, best]


def ece(said: Floats, came_true: Bools, bins: int = BINS) -> float:
    n, mean, share = _binned(said, came_true, bins)
    return float((n * abs(mean - share)).sum() / max(n.sum(), 1))


def brier(y_true: Bools, scores: Floats, kind: Literal["single", "multi"]) -> float:
    return float(squares(y_true, scores, kind).mean())


def squares(y_true: Bools, scores: Floats, kind: Literal["single", "multi"]) -> NDArray[np.float64]:
    """What each clip adds to Brier [N]."""
    found = (scores.astype(np.float64) - y_true) ** 2
    return np.asarray(found.sum(1) if kind == "single" else found.mean(1))


def places(said: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each decision [D]."""
    return np.minimum((said.astype(np.float64) * bins).astype(np.int64), bins - 1)


def reliability(said: Floats, came_true: Bools, bins: int = BINS) -> list[dict[str, float]]:
    """The bins that hold something: their limits, n, mean probability and the share that came true."""
    n, mean, share = _binned(said, came_true, bins)
    return [
        {"from": k / bins, "to": (k + 1) / bins, "n": int(n[k]), "said": float(mean[k]), "true": float(share[k])}
        for k in np.flatnonzero(n)
    ]


def risk_coverage(y_true: Bools, decided: Bools, best: Floats) -> dict[str, Floats]:
    """For each limit a clip's best score [N] may have to reach, from the highest: `below`, `coverage` and `risk`."""
    order = np.argsort(-best, kind="stable")
    given = decided[order].sum(1).cumsum()
    wrong = (decided & ~y_true)[order].sum(1).cumsum()
    last = np.flatnonzero(np.append(np.diff(best[order]) < 0, True))  # clips of one score are answered together
    return {
        "below": best[order][last].astype(np.float64),
        "coverage": (last + 1) / len(best),
        "risk": wrong[last] / np.maximum(given[last], 1),
    }


def points(curve: Mapping[str, Floats], most: int = 41) -> list[dict[str, float]]:
    """A curve thinned to what a picture shows."""
    n = len(curve["below"])
    rows = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
    return [{name: float(values[k]) for name, values in curve.items()} for k in rows]


def _binned(said: Floats, came_true: Bools, bins: int) -> tuple[Floats, Floats, Floats]:
    """n, mean probability and share that came true, each [B]."""
    place = places(said, bins)
    n, total, hits = (
        np.bincount(place, weights, minlength=bins) for weights in (None, said.astype(np.float64), came_true)
    )
    return n.astype(np.float64), total / np.maximum(n, 1), hits / np.maximum(n, 1)
