"""Decisions fitted on clips that no weights were fitted on: a temperature or curves, thresholds, a limit for answers.

Shapes: N windows, C clips, K labels.

Conventions, and how others differ:

* The temperature divides the logits of windows; it is the one under which the log loss of *clips* is least, as these
  are what is decided on (Guo et al., 2017, have one logit a clip).
* n clips without a mistake do not prove that there will be none, and would make the coldest temperature the best: it is
  never so low that the mean probability of what is said exceeds Laplace's (r + 1) / (n + 2), where r of n are right;
  and a curve ends 1 / (n + 2) below 1 and as far above 0, or the labels share that where a clip has one.
* All is fitted anew, from the logits: of an earlier calibration nothing is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression

from instrunet.bundle_spec import BundleSpec
from instrunet.decisions import Curve, Decisions, Fitted, Kind, Measured, Method, bent
from instrunet.metrics import calibration
from instrunet.metrics.voting import by_clip
from instrunet.thresholds import ThresholdRule, limit, thresholds

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
        clips = pd.Series(self.groups).isin(groups).to_numpy()
        rows = clips[pd.factorize(self.clip_ids)[0]]
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
    def loss(log_temperature: float) -> float:
        scores = heard.scores(float(np.exp(log_temperature))).clip(1e-12, 1 - 1e-12)
        misses = np.log1p(-scores[~heard.truth]).sum() if heard.kind == "multi" else 0.0
        return float(-(np.log(scores[heard.truth]).sum() + misses)) / len(scores)

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))
    most = _success(heard, found)
    if _sureness(heard, found) <= most or _sureness(heard, HOTTEST) > most:
        return found
    return float(brentq(lambda value: _sureness(heard, value) - most, found, HOTTEST, xtol=1e-4))


def _sureness(heard: Heard, value: float) -> float:
    """Mean probability of what would be said: of the best label, or of each yes and no."""
    scores = heard.scores(value)
    return float(scores.max(1).mean() if heard.kind == "single" else np.maximum(scores, 1 - scores).mean())


def _success(heard: Heard, value: float) -> float:
    """Laplace's rule of succession: r of n right, so the next one is right with (r + 1) / (n + 2)."""
    scores = heard.scores(value)
    best = np.take_along_axis(heard.truth, scores.argmax(1)[:, None], 1)
    right = best if heard.kind == "single" else (scores >= 0.5) == heard.truth
    return float((right.sum() + 1) / (right.size + 2))


def isotonic(heard: Heard) -> tuple[Curve, ...]:
    (n, n_labels), plain = heard.truth.shape, heard.scores()
    most = 1 - 1 / (n + 2)
    least = (1 - most) / (n_labels - 1 if heard.kind == "single" else 1)  # so that a sure row sums to 1
    curves = []
    for true, score in zip(heard.truth.T, plain.T, strict=True):
        model = IsotonicRegression(y_min=least, y_max=most).fit(score, true)
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
        made = fit(heard.of(np.setdiff1d(names, fold).tolist()), method)
        out[pd.Series(heard.groups).isin(fold).to_numpy()] = made.scores(heard.of(fold.tolist()))
    return out


def measured(heard: Heard, scores: Array) -> Measured:
    return Measured(**calibration.evaluate(heard.truth, scores, heard.kind))


@dataclass(frozen=True)
class Asked:
    """What a user wants decided; `thresholds` is a rule as text, for several labels only."""

    method: Method = "temperature"
    thresholds: str = ""
    max_risk: float | None = None


def decided(spec: BundleSpec, heard: Heard, asked: Asked, corpus: str, manifest: str) -> tuple[BundleSpec, list[str]]:
    """The bundle's spec with everything fitted anew, and what a user should read.

    Thresholds and the limit are chosen on scores by fits that had not heard the clips' groups, where there are several.
    """
    made = fit(heard, asked.method)
    crossing = crossed(heard, asked.method)
    scores = made.scores(heard) if crossing is None else crossing
    found, notes = np.full(len(spec.labels), 0.5), list[str]()
    if asked.thresholds:
        found, notes = thresholds(ThresholdRule.parse(asked.thresholds), heard.truth, scores, spec.labels)
    best = scores.argmax(1)[:, None] == np.arange(len(spec.labels))
    given = best if spec.kind == "single" else scores >= found
    below = 0.0 if asked.max_risk is None else limit(heard.truth, given, scores.max(1), asked.max_risk)
    answers = _Answers(heard.truth, given, scores.max(1), below)
    told = _fitted(heard, asked, crossing, answers).model_copy(
        update={"parent": spec.fingerprint(), "corpus": corpus, "manifest": manifest}
    )
    if told.after and told.after.ece > told.before.ece:
        notes.append(f"the ECE of clips left out of the fit rises from {told.before.ece:.3f} to {told.after.ece:.3f}")
    update = {
        "temperature": made.temperature,
        "thresholds": tuple(found.tolist()) if asked.thresholds else (),
        "decisions": Decisions(isotonic=made.isotonic, abstain_below=below, fitted=told),
    }
    return spec.model_copy(update=update), notes


@dataclass(frozen=True)
class _Answers:
    """What is true and given [C, K], the best score [C] of each clip, and where answers begin."""

    truth: Bools
    given: Bools
    best: Array
    below: float

    @property
    def risk(self) -> float:
        kept = self.best >= self.below
        return float((self.given & ~self.truth)[kept].sum() / max(self.given[kept].sum(), 1))


def _fitted(heard: Heard, asked: Asked, crossing: Array | None, answers: _Answers) -> Fitted:
    curve = calibration.risk_coverage(answers.truth, answers.given, answers.best)
    return Fitted(
        n_clips=len(heard.truth),
        n_groups=len(set(heard.groups)),
        method=asked.method,
        thresholds=asked.thresholds,
        max_risk=asked.max_risk,
        coverage=float((answers.best >= answers.below).mean()),
        risk=answers.risk,
        before=measured(heard, heard.scores()),
        after=None if crossing is None else measured(heard, crossing),
        risk_coverage=tuple(calibration.points(curve)),
    )
