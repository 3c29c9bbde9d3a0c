"""Constant-Q transform: a picture in which every octave is as high as the next, so that a melody moves without bending.

Shapes: B clips, T samples, F bins, L frames.
"""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.features.spectra import clip_by_clip, constant_q, highest_hz


class CqtSpec(Spec):
    """librosa.cqt's settings; its window (Hann), scale and tuning (none) are fixed. Seven octaves from C1."""

    name: Literal["cqt"] = "cqt"
    sample_rate: int = Field(22_050, gt=0)
    hop_length: int = Field(512, gt=0)
    fmin_hz: float = Field(32.70319566257483, gt=0)  # C1, to the last digit of librosa.note_to_hz
    n_bins: int = Field(84, gt=0)
    bins_per_octave: int = Field(12, gt=0)
    floor: float = Field(1e-5, gt=0)

    @model_validator(mode="after")
    def _highest_bin_fits_below_nyquist(self) -> Self:
        nyquist_hz = self.sample_rate / 2
        highest = highest_hz(self.fmin_hz, self.n_bins, self.bins_per_octave)
        if highest > nyquist_hz:
            raise ValueError(
                f"cqt needs its highest bin to end below {nyquist_hz:g} Hz, half the sample rate; {self.n_bins} bins "
                f"from fmin_hz={self.fmin_hz:g}, {self.bins_per_octave} an octave, end at {highest:.0f}: lower n_bins"
            )
        return self

    def shape(self, n_samples: int) -> tuple[int, int]:
        """(F, L) for a clip of `n_samples`, known before any audio is read."""
        return self.n_bins, 1 + n_samples // self.hop_length


class Cqt(nn.Module):
    """Waveforms [B, T] to log-amplitudes [B, F, L]: log(|C| + floor). On the CPU, clip by clip, also in `forward`.

    librosa's own recursion gives one frame more than the shape law for some lengths where it halves the rate first
    (fewer octaves than the hop has factors of two); that frame is left away.
    """

    def __init__(self, spec: CqtSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, wave: Tensor) -> Tensor:
        return clip_by_clip(self.fast, wave)

    def fast(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """One clip [T] to [F, L]."""
        s = self.spec
        amplitude = constant_q(s.sample_rate, s.hop_length, s.fmin_hz, s.n_bins, s.bins_per_octave)(wave)
        logs: NDArray[np.float32] = np.log(amplitude + np.float32(s.floor))
        return logs
