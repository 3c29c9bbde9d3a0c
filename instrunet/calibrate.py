"""Decisions fitted on clips that no weights were fitted on: a temperature or curves, thresholds, a limit for answers.

Shapes: N windows, C clips, K labels.

Conventions, and how others differ:

* The temperature divides the logits of windows; it is the one under which the log loss of *clips* is least, as these
  are what is decided on (Guo et al., 2017, have one logit a clip).
* As with Platt (1999), n clips without a mistake do not prove that there will be none: the temperature's targets are
  1 - 1 / (n + 2) instead of 1, and a curve stays 1 / (n + 2) away from 0 and 1.
* A threshold lies halfway between two scores that were seen. `f1` takes the best F1 (of equal ones the threshold
  nearest to 0.5), `precision=p` the lowest threshold with that precision, `recall=r` the highest with that recall.
* A risk is the share of the labels given that were wrong, on these clips: on others it may come out higher.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression

from instrunet.decisions import NEVER, Curve, Kind, Measured, Method, bent
from instrunet.errors import ConfigError, DataError
from instrunet.metrics import calibration
from instrunet.metrics.voting import by_clip

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
COLDEST, HOTTEST = 0.05, 20.0
FOLDS = 5


@dataclass(frozen=True)
class Heard:
    """Logits [N, K] of windows, the clip of each [N], and of the clips in the order of their first windows: what is
    true [C, K], and their groups [C]."""

    kind: Kind
    logits: NDArray[np.float32]
    clip_ids: NDArray[np.object_]
    truth: Bools
    groups: NDArray[np.object_]

    def scores(self, temperature: float = 1.0) -> Array:
        """[C, K]"""
        scaled = self.logits.astype(np.float64) / temperature
        return by_clip(self.clip_ids.tolist(), softmax(scaled, axis=1) if self.kind == "single" else expit(scaled))[1]

    def of(self, groups: Sequence[str]) -> "Heard":
        clips = np.isin(self.groups, groups)
        names = np.array(list(dict.fromkeys(self.clip_ids)), object)[clips]
        rows = np.isin(self.clip_ids, names)
        return replace(
            self,
            logits=self.logits[rows],
            clip_ids=self.clip_ids[rows],
            truth=self.truth[clips],
            groups=self.groups[clips],
        )


@dataclass(frozen=True)
class Fit:
    """One of two: a temperature, or a curve for each label."""

    temperature: float = 1.0
    isotonic: tuple[Curve, ...] = ()

    def scores(self, heard: Heard) -> Array:
        plain = heard.scores(self.temperature)
        return np.asarray(bent(self.isotonic, plain, heard.kind), np.float64) if self.isotonic else plain


def fit(heard: Heard, method: Method) -> Fit:
    return Fit(temperature=temperature(heard)) if method == "temperature" else Fit(isotonic=isotonic(heard))


def temperature(heard: Heard) -> float:
    n = len(heard.truth)
    sure = 1 - 1 / (n + 2)
    rest = (1 - sure) / (heard.truth.shape[1] - 1) if heard.kind == "single" else 1 - sure
    targets = np.where(heard.truth, sure, rest)

    def loss(log_temperature: float) -> float:
        scores = heard.scores(float(np.exp(log_temperature))).clip(1e-12, 1 - 1e-12)
        hits = targets * np.log(scores)
        misses = (1 - targets) * np.log1p(-scores) if heard.kind == "multi" else 0.0
        return float(-(hits + misses).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def isotonic(heard: Heard) -> tuple[Curve, ...]:
    n, plain = len(heard.truth), heard.scores()
    curves = []
    for true, score in zip(heard.truth.T, plain.T, strict=True):
        model = IsotonicRegression(y_min=1 / (n + 2), y_max=1 - 1 / (n + 2)).fit(score, true)
        at, first = np.unique(model.X_thresholds_.round(12), return_index=True)
        curves.append(Curve(at=tuple(at.tolist()), to=tuple(model.y_thresholds_[first].tolist())))
    return tuple(curves)


def crossed(heard: Heard, method: Method, seed: int = 0) -> Array | None:
    """Scores [C, K], each clip's by a fit on the groups of other folds; None where there is one group alone."""
    names = np.random.default_rng(seed).permutation(np.unique(heard.groups))
    if len(names) < 2:
        return None
    out = np.zeros(heard.truth.shape)
    for fold in np.array_split(names, min(FOLDS, len(names))):
        others = np.setdiff1d(names, fold)
        out[np.isin(heard.groups, fold)] = fit(heard.of(others.tolist()), method).scores(heard.of(fold.tolist()))
    return out


def measured(heard: Heard, scores: Array | None) -> Measured | None:
    return None if scores is None else Measured(**calibration.evaluate(heard.truth, scores, heard.kind))


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
