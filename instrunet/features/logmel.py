"""Log-mel spectrogram: the picture of a sound that most of our models look at.

Shapes: B clips, T samples, F mel bands, L frames, K frequency bins.
"""

from contextlib import suppress
from typing import Literal, Self

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from instrunet.config import Spec

# 130 frames of 2048 samples are worked on at once, about as much as a second-level cache of 2 MB holds. Times librosa's
# rate at hop 512 and 128: 44 frames 5.4 and 4.1 (MKL makes its plan anew at each call, 27 us), 130 frames 5.9 and 4.4.
BLOCK_SAMPLES = 130 * 2048


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
            window_fn=hann,
        )
        bands = slaney_bands(spec)
        self.mel.mel_scale.fb.copy_(torch.from_numpy(bands.T))
        self._bands = scipy.sparse.csr_matrix(bands, dtype=np.float32)  # [F, K], 1.5 % of it is not zero
        self._window = hann(spec.n_fft)
        self._free: list[Tensor] = []  # those that no thread is using

    def forward(self, wave: Tensor) -> Tensor:
        return torch.log(self.mel(wave) + self.spec.floor)

    def fast(self, wave: NDArray[np.float32], powers: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """One clip [T] to [F, L] on the CPU, block by block: MKL's real FFT in float32 and a sparse mel matrix.

        `powers` [P, K] is filled with those of the first P frames that lie end to end, if it `has_end_to_end`.
        """
        n_fft, half = self.spec.n_fft, self.spec.n_fft // 2
        padded = np.zeros(len(wave) + n_fft, np.float32)
        padded[half : half + len(wave)] = wave
        frames = torch.from_numpy(padded).unfold(0, n_fft, self.spec.hop_length)  # [L, n_fft], a view
        block = self._block()
        n_block = len(block)
        logs = np.empty(self.spec.shape(len(wave)), np.float32)
        for first in range(0, len(frames), n_block):
            some = frames[first : first + n_block]
            power = self._power(some, block[: len(some)])
            if powers is not None and len(powers):
                self._keep(powers, power, first)
            logs[:, first : first + n_block] = self._bands @ power.T
        self._free.append(block)
        logs += np.float32(self.spec.floor)
        return np.log(logs, out=logs)

    def _block(self) -> Tensor:
        """Of a block. Kept from call to call: malloc may give so much back each time, which doubles a call's time."""
        with suppress(IndexError):
            return self._free.pop()
        with torch.inference_mode(False):  # or nobody could write into it outside of the mode it was made in
            return torch.empty(max(1, BLOCK_SAMPLES // self.spec.n_fft), self.spec.n_fft, dtype=torch.float32)

    def has_end_to_end(self, n_fft: int) -> bool:
        """Whether frames of so many samples, the first at the clip's begin, are among its own."""
        return self.spec.n_fft == n_fft and n_fft // 2 % self.spec.hop_length == 0

    def _keep(self, powers: NDArray[np.float32], power: NDArray[np.float32], first: int) -> None:
        """Of a block [l, K] that begins with frame `first`."""
        at, step = self.spec.n_fft // 2 // self.spec.hop_length, self.spec.n_fft // self.spec.hop_length
        begin, end = (max(0, -(-(frame - at) // step)) for frame in (first, first + len(power)))
        mine = powers[begin:end]
        mine[:] = power[at + begin * step - first :: step][: len(mine)]

    def _power(self, frames: Tensor, block: Tensor) -> NDArray[np.float32]:
        """[l, n_fft] to [l, K]. The result lies where the windowed frames lay: one buffer less in the cache."""
        spectrum = torch.fft.rfft(torch.mul(frames, self._window, out=block)).numpy()
        power: NDArray[np.float32] = block.numpy().reshape(-1)[: spectrum.size].reshape(spectrum.shape)
        np.abs(spectrum, out=power)  # numpy's is four times as fast as torch's
        return np.multiply(power, power, out=power)


def edges_hz(spec: LogMelSpec) -> NDArray[np.float64]:
    """[F + 2]: band k begins at edge k, is highest at edge k + 1 and ends at edge k + 2."""
    edges: NDArray[np.float64] = _hz(np.linspace(_mel(spec.fmin_hz), _mel(spec.fmax_hz), spec.n_mels + 2))
    return edges


def slaney_bands(spec: LogMelSpec) -> NDArray[np.float64]:
    """[F, K]: triangles of equal area, as librosa.filters.mel, which needs 1.4 s for its first call (numba).

    In double precision: torchaudio's weights, in single, move a quiet band beside a loud one by up to 0.006 dB.
    """
    edges = edges_hz(spec)[:, None]  # [F + 2, 1]
    bins = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate / spec.n_fft)  # [K]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    bands: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))
    return bands


def _mel(hz: float) -> float:
    """Slaney's scale: 66.7 Hz each up to 1 kHz, then 27 to a factor of 6.4."""
    return float(hz * 0.015 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4))


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel / 0.015, 1000 * 6.4 ** ((mel - 15) / 27))


def hann(n: int) -> Tensor:
    """Rounded once: torch's own in single precision is off by 2e-7, and doubles the error of a quiet band."""
    return torch.hann_window(n, dtype=torch.float64).float()
