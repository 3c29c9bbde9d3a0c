"""Which stretches of a sound a model looks at: index arithmetic only, no audio.

Convention: windows start at 0, hop, 2 hop, ... while they fit; a last one is set flush with the end when more than a
tenth of a window would go unheard; a sound shorter than a window gives one window, to be padded with zeros behind.
"""

import numpy as np
from numpy.typing import NDArray

UNHEARD = 0.1


def starts(n_samples: int, window: int, hop: int) -> list[int]:
    """First sample of each window over `n_samples`."""
    if n_samples <= 0:
        return []
    if n_samples <= window:
        return [0]
    regular = list(range(0, n_samples - window + 1, hop))
    if n_samples - (regular[-1] + window) > UNHEARD * window:
        regular.append(n_samples - window)
    return regular


def cut(wave: NDArray[np.float32], window: int, hop: int) -> tuple[list[int], NDArray[np.float32]]:
    """The windows of `wave` [T] as [W, window], zero-padded behind where the sound is shorter."""
    begins = starts(len(wave), window, hop)
    out = (np.empty if len(wave) >= window else np.zeros)((len(begins), window), np.float32)
    for row, begin in enumerate(begins):
        piece = wave[begin : begin + window]
        out[row, : len(piece)] = piece
    return begins, out
