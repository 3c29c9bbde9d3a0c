"""Chroma: how much of each of the twelve pitch classes sounds, whatever the octave.

Shapes: B clips, T samples, C = 12 pitch classes from C to B, L frames, K frequency bins.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torchaudio.transforms import Spectrogram

from instrunet.config import Spec
from instrunet.features.spectra import chroma_filters, magnitudes

N_CHROMA = 12


class ChromaSpec(Spec):
    """librosa.feature.chroma_stft's settings. Each frame's largest class is 1, as there; a silent frame is 0."""

    name: Literal["chroma"] = "chroma"
    sample_rate: int = Field(22_050, gt=0)
    n_fft: int = Field(2048, gt=0, multiple_of=2)
    hop_length: int = Field(512, gt=0)
    # In semitones. librosa estimates it from each clip by default: one number for all keeps a clip's windows alike,
    # and a network can be exported
    tuning: float = Field(0.0, ge=-0.5, lt=0.5)

    def shape(self, n_samples: int) -> tuple[int, int]:
        """(C, L) for a clip of `n_samples`, known before any audio is read."""
        return N_CHROMA, 1 + n_samples // self.hop_length


class Chroma(nn.Module):
    """Waveforms [B, T] to pitch classes [B, C, L] between 0 and 1."""

    filters: Tensor

    def __init__(self, spec: ChromaSpec) -> None:
        super().__init__()
        self.spec = spec
        filters = torch.from_numpy(chroma_filters(spec.sample_rate, spec.n_fft, spec.tuning))
        self.register_buffer("filters", filters, persistent=False)  # [C, K]
        self.power = Spectrogram(spec.n_fft, hop_length=spec.hop_length, pad_mode="constant")

    def forward(self, wave: Tensor) -> Tensor:
        chroma: Tensor = self.filters @ self.power(wave)
        largest = chroma.amax(1, keepdim=True)
        silent = largest < torch.finfo(torch.float32).tiny
        return chroma / torch.where(silent, torch.ones_like(largest), largest)

    def fast(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """One clip [T] to [C, L]."""
        from librosa.util import normalize

        power = magnitudes(wave, self.spec.n_fft, self.spec.hop_length) ** 2
        filters = chroma_filters(self.spec.sample_rate, self.spec.n_fft, self.spec.tuning)
        chroma: NDArray[np.float32] = normalize(filters @ power, norm=np.inf, axis=0)
        return chroma
