"""How bundles are heard together: soft voting, weights, greedy selection, stacking; fitted where no weights were.

Shapes: M members, W windows, C clips, K labels.

* Probabilities of windows are averaged over a clip, and mixing is linear: weights that are fitted on clips are those of
  the windows, too. Stacking is not, and is fitted on windows, each with the labels of its clip.
* Greedy selection is Caruana's (2004): members are added one by one, again and again, each time the one that helps most
  on the main figure, the log loss deciding between equals; how often each was taken is its weight.
* Which way is best is said by clips whose groups the fit had not seen: K folds over the groups of the validation split.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from instrunet.errors import ConfigError, DataError
from instrunet.metrics import intervals
from instrunet.metrics.intervals import Judged
from instrunet.scoring import MAIN

Array = NDArray[np.float64]
ROUNDS, FOLDS, EPSILON = 50, 5, 1e-7
STRENGTHS = (0.001, 0.03, 1.0)  # of the penalty's inverse in stacking
STEPS = 100  # of a logistic regression; on figures of one scale it is there by then, or near enough


@dataclass(frozen=True)
class Voices:
    """What the members say: logits [M, W, K] over their temperatures, the clip of each window [W]; truth [C, K]."""

    kind: Literal["single", "multi"]
    logits: Array
    clip: NDArray[np.int64]
    truth: NDArray[np.bool_]
    groups: Sequence[str]

    @property
    def chances(self) -> Array:
        """[M, C, K]"""
        return np.stack([mean_of(self, one) for one in activated(self.logits, self.kind)])

    def of(self, clips: NDArray[np.int64]) -> "Voices":
        place = np.full(len(self.truth), -1)
        place[clips] = np.arange(len(clips))
        rows = place[self.clip] >= 0
        groups = [self.groups[k] for k in clips]
        return Voices(self.kind, self.logits[:, rows], place[self.clip[rows]], self.truth[clips], groups)


@dataclass(frozen=True)
class Mix:
    """`weights` [M] of probabilities, or a linear layer: [K, M K] and [K]."""

    weights: Array | None = None
    matrix: Array | None = None
    bias: Array | None = None

    def scores(self, voices: Voices) -> Array:
        """[C, K]"""
        if self.weights is not None:
            mixed: Array = np.tensordot(self.weights / self.weights.sum(), voices.chances, 1)
            return mixed
        assert self.matrix is not None and self.bias is not None, "a mix without weights is stacked"
        return mean_of(voices, activated(read(voices) @ self.matrix.T + self.bias, voices.kind))


def soft(voices: Voices) -> Mix:
    return Mix(np.full(len(voices.logits), 1 / len(voices.logits)))


def weighted(voices: Voices) -> Mix:
    """The weights under which the log loss of clips is least."""
    chances = voices.chances

    def loss(free: Array) -> float:
        return log_loss(np.tensordot(softmax(free), chances, 1), voices)

    found = minimize(loss, np.zeros(len(chances)), method="L-BFGS-B", bounds=[(-8, 8)] * len(chances))
    return Mix(softmax(found.x))


def greedy(voices: Voices) -> Mix:
    chances = voices.chances
    total, taken = np.zeros_like(chances[0]), np.zeros(len(chances))
    best, best_taken = (-np.inf, -np.inf), taken
    for n in range(1, ROUNDS + 1):
        ranks = [_rank((total + one) / n, voices) for one in chances]
        k = max(range(len(chances)), key=lambda k: ranks[k])
        total, taken = total + chances[k], taken + np.eye(len(chances))[k]
        if ranks[k] > best:
            best, best_taken = ranks[k], taken
    return Mix(best_taken / best_taken.sum())


def stacking(voices: Voices) -> Mix:
    """Logistic regression over all members' log-probabilities; its penalty is the best on groups left out."""
    found = {strength: _stacked(voices, strength) for strength in STRENGTHS}
    if len(set(voices.groups)) < 2:
        return found[STRENGTHS[0]]
    losses = {s: log_loss(_out_of_fold(voices, lambda v, s=s: _stacked(v, s)), voices) for s in STRENGTHS}  # type: ignore[misc]
    return found[min(losses, key=lambda s: losses[s])]


METHODS: dict[str, Callable[[Voices], Mix]] = {
    "soft": soft,
    "weighted": weighted,
    "greedy": greedy,
    "stacking": stacking,
}


