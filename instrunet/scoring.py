"""What a bundle says of clips, beside what is true of them: scores, decisions, figures and their intervals.

Shapes: N clips, W windows of all of them, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from instrunet.bundle import Bundle
from instrunet.calibrate import Heard
from instrunet.errors import DataError
from instrunet.features.shards import Features
from instrunet.metrics import bootstrap, calibration, intervals, multi, single, voting
from instrunet.training.feed import targets_of

CLIP = ("clip_id", "uri", "group", "labels", "corpus", "measures")
MAIN = {"single": "balanced_accuracy", "multi": "macro_f1"}  # the figure that stands for all: UAR, or macro F1


@dataclass(frozen=True)
class Scored:
    """Clip by clip: scores [N, K] as service has them, and what each clip is; logits [W, K] and the clip of each."""

    scores: NDArray[np.float64]
    clips: pd.DataFrame
    logits: NDArray[np.float32]
    clip_ids: Sequence[str]


@dataclass(frozen=True)
class Judgement:
    """Scores and truth [N, K] by the rule of the task: the best score, or each that reaches its threshold [K].

    Figures are of all clips by the labels they would get; what is left out where the model is unsure is in `answers`.
    """

    kind: Literal["single", "multi"]
    labels: tuple[str, ...]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    thresholds: NDArray[np.float32]
    groups: Sequence[str]  # [N], what an interval draws
    answered: NDArray[np.bool_] | None = None  # [N]; None: all
    chances: bool = True  # whether scores are meant as probabilities
    rule: str = "mean"

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """[N, K]"""
        if self.kind == "single":
            return np.asarray(self.scores.argmax(1)[:, None] == np.arange(len(self.labels)))
        return np.asarray(self.scores >= self.thresholds)

    @property
    def decided(self) -> list[list[str]]:
        chosen = self.chosen if self.answered is None else self.chosen & self.answered[:, None]
        return [[label for label, yes in zip(self.labels, row, strict=True) if yes] for row in chosen]

    @property
    def judged(self) -> intervals.Judged:
        if self.kind == "single":
            return intervals.Judged(self.truth.argmax(1), self.scores.argmax(1), self.groups)
        return intervals.Judged(self.truth, self.scores >= self.thresholds, self.groups)

    @property
    def said(self) -> bootstrap.Said:
        return bootstrap.Said(self.kind, self.truth, self.scores, self.chosen, self.groups, self.chances, self.answered)

    def metrics(self) -> dict[str, Any]:
        """All figures, and `intervals`: {name: [low, high]}, of the whole, each class and the answers; none where there
        is one group.

        `absent` are the classes without a clip; `answers` the share of clips that get one, and its risk.
        """
        if self.kind == "single":
            figures = single.evaluate(self.truth.argmax(1), self.scores, self.labels)
        else:
            figures = multi.evaluate(self.truth, self.scores, self.labels, self.thresholds)
        if self.chances:
            figures |= calibration.evaluate(self.truth, self.scores, self.kind)
        figures["absent"] = [label for k, label in enumerate(self.labels) if not self.truth[:, k].any()]
        limits = bootstrap.intervals(self.said, self.labels)
        for label, own in limits.pop("per_class", {}).items():
            figures["per_class"][label]["intervals"] = own
        if self.answered is not None:
            given = self.chosen[self.answered]
            figures["answers"] = {
                "n": int(self.answered.sum()),
                "coverage": float(self.answered.mean()),
                "risk": float((given & ~self.truth[self.answered]).sum() / max(given.sum(), 1)),
                "intervals": {name: limits.pop(name) for name in ("coverage", "risk") if name in limits},
            }
        return figures | {"intervals": limits}


def score(bundle: Bundle, held: Features) -> Scored:
    """Every window scored, a clip's windows averaged."""
    if not len(held):
        raise DataError("no clip of this split gave any sound; see errors.parquet in the features folder")
    logits = bundle.logits({n: torch.from_numpy(v) for n, v in held.values.items()}, frames=held.frames)
    ids = held.clips["clip_id"]
    _check_finite(logits, held.clips["uri"])
    first, mean = voting.by_clip(ids, bundle.activated(logits))
    clips = pd.DataFrame({name: [held.clips[name][k] for k in first] for name in CLIP})
    return Scored(np.asarray(bundle.calibrated(mean), np.float64), clips, logits, ids)


