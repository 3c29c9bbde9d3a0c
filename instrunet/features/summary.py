"""The emotion seed's 392 numbers: means and deviations over time of eight descriptions of a sound.

They are what librosa.feature.* gives when called one by one with its defaults and `y=`. That makes the same STFT seven
times, and two thirds of its time go into the tonnetz; here one STFT serves all, and filters are kept (spectra.py).

Shapes: B clips, T samples, L frames, K frequency bins, P peaks.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.features.spectra import chroma_filters, clip_by_clip, constant_q, magnitudes, mel_bands

N_FFT, HOP_LENGTH = 2048, 512  # librosa's defaults
N_MELS, N_MFCC = 128, 40
CONTRAST_HZ = (0, 200, 400, 800, 1600, 3200, 6400, 12_800)  # edges of its seven bands
ROLLOFF = 0.85
C1_HZ = 32.70319566257483
TINY = float(np.finfo(np.float32).tiny)  # below it librosa divides by 1
# What the numbers are of, in the seed's order; of each row first all the means, then all the deviations
ROWS = {
    "mfcc": N_MFCC,
    "chroma": 12,
    "mel": N_MELS,
    "contrast": 7,
    "tonnetz": 6,
    "zero_crossings": 1,
    "centroid": 1,
    "rolloff": 1,
}
N_NUMBERS = 2 * sum(ROWS.values())


class SummarySpec(Spec):
    """The seed's own settings are fixed: others would be other numbers under the same names."""

    name: Literal["summary"] = "summary"
    sample_rate: int = Field(22_050, gt=12_800)  # the last band of the contrast begins at 6,400 Hz
    # What is so much below a clip's loudest counts as nothing in contrast and tonnetz. None, the seed's: in bands and
    # frames without sound they are what an FFT rounds to, which no graph (ONNX) repeats
    quiet_db: float | None = Field(None, gt=0, le=100)

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bundles from before there was `quiet_db` keep their fingerprints."""
        return {name: value for name, value in dump(self).items() if name != "quiet_db" or value is not None}

    @property
    def quiet(self) -> float:
        """The same as a share of an amplitude."""
        return 0.0 if self.quiet_db is None else float(10 ** (-self.quiet_db / 20))

    def shape(self, n_samples: int) -> tuple[int, int]:
        """(392, 1), whatever the length."""
        return N_NUMBERS, 1


class Summary(nn.Module):
    """Waveforms [B, T] to [B, 392, 1]. On the CPU, clip by clip, also in `forward`.

    mel is energy, mfcc and contrast are of decibels at most 80 below the clip's largest, centroid and roll-off in Hz.
    """

    def __init__(self, spec: SummarySpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, wave: Tensor) -> Tensor:
        return clip_by_clip(self.fast, wave)

    def fast(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """One clip [T] to [392, 1]."""
        parts = describe(wave, self.spec)
        numbers = [statistic(parts[name], axis=1) for name in ROWS for statistic in (np.mean, np.std)]
        return np.concatenate(numbers).astype(np.float32)[:, None]


def names() -> list[str]:
    """What each of the 392 numbers is: mfcc_00_mean .. rolloff_std, in their order."""
    return [
        "_".join((row, *([f"{k:0{len(str(n - 1))}d}"] if n > 1 else []), statistic))
        for row, n in ROWS.items()
        for statistic in ("mean", "std")
        for k in range(n)
    ]


def describe(wave: NDArray[np.float32], spec: SummarySpec) -> dict[str, NDArray[np.floating]]:
    """Each of ROWS as [rows, L]."""
    import librosa

    sample_rate = spec.sample_rate
    magnitude = magnitudes(wave, N_FFT, HOP_LENGTH)  # [K, L]
    power = magnitude**2
    mel = mel_bands(sample_rate, N_FFT, N_MELS, 0.0, sample_rate / 2) @ np.ascontiguousarray(power)
    hz = np.linspace(0, sample_rate / 2, len(magnitude))
    return {
        "mfcc": librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=N_MFCC),
        "chroma": _chroma(power, sample_rate),
        "mel": mel,
        "contrast": _contrast(np.maximum(magnitude, spec.quiet * magnitude.max()), hz),
        "tonnetz": _tonnetz(wave, magnitude, spec),
        "zero_crossings": _zero_crossings(wave),
        "centroid": _centroid(magnitude, hz),
        "rolloff": _rolloff(magnitude, hz),
    }


def _chroma(power: NDArray[np.float32], sample_rate: int) -> NDArray[np.floating]:
    from librosa.util import normalize

    filters = chroma_filters(sample_rate, N_FFT, _tuning(power, sample_rate, 12))
    chroma: NDArray[np.floating] = normalize(filters @ power, norm=np.inf, axis=0)
    return chroma


def _tonnetz(wave: NDArray[np.float32], magnitude: NDArray[np.float32], spec: SummarySpec) -> NDArray[np.floating]:
    import librosa

    sample_rate = spec.sample_rate
    tuning = _tuning(magnitude, sample_rate, 36)
    transform = constant_q(sample_rate, HOP_LENGTH, C1_HZ * 2.0 ** (tuning / 36), 7 * 36, 36)
    amplitudes = transform(wave)
    loud = amplitudes.sum(0)
    chroma = librosa.feature.chroma_cqt(C=amplitudes * (loud >= spec.quiet * loud.max()), sr=sample_rate)
    tonnetz: NDArray[np.floating] = librosa.feature.tonnetz(chroma=chroma, sr=sample_rate)
    return tonnetz


def _tuning(spectrum: NDArray[np.float32], sample_rate: int, bins_per_octave: int) -> float:
    """By how much of a bin the peaks are off: librosa.estimate_tuning, 0.6 ms instead of 4.

    Both count peaks of 150 to 4000 Hz; librosa works out all bins first.

    Sums are single and double precision where librosa's compiled loops have them: a peak that moves by a rounding
    may fall into the next step of the histogram and change the tuning of the whole clip.
    """
    import librosa

    hz = np.linspace(0, sample_rate / 2, len(spectrum))
    low, high = np.searchsorted(hz, (150, min(4000, sample_rate / 2)))
    frames = spectrum.T  # [L, K], as it lies in memory
    below, at, above = (frames[:, low + k : high + k] for k in (-1, 0, 1))
    frame, k = np.nonzero((at > below) & (at >= above) & (at > 0.1 * frames.max(1, keepdims=True)))
    if not len(k):
        return 0.0
    below, at, above = below[frame, k], at[frame, k], above[frame, k]  # [P]
    curve = (above + below).astype(np.float64) - 2 * at.astype(np.float64)
    slope = (above - below).astype(np.float64) / 2
    bent = np.abs(slope) < np.abs(curve)
    shift = np.where(bent, -slope / np.where(bent, curve, 1), 0).astype(np.float32)
    peak_hz = ((k + low + shift) * sample_rate / N_FFT).astype(np.float32)
    height = at + np.float32(0.5) * ((above - below) / 2) * shift
    return float(librosa.pitch_tuning(peak_hz[height >= np.median(height)], bins_per_octave=bins_per_octave))


def contrast_bands(hz: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """First bin of each band of the contrast, the one behind its last, and how many make a peak or a valley.

    librosa's bands: from the bin below the lower edge to the bin below the upper.
    """
    first, last = np.searchsorted(hz, CONTRAST_HZ[:-1]), np.searchsorted(hz, CONTRAST_HZ[1:], side="right")
    first[1:] -= 1
    last[-1] = len(hz)
    return [
        (int(begin), int(end) - (k < len(first) - 1), max(int(np.rint(0.02 * (end - begin))), 1))
        for k, (begin, end) in enumerate(zip(first, last, strict=True))
    ]


def _contrast(magnitude: NDArray[np.float32], hz: NDArray[np.float64]) -> NDArray[np.floating]:
    """Peaks over valleys in dB."""
    import librosa

    frames = magnitude.T  # [L, K]
    valleys, peaks = [], []
    for begin, end, n in contrast_bands(hz):
        ordered = np.sort(frames[:, begin:end], axis=1)
        valleys.append(ordered[:, :n].mean(1))
        peaks.append(ordered[:, -n:].mean(1))
    contrast: NDArray[np.floating] = librosa.power_to_db(np.stack(peaks)) - librosa.power_to_db(np.stack(valleys))
    return contrast


def _zero_crossings(wave: NDArray[np.float32]) -> NDArray[np.floating]:
    """Share of samples of a frame that begin a new sign, by a running count: frames overlap by three quarters."""
    import librosa

    crossing = librosa.zero_crossings(np.pad(wave, N_FFT // 2, mode="edge"), pad=False)
    count = np.cumsum(crossing)
    begin = np.arange(0, len(wave) + 1, HOP_LENGTH)
    share: NDArray[np.floating] = (count[begin + N_FFT - 1] - count[begin]) / N_FFT
    return share[None]


def _centroid(magnitude: NDArray[np.float32], hz: NDArray[np.float64]) -> NDArray[np.floating]:
    total = magnitude.sum(0)
    centroid: NDArray[np.floating] = hz.astype(np.float32) @ magnitude / np.where(total < TINY, 1, total)
    return centroid[None]


def _rolloff(magnitude: NDArray[np.float32], hz: NDArray[np.float64]) -> NDArray[np.floating]:
    """The frequency below which 85 % of the magnitude lies."""
    below = np.cumsum(magnitude.T, axis=1)  # [L, K]
    rolloff: NDArray[np.floating] = hz[np.argmax(below >= ROLLOFF * below[:, -1:], axis=1)]
    return rolloff[None]
