"""Intervals by bootstrap over groups: recordings or speakers are drawn anew, never the clips within one.

Clips of one recording stand or fall together, so drawing clips makes an interval too narrow. Every figure here is a
function of counts that add up over groups, so 2,000 draws are one product of matrices. bootstrap.py has those of all
other figures.
Shapes: N clips, K labels, G groups, R draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import DataError

Array = NDArray[np.float64]
Figures = Mapping[str, Callable[[Array], Array]]  # counts [R, 3, K] to a figure [R]
DRAWS, LEVEL = 2000, 0.95
FEWEST_GROUPS = 2


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the draws; of one group nothing can be said, and it is all of 0 to 1."""

    low: float
    high: float
    n_groups: int


@dataclass(frozen=True)
class Draws:
    """Whose each clip is, as a number [N], and how often each group stands in each draw [R, G]."""

    number: NDArray[np.int64]
    times: Array

    @property
    def n_groups(self) -> int:
        return int(self.times.shape[1])

    def per_group(self, values: NDArray[Any]) -> Array:
        """Of clips [N, ...] summed to [G, ...]."""
        if len(values) != len(self.number):
            raise DataError(
                f"expected a group for each clip, got {len(self.number)} for {len(values)} clips; pass the same clips"
            )
        columns = np.asarray(values, np.float64).reshape(len(values), -1).T
        summed = [np.bincount(self.number, column, minlength=self.n_groups) for column in columns]
        return np.stack(summed, axis=1, dtype=np.float64).reshape(self.n_groups, *values.shape[1:])

    def sums(self, values: NDArray[Any]) -> Array:
        """Of clips [N, ...] summed over each draw [R, ...]."""
        return self.of_groups(self.per_group(values))

    def of_groups(self, summed: Array) -> Array:
        """Of groups [G, ...] summed over each draw [R, ...]."""
        return (self.times @ summed.reshape(self.n_groups, -1)).reshape(len(self.times), *summed.shape[1:])


def draws(groups: Sequence[str], seed: int = 0, n: int = DRAWS) -> Draws:
    """The same of the same groups, so that all figures of some clips are judged on the same draws."""
    return _draws(tuple(groups), seed, n)


@lru_cache(maxsize=2)  # of 5,000 groups they take a second
def _draws(groups: tuple[str, ...], seed: int, n: int) -> Draws:
    return _drawn(groups, np.random.default_rng(seed), n)


def _drawn(groups: Sequence[str], rng: np.random.Generator, n: int = DRAWS) -> Draws:
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    return Draws(number, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n).astype(np.float64))


@dataclass(frozen=True)
class Judged:
    """What is true of the clips and what was said of them, as label indices [N] or as yes and no [N, K]; and whose
    they are: what is drawn."""

    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    groups: Sequence[str]


def of(judged: Judged, n_labels: int, seed: int = 0) -> dict[str, Interval]:
    """Of accuracy, balanced accuracy and macro F1; of micro and macro F1 where the truth is [N, K]."""
    return _of(counts(judged, n_labels), judged.groups, kind_of(judged), seed)


def figures(judged: Judged, n_labels: int) -> dict[str, float]:
    """What the intervals are of."""
    whole = counts(judged, n_labels).sum(0, keepdims=True)
    return {name: float(figure(whole)[0]) for name, figure in kind_of(judged).items()}


def paired(a: Judged, b: Judged, n_labels: int, seed: int = 0) -> dict[str, tuple[float, Interval]]:
    """How much better `b` is than `a` on the same clips, in the same order: both are judged on the same draws.

    Of one group nothing can be said, and the interval is -1 to 1.
    """
    pair = np.stack([counts(judged, n_labels) for judged in (a, b)], axis=1)  # [N, 2, 3, K]
    gaps = {name: _gap(figure) for name, figure in kind_of(a).items()}
    whole, found = pair.sum(0, keepdims=True), _of(pair, a.groups, gaps, seed)
    alone = next(iter(found.values())).n_groups < FEWEST_GROUPS
    intervals = {name: Interval(-1.0, 1.0, i.n_groups) if alone else i for name, i in found.items()}
    return {name: (float(gap(whole)[0]), intervals[name]) for name, gap in gaps.items()}


