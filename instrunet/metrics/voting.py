"""Windows vote: from scores of windows to scores of their clip, by one of the rules of the table RULES.

mean            what service does, and validation: the mean over the windows. Han et al. (2017) call it S1
sum_normalised  the sum over the windows, divided by that of the clip's best class: a label is as likely as it is beside
                the best one, which always has 1. S2 of Han et al. (2017), who found its threshold on IRMAS's test set
max             the highest score that any window gives
vote            each window votes for its best label, or for each that reaches its threshold; the score is
                (votes + mean) / (windows + 1), so that 0.5 is half of the votes and the mean decides a draw
max_mean        the highest score within each stretch of three windows (those of 1 s that a training excerpt of IRMAS
                holds; the last may be shorter), then the mean over the stretches: what plays now and then is not
                averaged away. The local class-wise max-pooling of the first version of that paper (arXiv:1605.09507v1),
                without its division by the best class afterwards

Shapes: N windows, C clips, K labels.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from instrunet.errors import ConfigError

Scores = NDArray[np.float64]
STRETCH = 3  # windows


@dataclass(frozen=True)
class Windows:
    """Scores [N, K] with the windows of a clip beside each other, in time; `starts` [C] is where each clip begins."""

    scores: Scores
    starts: NDArray[np.int64]
    thresholds: NDArray[np.float32] | None = None  # [K]; None: one label a window

    @property
    def n(self) -> NDArray[np.int64]:
        """[C, 1]: windows of each clip."""
        return np.diff(np.append(self.starts, len(self.scores)))[:, None]


def mean(windows: Windows) -> Scores:
    found: Scores = np.add.reduceat(windows.scores, windows.starts) / windows.n
    return found


def sum_normalised(windows: Windows) -> Scores:
    total = mean(windows)
    found: Scores = total / np.maximum(total.max(1, keepdims=True), np.finfo(np.float64).tiny)
    return found


def highest(windows: Windows) -> Scores:
    found: Scores = np.maximum.reduceat(windows.scores, windows.starts)
    return found


def vote(windows: Windows) -> Scores:
    best = windows.scores.argmax(1)[:, None] == np.arange(windows.scores.shape[1])
    chosen = best if windows.thresholds is None else windows.scores >= windows.thresholds
    votes: Scores = np.add.reduceat(chosen.astype(np.float64), windows.starts)
    return (votes + mean(windows)) / (windows.n + 1)


def max_mean(windows: Windows) -> Scores:
    n = windows.n[:, 0]
    begins = [start + np.arange(0, length, STRETCH) for start, length in zip(windows.starts, n, strict=True)]
    peaks: Scores = np.maximum.reduceat(windows.scores, np.concatenate(begins))
    ends = np.cumsum([len(own) for own in begins])
    return mean(Windows(peaks, np.append(0, ends[:-1])))


RULES: dict[str, Callable[[Windows], Scores]] = {
    "mean": mean,
    "sum_normalised": sum_normalised,
    "max": highest,
    "vote": vote,
    "max_mean": max_mean,
}
PUBLISHED = {"han2017_s1": "mean", "han2017_s2": "sum_normalised"}
OWN_SCALE = {"sum_normalised", "vote"}  # 0.5 is their threshold, whatever the bundle's are


def asked(text: str) -> tuple[str, ...]:
    """The rules of `mean,han2017_s2`, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [*RULES, *PUBLISHED]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "take one of them"
            raise ConfigError(f"expected rules of {', '.join(known)}, got {name!r}; {hint}")
    return tuple(dict.fromkeys(PUBLISHED.get(name, name) for name in names))


def by_clip(
    clip_ids: Sequence[str],
    scores: NDArray[np.floating],
    rule: str = "mean",
    thresholds: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], Scores]:
    """From scores [N, K]: a window of each clip [C], in the order of their first ones, and scores of clips [C, K].

    A clip's windows need not stand together, but those of each must stand in time."""
    clip, names = pd.factorize(np.asarray(clip_ids, object))
    order = np.argsort(clip, kind="stable")
    starts = np.searchsorted(clip[order], np.arange(len(names)))
    return order[starts], RULES[rule](Windows(scores[order].astype(np.float64), starts, thresholds))
