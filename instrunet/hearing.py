"""What a bundle makes of one sound on the way to an answer: what the network sees, and what it says of that.

Shapes: W windows, K labels, E numbers of an embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instrunet.features.featurizer import Windows


class Seen(NamedTuple):
    """A sound as the network sees it; no `status`: all is well with it."""

    status: str
    reason: str
    flags: list[str]
    duration_s: float
    windows: Windows

    def heard(self, scores: NDArray[np.float32], embeddings: NDArray[np.float16] | None = None) -> "Heard":
        return Heard(*self[:4], self.windows.start_s, scores, self.windows.measures, embeddings)


@dataclass(frozen=True)
class Heard:
    """The windows of one sound and their scores [W, K]; the first four are as in `Seen`."""

    status: str
    reason: str
    flags: list[str]
    duration_s: float
    window_start_s: list[float]
    scores: NDArray[np.float32]
    measures: list[float]
    embeddings: NDArray[np.float16] | None = None  # [W, E], where they were asked for
