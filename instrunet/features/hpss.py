"""Harmonic and percussive log-mels: a sound taken apart into what lasts and what strikes, one picture above the other.

Shapes: B clips, T samples, F mel bands, L frames, K frequency bins.
"""

from typing import Literal, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.features.spectra import clip_by_clip, magnitudes, mel_bands

SORTED_AT_ONCE = 1 << 16  # numbers: 256 KB, so that the windows stay in the cache


class HpssSpec(Spec):
    """The fields of `logmel`, and those of librosa.decompose.hpss."""

    name: Literal["hpss"] = "hpss"
    sample_rate: int = Field(22_050, gt=0)
    n_fft: int = Field(2048, gt=0, multiple_of=2)
    hop_length: int = Field(512, gt=0)
    n_mels: int = Field(128, gt=0)
    fmin_hz: float = 30.0
    fmax_hz: float = 11_025.0
    floor: float = Field(1e-5, gt=0)
    harmonic_frames: int = Field(31, gt=0)  # over which the median is taken: what lasts
    percussive_bins: int = Field(31, gt=0)  # what is broad
    power: float = Field(2.0, gt=0)
    margin: float = Field(1.0, ge=1)

    @model_validator(mode="after")
    def _band_fits_below_nyquist(self) -> Self:
        nyquist_hz = self.sample_rate / 2
        if not 0 <= self.fmin_hz < self.fmax_hz <= nyquist_hz:
            raise ValueError(
                f"hpss needs 0 <= fmin_hz < fmax_hz <= {nyquist_hz:g}, half the sample rate; "
                f"got fmin_hz={self.fmin_hz:g} and fmax_hz={self.fmax_hz:g}"
            )
        return self

    @model_validator(mode="after")
    def _medians_have_a_middle(self) -> Self:
        if not (self.harmonic_frames % 2 and self.percussive_bins % 2):
            raise ValueError(
                "hpss needs odd harmonic_frames and percussive_bins: a median has a middle; "
                f"got {self.harmonic_frames} and {self.percussive_bins}"
            )
        return self

    def shape(self, n_samples: int) -> tuple[int, int]:
        """(2 F, L) for a clip of `n_samples`, known before any audio is read."""
        return 2 * self.n_mels, 1 + n_samples // self.hop_length


class Hpss(nn.Module):
    """Waveforms [B, T] to log-mel energies [B, 2 F, L], harmonic below percussive. On the CPU, clip by clip."""

    def __init__(self, spec: HpssSpec) -> None:
        super().__init__()
        self.spec = spec
        self._bands = mel_bands(spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin_hz, spec.fmax_hz)

    def forward(self, wave: Tensor) -> Tensor:
        return clip_by_clip(self.fast, wave)

    def fast(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """One clip [T] to [2 F, L], harmonic first."""
        parts = separate(magnitudes(wave, self.spec.n_fft, self.spec.hop_length), self.spec)
        energies = [self._bands @ np.ascontiguousarray(part**2) for part in parts]
        logs: NDArray[np.float32] = np.log(np.concatenate(energies) + np.float32(self.spec.floor))
        return logs


def separate(magnitude: NDArray[np.float32], spec: HpssSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Magnitudes [K, L] to those of the harmonic and of the percussive part: librosa.decompose.hpss to the last bit.

    Of clips of two frames alone it differs: there scipy.ndimage 1.17, which librosa calls, does not mirror rightly.
    """
    from librosa.util import softmask

    whole = np.ascontiguousarray(magnitude)  # librosa's STFT lies the other way round, and masks it half as fast
    harmonic = _median(whole, spec.harmonic_frames)
    percussive = np.ascontiguousarray(_median(magnitude.T, spec.percussive_bins).T)
    split = spec.margin == 1  # where neither part has energy, each gets half of nothing
    of_harmonic = softmask(harmonic, percussive * spec.margin, power=spec.power, split_zeros=split)
    of_percussive = softmask(percussive, harmonic * spec.margin, power=spec.power, split_zeros=split)
    return whole * of_harmonic, whole * of_percussive


def _median(rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Along the last axis, mirrored at its ends. By sorting every window: scipy.ndimage takes 6 times as long."""
    padded = np.pad(np.ascontiguousarray(rows), ((0, 0), (size // 2, size // 2)), mode="symmetric")
    windows = sliding_window_view(padded, size, axis=1)  # [rows, columns, size]
    median = np.empty_like(rows, order="C")
    step = 1 + SORTED_AT_ONCE // windows[0].size
    for begin in range(0, len(rows), step):
        median[begin : begin + step] = np.sort(windows[begin : begin + step], axis=-1)[..., size // 2]
    return median
