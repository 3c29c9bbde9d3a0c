"""Blocks of decoded sound judged before they are mixed down (which hides a channel's faults), mixed, and checked.

Shapes: T frames, C channels.
"""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.streams import Claims

CLIP_LEVEL = 0.9999
Samples = NDArray[np.float32] | NDArray[np.int16]
ABSURD = 1e12  # no scale of samples reaches it, and the power of what does overflows float32


class Tally:
    """What passed through `mixed`, in the order in which it came; `claims` holds the sum to check, if any."""

    def __init__(self, claims: Claims) -> None:
        self.n, self.broken = 0, ""  # frames, and why there are no more of them
        self._claims = claims
        self._sum = hashlib.md5(usedforsecurity=False)
        self._sane, self._peak, self._n_full = True, 0.0, 0
        self._mono_peak, self._mono_sum = 0.0, 0.0

    def mixed(self, samples: Samples) -> NDArray[np.float32]:
        """A block [T, C] as mono [T]."""
        if self._claims.md5:
            self._sum.update(_as_integers(samples, self._claims.width))
        full_scale = 1.0 if samples.dtype == np.float32 else 32_768.0
        peak = _peak(samples)
        if not peak < ABSURD:  # NaN is not
            self._sane = False
            samples = np.where(np.abs(samples) < ABSURD, samples, 0)
            peak = _peak(samples)
        peak /= full_scale
        self._peak = max(self._peak, peak)
        if peak >= CLIP_LEVEL:
            self._n_full += int(np.count_nonzero(np.abs(samples.astype(np.float32)) >= CLIP_LEVEL * full_scale))
        mono = _mix(samples, full_scale)
        self._mono_peak = max(self._mono_peak, _peak(mono))
        self._mono_sum += float(mono @ _ones(len(mono)))  # in 0.4 of the time of `sum`
        self.n += len(mono)
        return mono

    def confirmed(self) -> None:
        """The sum was checked before."""
        self._claims = Claims()

    def broke_off(self, why: str) -> None:
        """The decoder gave up: what follows may not be what the sum is of."""
        self.broken, self._claims = why, Claims()

    def flags(self) -> list[str]:
        found = [] if self._sane else ["nonfinite"]
        if self._peak > 1.5:
            found.append("out_of_range")
        elif self._n_full > 10:
            found.append("clipped")
        if self._mono_peak and abs(self._mono_sum) > 0.1 * self._mono_peak * self.n:
            found.append("dc")
        return found

    def wrong_sum(self) -> str:
        wrong = self._claims.md5 and self._claims.md5 != self._sum.digest()
        return "its samples are not those whose MD5 its header holds" if wrong else ""


def _peak(samples: Samples) -> float:
    """Without a copy of the block, which `abs` makes; 16 bits have no 32,768, so the lowest is looked at as a float."""
    return max(float(samples.max(initial=0)), -float(samples.min(initial=0)))


@lru_cache(maxsize=2)  # blocks have one length, but for the last
def _ones(n: int) -> NDArray[np.float32]:
    return np.ones(n, np.float32)


def _mix(samples: Samples, full_scale: float) -> NDArray[np.float32]:
    """The mean of the channels [T], as a product: numpy's mean over two of them takes 28 times as long."""
    weights = np.full(samples.shape[1], 1 / (samples.shape[1] * full_scale), np.float32)
    mono: NDArray[np.float32] = samples.astype(np.float32, copy=False) @ weights
    return mono


def _as_integers(samples: Samples, width: int) -> bytes | memoryview:
    """The samples as FLAC's encoder was given them, little-endian; float32 holds up to 24 bits exactly."""
    if samples.dtype == np.int16:
        return samples.astype("<i2", copy=False).data
    whole = samples * np.float32(2 ** (8 * width - 1))
    if width < 3:
        return whole.astype("<i2" if width == 2 else "i1").tobytes()
    wide = whole.astype("<i4").reshape(-1, 1).view(np.uint8)
    return wide[:, :3].tobytes()