def out_of_fold(voices: Voices, method: str) -> float:
    """The main figure of a way, each clip scored by what was fitted without its group."""
    return figure(_out_of_fold(voices, METHODS[method]), voices)


def asked(method: str) -> tuple[str, ...]:
    """The ways to try; `best` is all of them."""
    if method != "best" and method not in METHODS:
        raise ConfigError(f"unknown --method {method}; expected best, {', '.join(METHODS)}")
    return tuple(METHODS) if method == "best" else (method,)


def figure(scores: Array, voices: Voices) -> float:
    """Balanced accuracy, or macro F1 at 0.5: thresholds are found behind it, by calibration."""
    if voices.kind == "single":
        judged = Judged(voices.truth.argmax(1), scores.argmax(1), voices.groups)
    else:
        judged = Judged(voices.truth, scores >= 0.5, voices.groups)
    return intervals.figures(judged, scores.shape[1])[MAIN[voices.kind]]


def log_loss(scores: Array, voices: Voices) -> float:
    chance = np.clip(scores, EPSILON, 1 - EPSILON)
    if voices.kind == "single":
        return float(-np.log(chance)[voices.truth].mean())
    return float(-np.where(voices.truth, np.log(chance), np.log1p(-chance)).mean())


def activated(logits: Array, kind: str) -> Array:
    found: Array = softmax(logits, axis=-1) if kind == "single" else expit(logits)
    return found


def read(voices: Voices) -> Array:
    """[W, M K], what is stacked: the same as in models/combined.py."""
    logits = voices.logits.swapaxes(0, 1)
    return (log_softmax(logits, axis=2) if voices.kind == "single" else logits).reshape(len(logits), -1)


def mean_of(voices: Voices, windows: Array) -> Array:
    """[W, K] to the mean of each clip [C, K]."""
    summed = np.zeros((len(voices.truth), windows.shape[1]))
    np.add.at(summed, voices.clip, windows)
    return np.asarray(summed / np.bincount(voices.clip, minlength=len(voices.truth))[:, None])


def _rank(scores: Array, voices: Voices) -> tuple[float, float]:
    return figure(scores, voices), -log_loss(scores, voices)


def _out_of_fold(voices: Voices, fit: Callable[[Voices], Mix]) -> Array:
    """[C, K]; groups are dealt in the order of their names."""
    names = sorted(set(voices.groups))
    if len(names) < 2:
        raise DataError("expected clips of two groups at least to judge an ensemble by, got one; add recordings")
    fold_of = {name: k % min(FOLDS, len(names)) for k, name in enumerate(names)}
    fold = np.array([fold_of[group] for group in voices.groups])
    scores = np.zeros(voices.truth.shape)
    for k in np.unique(fold):
        rest, mine = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        scores[mine] = fit(voices.of(rest)).scores(voices.of(mine))
    return scores


def _stacked(voices: Voices, strength: float) -> Mix:
    table, truth = read(voices), voices.truth[voices.clip]
    n, width = truth.shape[1], table.shape[1]
    centre, scale = table.mean(0), max(float(table.std()), EPSILON)  # one scale for all: members keep their balance
    matrix, bias = np.zeros((n, width)), np.full(n, -20.0)  # a label without a clip is never said
    if voices.kind == "single":
        there = np.flatnonzero(truth.any(0))
        if len(there) < 2:
            return soft(voices)
        fitted = _fitted((table - centre) / scale, truth.argmax(1), strength)
        two = len(there) == 2  # scikit-learn then has one row, of the second
        matrix[there] = np.vstack([-fitted.coef_ / 2, fitted.coef_ / 2]) if two else fitted.coef_
        bias[there] = np.hstack([-fitted.intercept_ / 2, fitted.intercept_ / 2]) if two else fitted.intercept_
        matrix /= scale
        bias[there] -= matrix[there] @ centre
        return Mix(matrix=matrix, bias=bias)
    for k in range(n):
        if truth[:, k].all() or not truth[:, k].any():
            bias[k] = 20.0 if truth[:, k].all() else -20.0
            continue
        own = slice(k, None, n)  # what each member says of this label
        fitted = _fitted((table[:, own] - centre[own]) / scale, truth[:, k], strength)
        matrix[k, own] = fitted.coef_[0] / scale
        bias[k] = fitted.intercept_[0] - matrix[k, own] @ centre[own]
    return Mix(matrix=matrix, bias=bias)


def _fitted(table: Array, truth: NDArray[Any], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=STEPS).fit(table, truth)
