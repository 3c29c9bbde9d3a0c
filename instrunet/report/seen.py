"""What a model hears of one sound, as a picture of bytes that a page can draw.

Shapes: T samples, F bands, L frames.
"""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.bundle import Bundle
from instrunet.features import FRAME_FEATURES
from instrunet.features.logmel import LogMelSpec, edges_hz

TICKS_HZ = (100, 300, 1000, 3000, 10_000)
WIDEST = 1200  # frames: no page is wider


@dataclass(frozen=True)
class Seen:
    """`pixels` are bytes in base64, band by band from the lowest; `ticks` are (hertz, band)."""

    feature: str
    bands: int
    frames: int
    ticks: list[tuple[int, float]]
    pixels: str


def seen(bundle: Bundle, wave: NDArray[np.float32]) -> Seen | None:
    """Of the first feature [T] -> [F, L]; a model that reads numbers sees no picture."""
    name = bundle.network.names[0]
    if name not in FRAME_FEATURES or not len(wave):
        return None
    part: Any = bundle.featurizer.parts[name]
    values = _narrowed(part.fast(wave))
    low, high = np.percentile(values, [0.5, 99.5])  # one click should not darken all the rest
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    pixels = base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode()
    return Seen(name, values.shape[0], values.shape[1], [*zip(*ticks(bundle), strict=True)], pixels)


def ticks(bundle: Bundle) -> tuple[list[int], list[float]]:
    """Round hertz of a mel spectrogram and where they lie, in bands; other features have bands of their own."""
    spec = next(one for one in bundle.spec.front.features if one.name == bundle.network.names[0])
    if not isinstance(spec, LogMelSpec):
        return [], []
    centres = edges_hz(spec)[1:-1]
    there = [hz for hz in TICKS_HZ if centres[0] <= hz <= centres[-1]]
    return there, [float(np.interp(hz, centres, np.arange(len(centres)) + 0.5)) for hz in there]


def _narrowed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over neighbouring frames, where there are more than a page shows."""
    n = values.shape[1]
    if n <= WIDEST:
        return values
    begins = np.arange(WIDEST) * n // WIDEST
    counts = np.diff([*begins, n]).astype(np.float32)
    return np.asarray(np.add.reduceat(values, begins, axis=1) / counts, np.float32)
