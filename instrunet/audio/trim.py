"""Where a sound begins and ends: silence around it is told by level alone, relative to its loudest moment.

Convention: frames of 64 ms, one each 16 ms and centred there, zeros beyond both ends. The stretch reaches from the
first to the last frame that is loud enough, and 50 ms further to both sides: a soft onset is not cut.
"""

import numpy as np
from numpy.typing import NDArray

FRAME_S, HOP_S, KEPT_S = 0.064, 0.016, 0.05


def trimmed(wave: NDArray[np.float32], sample_rate: int, below_db: float) -> tuple[int, int]:
    """[first, stop) of the samples of `wave` [T], without ends that are `below_db` quieter than its loudest frame."""
    if not len(wave):
        return 0, 0
    half, hop, kept = (round(s * sample_rate) for s in (FRAME_S / 2, HOP_S, KEPT_S))
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    centres = np.arange(0, len(wave) + 1, hop)
    power = energy[np.minimum(centres + half, len(wave))] - energy[np.maximum(centres - half, 0)]
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below_db / 10))
    first, stop = centres[loud[0]] - kept, centres[loud[-1]] + hop + kept
    return max(0, int(first)), min(len(wave), int(stop))
