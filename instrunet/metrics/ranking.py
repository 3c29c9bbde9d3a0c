"""Average precision and ROC-AUC of clips that count more than once: what a bootstrap needs of a ranking.

A draw of groups gives each clip a weight, and the order of the scores is the same in all draws. So a label is sorted
once, and each draw is one pass over sums of weights, where copies of the clips would have to be sorted 2,000 times.
Shapes: N clips, K labels, G groups, R draws, S scores that some clip with the label has.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from instrunet.metrics.intervals import Draws
from instrunet.metrics.single import Floats

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
LARGEST = 2_000_000  # numbers [S, R] at once: 16 MB


def drawn(y_true: Bools, scores: Floats, draws: Draws) -> tuple[Array, Array]:
    """Average precisions [R, K] and areas [R, K]; NaN where a draw has no such figure, see multi.py."""
    pairs = [_of_label(true, score, draws) for true, score in zip(y_true.T, scores.T, strict=True)]
    return np.stack([p for p, _ in pairs], axis=1), np.stack([a for _, a in pairs], axis=1)


def _of_label(true: Bools, score: Floats, draws: Draws) -> tuple[Array, Array]:
    n_draws = len(draws.times)
    if not true.any():
        return np.full(n_draws, np.nan), np.full(n_draws, np.nan)
    sums = _sums(true, score, draws)
    others = draws.per_group(~true)
    blocks = np.array_split(draws.times, max(1, sums[0].shape[0] * n_draws // LARGEST))
    pairs = [_of_draws(sums, others, np.ascontiguousarray(times.T)) for times in blocks]
    return np.concatenate([p for p, _ in pairs]), np.concatenate([a for _, a in pairs])


def _sums(true: Bools, score: Floats, draws: Draws) -> tuple[csr_array, csr_array, csr_array]:
    """By score that a clip with the label has, highest first, and group [S, G]: clips with the label, clips without it
    of the same score, and clips without it that rank between this score and the one before."""
    order = np.argsort(-score, kind="stable")
    true, group = true[order], draws.number[order]
    level = np.append(0, np.cumsum(np.diff(score[order]) != 0))  # equal scores are one
    held = np.unique(level[true])
    place = np.searchsorted(held, level)  # what ranks below all of them is in none
    tied = held[np.minimum(place, len(held) - 1)] == level

    def counted(rows: Bools) -> csr_array:
        where = (place[rows], group[rows])
        return csr_array((np.ones(len(where[0])), where), shape=(len(held), draws.n_groups))

    return counted(true), counted(~true & tied), counted(~true & ~tied & (place < len(held)))


def _of_draws(sums: tuple[csr_array, csr_array, csr_array], others: Array, times: Array) -> tuple[Array, Array]:
    """Of times [G, R]: the step-wise sum of precisions, and the share of pairs in order, a draw counted half."""
    hits, tied, above = (one @ times for one in sums)  # [S, R]
    so_far, wrong = hits.cumsum(0), (tied + above).cumsum(0)
    n_true, n_others = so_far[-1], others @ times
    precise = (hits * so_far / np.maximum(so_far + wrong, 1)).sum(0)
    crossed = (hits * (wrong - tied / 2)).sum(0)
    with np.errstate(invalid="ignore"):  # 0 of 0 is NaN: no such figure
        return precise / n_true, 1 - crossed / (n_true * n_others)
