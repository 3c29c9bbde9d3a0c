"""Blocks of decoded sound summed up: mixed down, judged before the mix (which hides a channel's faults), checked.

Shapes: T frames, C channels.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.streams import Claims

CLIP_LEVEL = 0.9999
ABSURD = 1e12  # no scale of samples reaches it, and the power of what does overflows float32


class Tally:
    """What `add` was given of [T, C], in the order in which it came; `claims` holds the sum to check, if any."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._sum = hashlib.md5(usedforsecurity=False)
        self._blocks: list[NDArray[np.float32]] = []
        self._sane, self._peak, self._n_full = True, 0.0, 0

    def add(self, samples: NDArray[np.float32]) -> None:
        if self._claims.md5:
            self._sum.update(_as_integers(samples, self._claims.width))
        level = np.abs(samples)
        sane = level < ABSURD  # False for NaN as well
        if not sane.all():
            self._sane = False
            samples, level = np.where(sane, samples, 0), np.where(sane, level, 0)
        self._peak = max(self._peak, float(level.max(initial=0.0)))
        self._n_full += int(np.count_nonzero(level >= CLIP_LEVEL))
        self._blocks.append(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32))

    def mono(self) -> NDArray[np.float32]:
        if len(self._blocks) == 1:
            return self._blocks[0]
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])

    def flags(self, mono: NDArray[np.float32]) -> list[str]:
        found = [] if self._sane else ["nonfinite"]
        if self._peak > 1.5:
            found.append("out_of_range")
        elif self._n_full > 10:
            found.append("clipped")
        peak = float(np.abs(mono).max(initial=0.0))
        if peak and abs(float(mono.mean())) > 0.1 * peak:
            found.append("dc")
        return found

    def wrong_sum(self) -> str:
        wrong = self._claims.md5 and self._claims.md5 != self._sum.digest()
        return "its samples are not those whose MD5 its header holds" if wrong else ""


def _as_integers(samples: NDArray[np.float32], width: int) -> bytes:
    """The samples as FLAC's encoder was given them, little-endian; float32 holds up to 24 bits exactly."""
    whole = samples * np.float32(2 ** (8 * width - 1))
    if width < 3:
        return whole.astype("<i2" if width == 2 else "i1").tobytes()
    wide = whole.astype("<i4").reshape(-1, 1).view(np.uint8)
    return wide[:, :3].tobytes()
