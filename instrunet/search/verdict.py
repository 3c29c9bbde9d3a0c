"""What a study has shown: who is best on validation, by how much, and what that is worth on clips never looked at.

Shapes: C clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from instrunet.bundle import Bundle
from instrunet.features import shards
from instrunet.features.featurizer import FrontEnd
from instrunet.features.shards import Features
from instrunet.metrics import intervals
from instrunet.metrics.intervals import Interval, Judged
from instrunet.models import n_parameters
from instrunet.scoring import MAIN, judge, score
from instrunet.search.run import Run


@dataclass(frozen=True)
class Heard:
    """What a trial's bundle says of the clips of one split, in the order of their names."""

    judged: Judged
    clip_ids: tuple[str, ...]
    kind: str
    n_labels: int
    n_parameters: int

    def figure(self, name: str) -> float:
        return intervals.figures(self.judged, self.n_labels)[name]

    def interval(self, name: str) -> list[float] | None:
        return limits(intervals.of(self.judged, self.n_labels)[name])


def hear(run: Run, split: str) -> Heard | None:
    """None where the data has no clips of the split."""
    assert run.bundle, "a trial that failed has no bundle"
    bundle = Bundle.load(run.bundle)
    held = _clips(run.features, bundle.spec.front, split)
    if not len(held):
        return None
    scored = score(bundle, held)
    judged = judge(bundle, scored).judged
    order = np.argsort(scored.clips["clip_id"].to_numpy(str), kind="stable")
    names = tuple(scored.clips["clip_id"].iloc[order])
    sorted_ = Judged(judged.y_true[order], judged.y_pred[order], [judged.groups[k] for k in order])
    return Heard(sorted_, names, bundle.spec.kind, len(bundle.spec.labels), n_parameters(bundle.network))


def figure_of(metric: str, kind: str) -> str:
    """The figure that has intervals: the one that is searched by, or else the main one of the task."""
    name = metric.removeprefix("val_")
    return name if name in (intervals.SINGLE if kind == "single" else intervals.MULTI) else MAIN[kind]


def behind(best: Heard, other: Heard, figure: str) -> tuple[float, Interval]:
    """How much worse `other` is than the best, on the same draws of the groups of clips that both have scored."""
    common = sorted(set(best.clip_ids) & set(other.clip_ids))
    a, b = (_of(heard, common) for heard in (other, best))
    return intervals.paired(a, b, best.n_labels)[figure]


def optimism(validation: Heard, test: Heard, figure: str) -> dict[str, Any]:
    """By how much the figure that the choice was made by is higher than that of clips which had no part in it."""
    gap, interval = intervals.between(validation.judged, test.judged, test.n_labels)[figure]
    return {"value": gap, "interval": limits(interval)}


def limits(interval: Interval) -> list[float] | None:
    """Of one group nothing can be said."""
    return [interval.low, interval.high] if interval.n_groups >= intervals.FEWEST_GROUPS else None


def importance(told: Sequence[Mapping[str, Any]], scores: Sequence[float], seed: int = 0) -> dict[str, float]:
    """The share of each field in what a random forest knows of the scores: how much worse it is with the field's values
    shuffled among the trials. Nothing of fewer than 4 trials or of equal scores: there is nothing to learn."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    names = sorted({name for one in told for name in one})
    names = [name for name in names if len({repr(one.get(name)) for one in told}) > 1]
    if len(told) < 4 or not names or np.ptp(scores) == 0:
        return {}
    table = np.stack([_codes([one.get(name) for one in told]) for name in names], axis=1)
    forest = RandomForestRegressor(200, random_state=seed).fit(table, scores)
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=seed).importances_mean
    found = np.maximum(found, 0)
    shares = found / found.sum() if found.sum() else found
    return dict(sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1]))


def _codes(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as they are, -1 below the lowest where a trial has none; all else by its place in order."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == sum(v is not None for v in values):
        return np.array([min(numbers) - 1 if v is None else v for v in values], float)
    order = sorted({repr(v) for v in values})
    return np.array([order.index(repr(v)) for v in values], float)


@lru_cache(maxsize=2)  # of one split: trials share features
def _clips(folder: Path, front: FrontEnd, split: str) -> Features:
    return shards.load(folder, front, split)


def _of(heard: Heard, names: Sequence[str]) -> Judged:
    place = {name: k for k, name in enumerate(heard.clip_ids)}
    rows = np.array([place[name] for name in names])
    judged = heard.judged
    return Judged(judged.y_true[rows], judged.y_pred[rows], [judged.groups[k] for k in rows])
