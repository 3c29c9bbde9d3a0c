"""Intervals by bootstrap over groups: recordings or speakers are drawn anew, never the clips within one.

Clips of one recording stand or fall together, so drawing clips makes an interval too narrow. Every figure here is a
function of counts that add up over groups, so 2,000 draws are one product of matrices.
Shapes: N clips, K labels, G groups, R draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import DataError
from instrunet.metrics.single import Ints

Array = NDArray[np.float64]
Figures = Mapping[str, Callable[[Array], Array]]  # counts [R, ...] to a figure [R]
DRAWS, LEVEL = 2000, 0.95
FEWEST_GROUPS = 2


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the draws; of one group nothing can be said, and it is all of 0 to 1."""

    low: float
    high: float
    n_groups: int


def of_single(y_true: Ints, y_pred: Ints, groups: Sequence[str], n_labels: int, seed: int = 0) -> dict[str, Interval]:
    """Intervals of accuracy, balanced accuracy and macro F1."""
    return _of(_confusions(y_true, y_pred, n_labels), groups, SINGLE, seed)


def of_multi(
    y_true: NDArray[np.bool_], y_pred: NDArray[np.bool_], groups: Sequence[str], seed: int = 0
) -> dict[str, Interval]:
    """Intervals of micro and macro F1."""
    return _of(_hits(y_true, y_pred), groups, MULTI, seed)


@dataclass(frozen=True)
class Judged:
    """What is true of the clips and what was said of them, as label indices [N] or as yes and no [N, K]; and whose
    they are: what is drawn."""

    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    groups: Sequence[str]


def of(judged: Judged, n_labels: int, seed: int = 0) -> dict[str, Interval]:
    """What `of_single` or `of_multi` says, by the shape of the truth."""
    return _of(_counts(judged, n_labels), judged.groups, SINGLE if judged.y_true.ndim == 1 else MULTI, seed)


def figures(judged: Judged, n_labels: int) -> dict[str, float]:
    """What the intervals are of."""
    whole = _counts(judged, n_labels).sum(0, keepdims=True)
    of_kind = SINGLE if judged.y_true.ndim == 1 else MULTI
    return {name: float(figure(whole)[0]) for name, figure in of_kind.items()}


def paired(a: Judged, b: Judged, n_labels: int, seed: int = 0) -> dict[str, tuple[float, Interval]]:
    """How much better `b` is than `a` on the same clips, in the same order: both are judged on the same draws.

    Of one group nothing can be said, and the interval is -1 to 1.
    """
    pair = np.stack([_counts(judged, n_labels) for judged in (a, b)], axis=1)  # [N, 2, ...]
    gaps = {name: _gap(figure) for name, figure in (SINGLE if a.y_true.ndim == 1 else MULTI).items()}
    whole, found = pair.sum(0, keepdims=True), _of(pair, a.groups, gaps, seed)
    alone = next(iter(found.values())).n_groups < FEWEST_GROUPS
    intervals = {name: Interval(-1.0, 1.0, i.n_groups) if alone else i for name, i in found.items()}
    return {name: (float(gap(whole)[0]), intervals[name]) for name, gap in gaps.items()}


def between(a: Judged, b: Judged, n_labels: int, seed: int = 0) -> dict[str, tuple[float, Interval]]:
    """How much higher the figures of `a` are than those of `b`, which are other clips: each is drawn by itself.

    The interval is that of the differences of the draws: -1 to 1 where one of the two has one group only.
    """
    figures = SINGLE if a.y_true.ndim == 1 else MULTI
    counts = [_counts(judged, n_labels) for judged in (a, b)]
    groups = [_per_group(n, judged.groups) for n, judged in zip(counts, (a, b), strict=True)]
    rngs = np.random.default_rng(seed).spawn(2)  # one seed for both would draw them together
    fewest = min(len(one) for one in groups)
    drawn = [_draws(one, rng) for one, rng in zip(groups, rngs, strict=True)]
    found = {}
    for name, figure in figures.items():
        first, second = (float(figure(n.sum(0, keepdims=True))[0]) for n in counts)
        gaps = figure(drawn[0]) - figure(drawn[1])
        found[name] = first - second, _middle(gaps, fewest) if fewest >= FEWEST_GROUPS else Interval(-1, 1, fewest)
    return found


