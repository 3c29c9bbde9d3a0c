"""Intervals of every figure of single.py, multi.py and calibration.py, by the draws of intervals.py.

A figure is drawn anew from what adds up over clips (counts, squares, sums of bins), or, of rankings, from sorted
weights: the same numbers as of resampled copies of the clips, without making them.
Shapes: N clips, K labels, R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from instrunet.metrics import calibration, multi, ranking, single
from instrunet.metrics.intervals import FEWEST_GROUPS, Draws, accuracy, balanced, draws, macro_f1, micro_f1, middle
from instrunet.metrics.single import Floats

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Said:
    """What is true of clips and what was said of them, all [N, K]; `answered` [N] where some get no answer."""

    kind: Literal["single", "multi"]
    truth: Bools
    scores: Floats
    chosen: Bools
    groups: Sequence[str]
    chances: bool = True  # whether the scores are meant as probabilities
    answered: Bools | None = None


def intervals(said: Said, labels: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """{figure: [low, high]}, with those of each class as `per_class`; empty where there is one group.

    A class has them where clips of two groups have it.
    """
    ours = draws(said.groups, seed)
    if ours.n_groups < FEWEST_GROUPS:
        return {}
    whole, of_classes = drawn(said, ours)
    several = (ours.per_group(said.truth) > 0).sum(0) >= FEWEST_GROUPS
    per_class = {
        label: _limits({name: one[:, k] for name, one in of_classes.items()}) if several[k] else {}
        for k, label in enumerate(labels)
    }
    return _limits(whole) | {"per_class": per_class}


def of_belief(said: Said, seed: int = 0) -> dict[str, list[float]]:
    """Those of ECE and Brier alone."""
    ours = draws(said.groups, seed)
    return _limits(_belief(said, ours)) if ours.n_groups >= FEWEST_GROUPS else {}


def drawn(said: Said, ours: Draws) -> tuple[dict[str, Array], dict[str, Array]]:
    """Figures [R], and those of classes [R, K]; NaN where a draw has no such figure."""
    counts = ours.sums(np.stack([said.truth & said.chosen, said.truth, said.chosen], axis=1))
    of_classes = _of_classes(counts)
    found = {"micro_f1": micro_f1(counts), "macro_f1": macro_f1(counts), "weighted_f1": _weighted_f1(counts)}
    if said.kind == "single":
        found |= _of_single(said, counts, ours)
    else:
        precisions, areas = ranking.drawn(said.truth, said.scores, ours)
        of_classes |= {"average_precision": precisions, "roc_auc": areas}
        found |= _of_multi(said, ours) | {"map": _mean_of_known(precisions), "roc_auc": _mean_of_known(areas)}
    if said.chances and calibration.are_probabilities(said.scores, said.kind):
        found |= _belief(said, ours)
    if said.answered is not None:
        found |= _answers(said, said.answered, ours)
    return found, of_classes


def _of_single(said: Said, counts: Array, ours: Draws) -> dict[str, Array]:
    y_true, right, found = said.truth.argmax(1), accuracy(counts), balanced(counts)
    tops = [k for k in single.TOPS if k < said.scores.shape[1]]
    losses = single.log_losses(y_true, said.scores)
    return {
        "accuracy": right,
        "micro_f1": right,
        "balanced_accuracy": found,
        "uar": found,
        "mcc": _mcc(counts),
        **{f"top{k}": mean(single.among_best(y_true, said.scores, k), ours) for k in tops},
        **({} if losses is None else {"log_loss": mean(losses, ours)}),
    }


def _of_multi(said: Said, ours: Draws) -> dict[str, Array]:
    tops = [k for k in multi.TOPS if k == 1 or k < said.scores.shape[1]]
    labelled = np.maximum(ours.sums(np.asarray(said.truth.any(1))), 1)
    return {
        "samples_f1": mean(multi.f1_of_clips(said.truth, said.chosen), ours),
        "lrap": mean(multi.lrap_of_clips(said.truth, said.scores), ours),
        "hamming": mean((said.truth != said.chosen).mean(1), ours),
        **{f"top{k}_hit": ours.sums(multi.among_best(said.truth, said.scores, k)) / labelled for k in tops},
    }


def _belief(said: Said, ours: Draws) -> dict[str, Array]:
    probabilities, came_true = calibration.decisions(said.truth, said.scores, said.kind)
    group = ours.number.repeat(len(probabilities) // len(said.truth))
    place = group * calibration.BINS + calibration.places(probabilities)
    shape = ours.n_groups, calibration.BINS
    too_much = np.bincount(place, probabilities - came_true, minlength=shape[0] * shape[1]).reshape(shape)
    missed = abs(ours.of_groups(np.asarray(too_much, np.float64))).sum(1)
    return {
        "ece": missed / ours.sums(np.full(len(said.truth), len(probabilities) / len(said.truth))),
        "brier": mean(calibration.squares(said.truth, said.scores, said.kind), ours),
    }


def _answers(said: Said, answered: Bools, ours: Draws) -> dict[str, Array]:
    given = said.chosen & answered[:, None]
    wrong, labels = ours.sums((given & ~said.truth).sum(1)), ours.sums(given.sum(1))
    return {"coverage": mean(answered, ours), "risk": wrong / np.maximum(labels, 1)}


def _of_classes(counts: Array) -> dict[str, Array]:
    hits, true, found = np.moveaxis(counts, 1, 0)
    here = np.where(true > 0, 1.0, np.nan)  # a draw without the class says nothing of it
    return {
        "precision": here * hits / np.maximum(found, 1),
        "recall": here * hits / np.maximum(true, 1),
        "f1": here * 2 * hits / np.maximum(true + found, 1),
    }


def _weighted_f1(counts: Array) -> Array:
    hits, true, found = np.moveaxis(counts, 1, 0)
    total: Array = (true * 2 * hits / np.maximum(true + found, 1)).sum(1) / np.maximum(true.sum(1), 1)
    return total


def _mcc(counts: Array) -> Array:
    """From sums alone (Gorodkin, 2004); 0 where it is undefined."""
    hits, true, found = np.moveaxis(counts, 1, 0)
    n = true.sum(1)
    top = hits.sum(1) * n - (true * found).sum(1)
    below = np.sqrt((n**2 - (found**2).sum(1)) * (n**2 - (true**2).sum(1)))
    return np.asarray(np.divide(top, below, out=np.zeros_like(top), where=below > 0))


def mean(values: NDArray[Any], ours: Draws) -> Array:
    """Of clips [N] over the clips of each draw [R]."""
    found: Array = ours.sums(values) / ours.sums(np.ones(len(values)))
    return found


def _mean_of_known(values: Array) -> Array:
    """[R, K] to [R]."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # none is known: NaN
        found: Array = np.where(known, values, 0).sum(1) / known.sum(1)
    return found


def _limits(figures: Mapping[str, Array]) -> dict[str, list[float]]:
    """[low, high] of those that some draw has."""
    found = {name: middle(one, 0) for name, one in figures.items() if not np.isnan(one).all()}
    return {name: [one.low, one.high] for name, one in found.items()}
