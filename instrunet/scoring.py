"""What a bundle says of clips, beside what is true of them: scores, decisions, figures and their intervals.

Shapes: N clips, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from instrunet.bundle import Bundle
from instrunet.errors import DataError
from instrunet.features.shards import Features
from instrunet.metrics import intervals, multi, single
from instrunet.metrics.voting import by_clip
from instrunet.training.feed import targets_of

CLIP = ("clip_id", "uri", "group", "labels", "corpus", "measures")
MAIN = {"single": "balanced_accuracy", "multi": "macro_f1"}  # the figure that stands for all: UAR, or macro F1


@dataclass(frozen=True)
class Scored:
    """Clip by clip: mean scores [N, K] over windows, and what each clip is."""

    scores: NDArray[np.float64]
    clips: pd.DataFrame


@dataclass(frozen=True)
class Judgement:
    """Scores and truth [N, K] by the rule of the task: the best score, or each that reaches its threshold [K]."""

    kind: Literal["single", "multi"]
    labels: tuple[str, ...]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    thresholds: NDArray[np.float32]
    groups: Sequence[str]  # [N], what an interval draws

    @property
    def decided(self) -> list[list[str]]:
        if self.kind == "single":
            return [[self.labels[k]] for k in self.scores.argmax(1)]
        chosen = self.scores >= self.thresholds
        return [[label for label, yes in zip(self.labels, row, strict=True) if yes] for row in chosen]

    @property
    def judged(self) -> intervals.Judged:
        if self.kind == "single":
            return intervals.Judged(self.truth.argmax(1), self.scores.argmax(1), self.groups)
        return intervals.Judged(self.truth, self.scores >= self.thresholds, self.groups)

    def metrics(self) -> dict[str, Any]:
        """All figures, and `intervals`: {name: [low, high]} of those that have one; none where there is one group."""
        if self.kind == "single":
            figures = single.evaluate(self.truth.argmax(1), self.scores, self.labels)
        else:
            figures = multi.evaluate(self.truth, self.scores, self.labels, self.thresholds)
        found = intervals.of(self.judged, len(self.labels))
        told = {name: [i.low, i.high] for name, i in found.items() if i.n_groups >= intervals.FEWEST_GROUPS}
        return figures | {"intervals": told}


def score(bundle: Bundle, held: Features) -> Scored:
    """Every window scored, a clip's windows averaged."""
    if not len(held):
        raise DataError("no clip of this split gave any sound; see errors.parquet in the features folder")
    windows = bundle.predict({n: torch.from_numpy(v) for n, v in held.values.items()}, frames=held.frames)
    first, mean = by_clip(held.clips["clip_id"], windows)
    return Scored(mean, pd.DataFrame({name: [held.clips[name][k] for k in first] for name in CLIP}))


def judge(bundle: Bundle, scored: Scored) -> Judgement:
    """Single-label clips by the best score. Several labels: thresholds; a softmax is first divided by its best score,
    with 0.5 as the threshold, the rule of Han et al. (2016) for IRMAS."""
    labels, scores, groups = bundle.spec.labels, scored.scores, tuple(scored.clips["group"])
    truth = targets_of(scored.clips["labels"].tolist(), labels).numpy().astype(bool)
    if bundle.spec.kind == "single" and (truth.sum(1) == 1).all():
        return Judgement("single", labels, truth, scores, bundle.thresholds, groups)
    relative = scores / scores.max(1, keepdims=True) if bundle.spec.kind == "single" else scores
    return Judgement("multi", labels, truth, relative, bundle.thresholds, groups)


def told(metrics: dict[str, Any], name: str) -> str:
    """A figure as the console says it: 0.970 (0.91 to 1.00)."""
    text = f"{metrics[name]:.3f}"
    if name not in metrics["intervals"]:
        return text
    low, high = metrics["intervals"][name]
    return f"{text} ({low:.2f} to {high:.2f})"
