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


def cut(wave: NDArray[np.float32], window: int, hop: int) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The windows of `wave` [T], parts of itself; zero-padded behind where it is shorter than one."""
    begins = starts(len(wave), window, hop)
    if len(wave) < window:
        wave = np.pad(wave, (0, window - len(wave)))
    return begins, [wave[begin : begin + window] for begin in begins]
