"""Where a sound begins and ends: silence around it is told by level alone, relative to its loudest moment.

Convention: frames of 64 ms, one each 16 ms and centred there, zeros beyond both ends. The stretch reaches from the
first to the last frame that is loud enough, and 50 ms further to both sides: a soft onset is not cut.
"""

import numpy as np
from numpy.typing import NDArray

HOP_S, KEPT_S = 0.016, 0.05
SIDE = 2  # hops of a frame to either side of its centre


def trimmed(wave: NDArray[np.float32], sample_rate: int, below_db: float) -> tuple[int, int]:
    """[first, stop) of the samples of `wave` [T], without ends that are `below_db` quieter than its loudest frame."""
    if not len(wave):
        return 0, 0
    hop, kept = round(HOP_S * sample_rate), round(KEPT_S * sample_rate)
    whole, rest = np.split(wave, [len(wave) // hop * hop])
    hops = np.einsum("nt,nt->n", *[whole.reshape(-1, hop)] * 2, dtype=np.float64)
    hops = np.concatenate([np.zeros(SIDE), hops, [np.square(rest, dtype=np.float64).sum()], np.zeros(SIDE - 1)])
    power = np.convolve(hops, np.ones(2 * SIDE), "valid")  # of the frame centred where each hop begins
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below_db / 10))
    first, stop = loud[0] * hop - kept, (loud[-1] + 1) * hop + kept
    return max(0, int(first)), min(len(wave), int(stop))