def between(a: Judged, b: Judged, n_labels: int, seed: int = 0) -> dict[str, tuple[float, Interval]]:
    """How much higher the figures of `a` are than those of `b`, which are other clips: each is drawn by itself.

    The interval is that of the differences of the draws: -1 to 1 where one of the two has one group only.
    """
    ours = [counts(judged, n_labels) for judged in (a, b)]
    rngs = np.random.default_rng(seed).spawn(2)  # one seed for both would draw them together
    drawn = [_drawn(judged.groups, rng) for judged, rng in zip((a, b), rngs, strict=True)]
    fewest = min(one.n_groups for one in drawn)
    summed = [one.sums(n) for one, n in zip(drawn, ours, strict=True)]
    found = {}
    for name, figure in kind_of(a).items():
        first, second = (float(figure(n.sum(0, keepdims=True))[0]) for n in ours)
        gaps = figure(summed[0]) - figure(summed[1])
        found[name] = first - second, middle(gaps, fewest) if fewest >= FEWEST_GROUPS else Interval(-1, 1, fewest)
    return found


def kind_of(judged: Judged) -> Figures:
    return SINGLE if judged.y_true.ndim == 1 else MULTI


def counts(judged: Judged, n_labels: int) -> Array:
    """[N, 3, K]: hits, true labels, predicted labels."""
    true, found = judged.y_true, judged.y_pred
    if true.ndim == 1:
        one_hot = np.eye(n_labels, dtype=bool)
        true, found = one_hot[true], one_hot[found]
    return np.stack([true & found, true, found], axis=1).astype(np.float64)


def middle(drawn: Array, n_groups: int) -> Interval:
    """Of figures [R]; draws that have none (NaN) do not count."""
    low, high = np.nanpercentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Interval(float(low), float(high), n_groups)


def _gap(figure: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda counts: figure(counts[:, 1]) - figure(counts[:, 0])


def _of(values: Array, groups: Sequence[str], figures: Figures, seed: int) -> dict[str, Interval]:
    drawn = draws(groups, seed)
    per_group = drawn.per_group(values)
    if drawn.n_groups < FEWEST_GROUPS:
        return {name: Interval(0.0, 1.0, drawn.n_groups) for name in figures}
    summed = drawn.of_groups(per_group)
    return {name: middle(figure(summed), drawn.n_groups) for name, figure in figures.items()}


def accuracy(counted: Array) -> Array:
    share: Array = counted[:, 0].sum(1) / counted[:, 1].sum(1)
    return share


def balanced(counted: Array) -> Array:
    """Mean recall over the classes that the draw holds."""
    hits, true, _ = np.moveaxis(counted, 1, 0)
    return _mean_where(hits, true, true > 0)


def micro_f1(counted: Array) -> Array:
    hits, true, found = np.moveaxis(counted.sum(2), 1, 0)
    f1: Array = 2 * hits / np.maximum(true + found, 1)
    return f1


def macro_f1(counted: Array) -> Array:
    """Over the classes that the draw holds."""
    hits, true, found = np.moveaxis(counted, 1, 0)
    return _mean_where(2 * hits, true + found, true > 0)


def _mean_where(top: Array, bottom: Array, there: NDArray[np.bool_]) -> Array:
    mean: Array = np.where(there, top / np.maximum(bottom, 1), 0.0).sum(1) / np.maximum(there.sum(1), 1)
    return mean


SINGLE: Figures = {"accuracy": accuracy, "balanced_accuracy": balanced, "macro_f1": macro_f1}
MULTI: Figures = {"micro_f1": micro_f1, "macro_f1": macro_f1}
