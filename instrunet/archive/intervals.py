"""From windows to intervals: where in a recording a label is heard.

Shapes: W windows of a recording, in the order of their starts; K labels.

Convention: a window is decided as if it were the whole recording. Windows of one label that touch or overlap are one
interval; its `peak` and `mean` are of their scores, on the scale of the thresholds.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from instrunet.rule import Rule

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("label", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("peak", pa.float32()),
        ("mean", pa.float32()),
    ]
)
TOUCH_S = 0.01  # starts are 32 bits wide: 0.004 s apart after a day
Times = NDArray[np.float64]


def of_recording(
    uri: str, start_s: Times, stop_s: Times, scores: NDArray[np.float64], rule: Rule
) -> list[dict[str, Any]]:
    """Its intervals by their starts; windows [W] from `start_s` to `stop_s`, `scores` [W, K] as they are stored."""
    if not len(scores):
        return []
    shown = rule.calibrated(scores)
    chosen = rule.chosen(np.asarray(shown, np.float32))
    rows = [
        {
            "uri": uri,
            "label": label,
            "start_s": float(start_s[run[0]]),
            "stop_s": float(stop_s[run].max()),
            "peak": float(shown[run, k].max()),
            "mean": float(shown[run, k].mean()),
        }
        for k, label in enumerate(rule.spec.labels)
        for run in _runs(np.flatnonzero(chosen[:, k]), start_s, stop_s)
    ]
    return sorted(rows, key=lambda row: (row["start_s"], row["label"]))


def _runs(windows: NDArray[np.intp], start_s: Times, stop_s: Times) -> Iterator[NDArray[np.intp]]:
    """Windows that touch or overlap, together."""
    if len(windows):
        reach = np.maximum.accumulate(stop_s[windows])
        yield from np.split(windows, np.flatnonzero(start_s[windows][1:] > reach[:-1] + TOUCH_S) + 1)
