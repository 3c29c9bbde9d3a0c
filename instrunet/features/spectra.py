"""What several features share: the constant-Q transform with its filters kept, and modules that work clip by clip.

`librosa.cqt` builds its filters on every call and for every octave, although those of an octave at half the rate are
the same ones. Kept, the transform of 3 s that the tonnetz needs takes 7 ms instead of 44. The recursion over octaves is
librosa's; its filters, STFT and resampling are called, so that the numbers are its numbers too.

Shapes: B clips, T samples, F bands, L frames, K frequency bins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet.features.logmel import LogMelSpec, slaney_bands

HANN_BANDWIDTH = 1.50018310546875  # in bins: librosa.filters.window_bandwidth("hann")


@dataclass(frozen=True)
class Octave:
    basis: Any  # sparse [filters of the octave, n_fft // 2 + 1], complex
    n_fft: int
    hop_length: int
    halved: bool  # whether the sound is brought to half its rate before this octave


@dataclass(frozen=True)
class ConstantQ:
    """The filters of a constant-Q transform, highest octave first."""

    hop_length: int
    n_early: int  # how often the sound is halved before the first octave
    octaves: tuple[Octave, ...]
    gain: NDArray[np.float32]  # [F, 1], what librosa's `scale=True` and the halvings ask for

    def __call__(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """[T] to amplitudes [F, L], librosa.cqt(..., scale=True) to 1e-6 of the largest."""
        n_frames = 1 + len(wave) // self.hop_length
        wave = slower(wave, 2**self.n_early)
        rows = []
        for octave in self.octaves:
            wave = slower(wave, 2 if octave.halved else 1)
            spectrum = _stft(wave, octave.n_fft, octave.hop_length, "ones")[:, :n_frames]
            rows.append(np.abs(octave.basis @ spectrum))
        amplitude: NDArray[np.float32] = np.concatenate(rows[::-1]) * self.gain
        return amplitude


def highest_hz(fmin_hz: float, n_bins: int, bins_per_octave: int) -> float:
    """Where the pass band of the highest filter ends."""
    top_hz: float = fmin_hz * 2.0 ** ((n_bins - 1) / bins_per_octave)
    return top_hz * (1 + 0.5 * HANN_BANDWIDTH * _relative_bandwidth(bins_per_octave))


# 128: librosa's tuning is one of 100 steps, so that each is made once in a process (4 ms, and 8 KB)
@lru_cache(maxsize=128)
def constant_q(sample_rate: float, hop_length: int, fmin_hz: float, n_bins: int, bins_per_octave: int) -> ConstantQ:
    n_octaves = -(-n_bins // bins_per_octave)
    hz = fmin_hz * _ratios(n_bins, bins_per_octave)
    n_early = _n_early(sample_rate / 2, highest_hz(fmin_hz, n_bins, bins_per_octave), hop_length, n_octaves)
    base_rate, rate, hop = sample_rate / 2**n_early, sample_rate / 2**n_early, hop_length // 2**n_early
    octaves: list[Octave] = []
    gains = []
    for k in range(n_octaves):
        if halved := k > 0 and hop % 2 == 0:
            rate, hop = rate / 2, hop // 2
        of_octave = hz[max(n_bins - bins_per_octave * (k + 1), 0) : n_bins - bins_per_octave * k]
        if halved and len(of_octave) == bins_per_octave:
            basis, n_fft = octaves[-1].basis, octaves[-1].n_fft
        else:
            basis, n_fft = _filters(of_octave, rate, bins_per_octave)
        octaves.append(Octave(basis, n_fft, hop, halved))
        lengths = base_rate / (of_octave * _relative_bandwidth(bins_per_octave))
        gains.append(np.sqrt(base_rate / rate / lengths))
    gain = np.concatenate(gains[::-1])[:, None].astype(np.float32)
    return ConstantQ(hop_length, n_early, tuple(octaves), gain)


def magnitudes(wave: NDArray[np.float32], n_fft: int, hop_length: int) -> NDArray[np.float32]:
    """[T] to [K, L]: those of librosa.stft with its defaults (Hann, zeros at both ends), to the last bit."""
    magnitude: NDArray[np.float32] = np.abs(_stft(wave, n_fft, hop_length, "hann"))
    return magnitude


@lru_cache(maxsize=16)
def mel_bands(sample_rate: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> Any:
    """[F, K] sparse: the weights of `logmel`, in single precision."""
    spec = LogMelSpec(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin_hz=fmin_hz, fmax_hz=fmax_hz)
    return scipy.sparse.csr_matrix(slaney_bands(spec).astype(np.float32))


@lru_cache(maxsize=128)  # a tuning is one of 100 steps
def chroma_filters(sample_rate: int, n_fft: int, tuning: float) -> NDArray[np.float32]:
    """[12, K], tuning in semitones."""
    import librosa

    filters: NDArray[np.float32] = librosa.filters.chroma(sr=sample_rate, n_fft=n_fft, tuning=tuning)
    return filters


def clip_by_clip(fast: Callable[[NDArray[np.float32]], NDArray[np.float32]], wave: Tensor) -> Tensor:
    """[B, T] to [B, F, L] by numpy: on the CPU, without gradients. For a graph there is `traced`."""
    rows = [fast(row) for row in wave.detach().cpu().numpy()]
    return torch.from_numpy(np.stack(rows)).to(wave.device)


def _filters(hz: NDArray[np.float64], rate: float, bins_per_octave: int) -> tuple[Any, int]:
    """The spectra of the filters at `hz`; 1 % of each one's sum is dropped, as librosa does."""
    import librosa
    import scipy.fft

    basis, lengths = librosa.filters.wavelet(freqs=hz, sr=rate, alpha=_relative_bandwidth(bins_per_octave))
    n_fft = basis.shape[1]
    basis *= lengths[:, None] / n_fft
    spectra = scipy.fft.fft(basis, axis=1)[:, : n_fft // 2 + 1]
    return librosa.util.sparsify_rows(spectra, quantile=0.01, dtype=np.complex64), n_fft


def _stft(wave: NDArray[np.float32], n_fft: int, hop_length: int, window: str) -> NDArray[np.complex64]:
    import librosa

    padded = np.pad(wave, n_fft // 2)  # by librosa itself with a warning about clips shorter than n_fft
    spectrum: NDArray[np.complex64] = librosa.stft(
        padded, n_fft=n_fft, hop_length=hop_length, window=window, center=False
    )
    return spectrum


def slower(wave: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """At a `factor`-th of its rate, with the energy it had."""
    import librosa

    slow: NDArray[np.float32] = librosa.resample(wave, orig_sr=factor, target_sr=1, res_type="soxr_hq", scale=True)
    return slow


def _ratios(n_bins: int, bins_per_octave: int) -> NDArray[np.float64]:
    """Octaves as exact powers of two, so that the filters of two octaves are the same."""
    octave, step = np.divmod(np.arange(n_bins), bins_per_octave)
    ratios: NDArray[np.float64] = 2.0**octave * 2.0 ** (step / bins_per_octave)
    return ratios


def _relative_bandwidth(bins_per_octave: int) -> float:
    r: float = 2.0 ** (2 / bins_per_octave)
    return (r - 1) / (r + 1)


def _n_early(nyquist_hz: float, top_hz: float, hop_length: int, n_octaves: int) -> int:
    """How often the whole sound may be halved: while the highest filter still fits and every octave has its hop."""
    by_band = int(np.ceil(np.log2(nyquist_hz / top_hz))) - 2
    by_hop = (hop_length & -hop_length).bit_length() - 1 - n_octaves + 1
    return max(0, min(by_band, by_hop))
