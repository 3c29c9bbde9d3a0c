"""Blocks of one sampling rate gathered at another: nothing is held at the first.

Shapes: T samples.
"""

import numpy as np
import soxr
from numpy.typing import NDArray


class Resampled:
    """Takes mono blocks [T] one after the other; block by block they give the samples that the whole would."""

    def __init__(self, source_rate: int, sample_rate: int) -> None:
        same = source_rate == sample_rate
        self._stream = None if same else soxr.ResampleStream(source_rate, sample_rate, 1, quality="HQ")
        self._pieces = [np.zeros(0, np.float32)]

    def add(self, block: NDArray[np.float32], last: bool = False) -> None:
        self._pieces.append(self._stream.resample_chunk(block, last) if self._stream else block)

    def wave(self) -> NDArray[np.float32]:
        """All of it [T]; no block may follow."""
        self.add(np.zeros(0, np.float32), last=True)
        return np.concatenate(self._pieces)
