"""The drift guard: how far what a model is given lies from what it was trained on.

Shapes: C clips, M measures, Q quantiles.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from instrunet.config import Spec
from instrunet.features.measures import MEASURES, NAMES, Measure

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LEAST = np.array([measure.least for measure in MEASURES])
FAR = 1.0  # a clip is outside when it lies an interquartile range beyond the training's 1..99 %
MOST_OUTSIDE = 0.5  # more of the clips outside, by one measure, is told
# A larger distance between the distributions is told; of n clips, 1 / sqrt(n) more. Other recordings of the packs in
# ../shared/data and of the demo came to 0.50 at most, cut at 7 kHz, from 8 kHz or 30 dB quieter to 0.75 at least.
MOST_APART = 0.5
Row = Sequence[float]


class Profile(Spec):
    """Quantiles of each measure over the clips of the training split: of all, and of each class."""

    n_clips: int
    overall: dict[str, tuple[float, ...]]
    classes: dict[str, dict[str, tuple[float, ...]]]

    @classmethod
    def of(cls, rows: Sequence[Row], labels: Sequence[Sequence[str]]) -> Self:
        """From [C, M] and the labels of each clip."""
        names = sorted({name for each in labels for name in each})
        of_class = {name: [row for row, own in zip(rows, labels, strict=True) if name in own] for name in names}
        return cls(
            n_clips=len(rows), overall=_quantiles(rows), classes={name: _quantiles(of_class[name]) for name in names}
        )

    def distances(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """[C, M]: how far outside the training's 1..99 % in units of its interquartile range, 0 inside."""
        table, x = self._table(), np.asarray(rows, np.float64)
        unit = np.maximum(table[4] - table[2], LEAST)
        found: NDArray[np.float64] = np.maximum(np.maximum(table[0] - x, x - table[-1]), 0) / unit
        return found

    def drift(self, row: Row) -> float | None:
        """The largest of a sound's distances; nothing where there is no sound."""
        return round(float(self.distances([row]).max()), 3) if len(row) else None

    def apart(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """[M]: the largest difference of the two distribution functions at the training's quantiles (two-sample KS).

        Values closer than `least` count as equal, or clips of 3.00 and of 3.01 s would be as far apart as can be.
        """
        table, x, q = self._table(), np.asarray(rows, np.float64), np.array(QUANTILES)[:, None]
        below = (x < (table - LEAST)[:, None]).mean(1)
        up_to = (x <= (table + LEAST)[:, None]).mean(1)
        found: NDArray[np.float64] = np.maximum(np.maximum(below - q, q - up_to), 0).max(0)
        return found

    def _table(self) -> NDArray[np.float64]:
        """[Q, M]."""
        return np.array([self.overall[name] for name in NAMES]).T


def compare(profile: Profile | None, rows: Sequence[Row]) -> dict[str, Any] | None:
    """What a job says of its clips: the share outside, the distance of each measure, and warnings in words."""
    heard = [row for row in rows if len(row)]
    if profile is None or not heard:
        return None
    far, apart = profile.distances(heard) > FAR, profile.apart(heard)
    told = (far.mean(0) > MOST_OUTSIDE) | (apart > MOST_APART + len(heard) ** -0.5)
    values = np.asarray(heard, np.float64)
    return {
        "n_clips": len(heard),
        "outside": round(float(far.any(1).mean()), 4),
        "distance": round(float(apart.max()), 4),
        "measures": {
            name: {"outside": round(float(far[:, k].mean()), 4), "distance": round(float(apart[k]), 4)}
            for k, name in enumerate(NAMES)
        },
        "warnings": [
            _words(measure, values[:, k], profile.overall[measure.name])
            for k, measure in enumerate(MEASURES)
            if told[k]
        ],
    }


def _words(measure: Measure, values: NDArray[np.float64], trained: tuple[float, ...]) -> str:
    """94 % of clips have no energy above 7.0 kHz; training had 10.9 kHz (its median)."""
    middle = trained[QUANTILES.index(0.5)]
    lower = float(np.median(values)) < middle
    edge = float(np.quantile(values, 0.95 if lower else 0.05))
    share = float((values <= edge if lower else values >= edge).mean())
    side = measure.below if lower else measure.above
    return f"{share:.0%} of clips {side} {measure.said(edge)}; training had {measure.said(middle)}".replace("%", " %")


def _quantiles(rows: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    found = np.quantile(np.asarray(rows, np.float64), QUANTILES, axis=0).round(4)
    return {name: tuple(found[:, k].tolist()) for k, name in enumerate(NAMES)}
