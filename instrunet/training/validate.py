"""What a validation says, by clip and not by window: the mean over a clip's windows decides, as it does in service.

Shapes: N windows, C clips, K labels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from instrunet.bundle_spec import BundleSpec
from instrunet.features.shards import Features
from instrunet.metrics import multi, single
from instrunet.metrics.voting import by_clip
from instrunet.training.feed import Feed

SCORES = {  # by the kind of the task: what is measured of an epoch
    "single": ("accuracy", "balanced_accuracy", "macro_f1"),
    "multi": ("micro_f1", "macro_f1", "lrap"),
}
MOST_MISSES = 200
TRIED = 400


@dataclass(frozen=True)
class Heard:
    """Clips and what was answered: scores and truth [C, K]; `first` [C] is a window of each."""

    kind: str
    labels: tuple[str, ...]
    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    first: NDArray[np.int64]

    @property
    def decided(self) -> NDArray[np.bool_]:
        """[C, K]: the best label, or every one at or above 0.5: thresholds are found after training."""
        if self.kind == "multi":
            return np.asarray(self.scores >= 0.5)
        return np.asarray(np.eye(len(self.labels))[self.scores.argmax(1)] > 0)


def hear(logits: NDArray[np.float32], feed: Feed, draft: BundleSpec) -> Heard:
    scores = softmax(logits, axis=1) if draft.kind == "single" else expit(logits)
    first, mean = by_clip(feed.clip_ids, scores)
    return Heard(draft.kind, draft.labels, mean, feed.targets.numpy()[first].astype(bool), first)


def clip_scores(heard: Heard) -> dict[str, float]:
    if heard.kind == "single":
        found = single.evaluate(heard.truth.argmax(1), heard.scores, heard.labels)
    else:
        found = multi.evaluate(heard.truth, heard.scores, heard.labels, np.full(len(heard.labels), 0.5))
    return {name: float(found[name]) for name in SCORES[heard.kind]}


def some_of(learnt: Features) -> Features:
    """So many clips at even distances: enough to see a network die, and little beside an epoch."""
    names = sorted(set(learnt.clips["clip_id"]))
    return learnt.only(set(names[:: max(1, len(names) // TRIED)]))


def misclassified(heard: Heard, feed: Feed) -> dict[str, Any]:
    """Clips that were answered wrongly, the surest mistake first; `score` is what the worst label got."""
    wrong = heard.decided != heard.truth
    far = np.where(wrong, np.abs(heard.scores - heard.truth), 0.0)
    if heard.kind == "single":
        far = np.where(heard.decided & wrong, heard.scores, 0.0)
    worst = far.argmax(1)
    order = [int(c) for c in np.argsort(-far.max(1), kind="stable") if wrong[c].any()][:MOST_MISSES]
    clips = [
        {
            "clip_id": feed.clip_ids[heard.first[c]],
            "uri": feed.uris[heard.first[c]],
            "truth": _names(heard.truth[c], heard.labels),
            "predicted": _names(heard.decided[c], heard.labels),
            "score": round(float(heard.scores[c, worst[c]]), 4),
        }
        for c in order
    ]
    return {"n_clips": len(wrong), "n_wrong": int(wrong.any(1).sum()), "clips": clips}


def _names(row: NDArray[np.bool_], labels: tuple[str, ...]) -> list[str]:
    return [label for label, is_so in zip(labels, row, strict=True) if is_so]
