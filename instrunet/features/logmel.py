"""Log-mel spectrogram: the picture of a sound that most of our models look at.

Shapes: B clips, T samples, F mel bands, L frames, K frequency bins.
"""

from typing import Literal, Self

import numpy as np
import scipy.fft
import scipy.sparse
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from instrunet.config import Spec


class LogMelSpec(Spec):
    """All that decides what a frame looks like. It is stored with the model."""

    name: Literal["logmel"] = "logmel"
    sample_rate: int = Field(22_050, gt=0)
    n_fft: int = Field(2048, gt=0, multiple_of=2)  # an odd one breaks the shape law: half a window is no whole number
    hop_length: int = Field(512, gt=0)
    n_mels: int = Field(128, gt=0)
    fmin_hz: float = 30.0
    fmax_hz: float = 11_025.0
    floor: float = Field(1e-5, gt=0)

    @model_validator(mode="after")
    def _band_fits_below_nyquist(self) -> Self:
        nyquist_hz = self.sample_rate / 2
        if not 0 <= self.fmin_hz < self.fmax_hz <= nyquist_hz:
            raise ValueError(
                f"logmel needs 0 <= fmin_hz < fmax_hz <= {nyquist_hz:g}, half the sample rate; "
                f"got fmin_hz={self.fmin_hz:g} and fmax_hz={self.fmax_hz:g}"
            )
        return self

    def shape(self, n_samples: int) -> tuple[int, int]:
        """(F, L) for a clip of `n_samples`, known before any audio is read."""
        return self.n_mels, 1 + n_samples // self.hop_length


class LogMel(nn.Module):
    """Waveforms [B, T] to log-mel energies [B, F, L], the same in training and in serving."""

    def __init__(self, spec: LogMelSpec) -> None:
        super().__init__()
        self.spec = spec
        # Slaney scale and norm are librosa's defaults; HTK moves the centres of these 128 bands by up to 29 %.
        self.mel = MelSpectrogram(
            spec.sample_rate,
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            f_min=spec.fmin_hz,
            f_max=spec.fmax_hz,
            n_mels=spec.n_mels,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",  # reflection fails on clips shorter than half a window
        )
        self._bands = scipy.sparse.csr_matrix(self.mel.mel_scale.fb.numpy().T)  # [F, K], 1.5 % of it is not zero
        self._window = self.mel.spectrogram.window.numpy()

    def forward(self, wave: Tensor) -> Tensor:
        return torch.log(self.mel(wave) + self.spec.floor)

    def fast(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """One clip [T] to [F, L] on the CPU: real FFTs in float32 and a sparse mel matrix."""
        half = self.spec.n_fft // 2
        padded = np.pad(wave, (half, half))
        frames = sliding_window_view(padded, self.spec.n_fft)[:: self.spec.hop_length]  # [L, n_fft]
        spectrum = scipy.fft.rfft(frames * self._window, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2  # [L, K]
        energy: NDArray[np.float32] = self._bands @ power.T
        logs: NDArray[np.float32] = np.log(energy + np.float32(self.spec.floor))
        return logs