def _counts(judged: Judged, n_labels: int) -> Array:
    if judged.y_true.ndim == 1:
        return _confusions(judged.y_true, judged.y_pred, n_labels)
    return _hits(judged.y_true, judged.y_pred)


def _gap(figure: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda counts: figure(counts[:, 1]) - figure(counts[:, 0])


def _of(counts: Array, groups: Sequence[str], figures: Figures, seed: int) -> dict[str, Interval]:
    per_group = _per_group(counts, groups)
    n = len(per_group)
    if n < FEWEST_GROUPS:
        return {name: Interval(0.0, 1.0, n) for name in figures}
    drawn = _draws(per_group, np.random.default_rng(seed))
    return {name: _middle(figure(drawn), n) for name, figure in figures.items()}


def _per_group(counts: Array, groups: Sequence[str]) -> Array:
    """Counts [N, ...] summed to [G, ...]."""
    if len(counts) != len(groups):
        raise DataError(
            f"expected a group for each clip, got {len(groups)} for {len(counts)} clips; pass the same clips"
        )
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    summed = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(summed, number, counts)
    return summed


def _middle(drawn: Array, n_groups: int) -> Interval:
    low, high = np.nanpercentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Interval(float(low), float(high), n_groups)


def _draws(per_group: Array, rng: np.random.Generator) -> Array:
    n = len(per_group)
    times = rng.multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float64)  # how often each group was drawn [R, G]
    return (times @ per_group.reshape(n, -1)).reshape(DRAWS, *per_group.shape[1:])


def _confusions(y_true: Ints, y_pred: Ints, n_labels: int) -> Array:
    one_hot = np.eye(n_labels)
    return one_hot[y_true][:, :, None] * one_hot[y_pred][:, None, :]  # [N, K, K]


def _hits(y_true: NDArray[np.bool_], y_pred: NDArray[np.bool_]) -> Array:
    """[N, 3, K]: hits, true labels, predicted labels."""
    return np.stack([y_true & y_pred, y_true, y_pred], axis=1).astype(np.float64)


def _accuracy(counts: Array) -> Array:
    share: Array = np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))
    return share


def _balanced(counts: Array) -> Array:
    """Mean recall over the classes that the draw holds."""
    return _mean_where(np.diagonal(counts, axis1=1, axis2=2), counts.sum(2), counts.sum(2) > 0)


def _macro_f1(counts: Array) -> Array:
    hits, true = np.diagonal(counts, axis1=1, axis2=2), counts.sum(2)
    return _mean_where(2 * hits, true + counts.sum(1), true > 0)


def _micro_f1_multi(counts: Array) -> Array:
    hits, true, found = np.moveaxis(counts.sum(2), 1, 0)
    f1: Array = 2 * hits / np.maximum(true + found, 1)
    return f1


def _macro_f1_multi(counts: Array) -> Array:
    hits, true, found = np.moveaxis(counts, 1, 0)
    return _mean_where(2 * hits, true + found, true > 0)


def _mean_where(top: Array, bottom: Array, there: NDArray[np.bool_]) -> Array:
    mean: Array = np.where(there, top / np.maximum(bottom, 1), 0.0).sum(1) / np.maximum(there.sum(1), 1)
    return mean


SINGLE: Figures = {"accuracy": _accuracy, "balanced_accuracy": _balanced, "macro_f1": _macro_f1}
MULTI: Figures = {"micro_f1": _micro_f1_multi, "macro_f1": _macro_f1_multi}