def judge(bundle: Bundle, scored: Scored, rule: str = "") -> Judgement:
    """By one of the rules of metrics/voting.py; without a name by what service does, the mean.

    Clips of several labels after a softmax have no such thing in service: their own rule is `sum_normalised`.
    """
    truth = truth_of(bundle, scored)
    softmax = bundle.spec.kind == "single"
    kind: Literal["single", "multi"] = "single" if softmax and bool((truth.sum(1) == 1).all()) else "multi"
    rule = rule or ("sum_normalised" if softmax and kind == "multi" else "mean")
    thresholds = np.full_like(bundle.thresholds, 0.5) if rule in voting.OWN_SCALE else bundle.thresholds
    return Judgement(
        kind,
        bundle.spec.labels,
        truth,
        voted(bundle, scored, rule),
        thresholds,
        tuple(scored.clips["group"]),
        answered=bundle.answers(scored.scores) if bundle.decisions.abstain_below else None,
        chances=rule == "mean" and kind == bundle.spec.kind,
        rule=rule,
    )


def truth_of(bundle: Bundle, scored: Scored) -> NDArray[np.bool_]:
    """[N, K]"""
    return targets_of(scored.clips["labels"].tolist(), bundle.spec.labels).numpy().astype(bool)


def voted(bundle: Bundle, scored: Scored, rule: str) -> NDArray[np.float64]:
    """Scores [N, K] by a rule; the curves of a bundle were fitted on means, and bend nothing else."""
    if rule == "mean":
        return scored.scores
    votes = bundle.thresholds if bundle.spec.kind == "multi" else None
    return voting.by_clip(scored.clip_ids, bundle.activated(scored.logits), rule, votes)[1]


def belief(bundle: Bundle, scored: Scored, judgement: Judgement) -> dict[str, Any] | None:
    """How far the scores can be believed, as they are and before they were calibrated, and what answering less would
    bring; nothing where they are no probabilities."""
    if not judgement.chances:
        return None
    spec = bundle.spec
    ids, groups = np.array(scored.clip_ids, object), np.array(judgement.groups)
    heard = Heard(spec.kind, scored.logits, ids, judgement.truth, groups)
    plain = spec.temperature == 1 and not bundle.decisions.isotonic
    curve = calibration.risk_coverage(judgement.truth, judgement.chosen, judgement.scores.max(1))
    return {
        "after": _believed(judgement),
        "before": None if plain else _believed(replace(judgement, scores=heard.scores())),
        "risk_coverage": calibration.points(curve),
        "abstain_below": bundle.decisions.abstain_below,
    }


def _believed(judgement: Judgement) -> dict[str, Any]:
    found = calibration.evaluate(judgement.truth, judgement.scores, judgement.kind)
    return found | {"intervals": {} if found["ece"] is None else bootstrap.of_belief(judgement.said)}


def _check_finite(logits: NDArray[np.float32], uris: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise DataError(
            f"expected finite scores, got NaN or infinity for {len(bad)} of {len(logits)} windows, the first of "
            f"{uris[bad[0]]}; the training of this bundle diverged, or its statistics do not fit: train it again"
        )


def told(metrics: dict[str, Any], name: str) -> str:
    """A figure as the console says it: 0.970 (0.91 to 1.00)."""
    text = f"{metrics[name]:.3f}"
    if name not in metrics["intervals"]:
        return text
    low, high = metrics["intervals"][name]
    return f"{text} ({low:.2f} to {high:.2f})"
