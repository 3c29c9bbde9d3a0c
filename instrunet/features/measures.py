"""What a sound is like, in six numbers by which data of another kind is told: level, peak, bandwidth, values, length.

Shapes: W windows, N samples of a window, F bands, L frames, K frequency bins, M measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from instrunet.audio.io import QUIET
from instrunet.features.logmel import hann


@dataclass(frozen=True)
class Measure:
    """`least` is a difference that means nothing; the words go before a number, for clips below and above it."""

    name: str
    least: float
    below: str
    above: str
    form: str
    scale: float = 1.0

    def said(self, value: float) -> str:
        return self.form.format(value * self.scale)


# Of each window, then the median over a clip's windows, so that a long recording compares with short clips; only the
# duration is the clip's. The value range is that of the front end's first feature, after its level.
MEASURES = (
    Measure("level_db", 3.0, "are quieter than", "are louder than", "{:.1f} dBFS (RMS)"),
    Measure("peak_db", 3.0, "have a peak below", "have a peak above", "{:.1f} dBFS"),
    Measure("bandwidth_hz", 500.0, "have no energy above", "have energy above", "{:.1f} kHz", 1e-3),
    Measure("feature_low", 0.5, "have a smallest feature value below", "have no feature value below", "{:.1f}"),
    Measure("feature_high", 0.5, "have no feature value above", "have a largest feature value above", "{:.1f}"),
    Measure("duration_s", 0.5, "are shorter than", "are longer than", "{:.1f} s"),
)
NAMES = tuple(measure.name for measure in MEASURES)
N_FFT = 2048
HELD = 1e-7  # -70 dB: at it half the clips of the real packs reach 10.4 kHz, and a cut at 7 kHz shows in most
PAUSE = 1e-2  # a window 40 dB below the loudest says nothing about a recording
HANN = hann(N_FFT).numpy()


class Level(NamedTuple):
    """One window as it was recorded."""

    peak: np.float32
    square: float  # of its samples, the mean
    powers: NDArray[np.float32]  # [K] at each frequency, in any unit

    @classmethod
    def of(cls, wave: NDArray[np.float32], peak: np.float32, powers: NDArray[np.float32] | None = None) -> "Level":
        """Of its own samples [N]; `powers` [P, K] are those of its frames, end to end, where its features have them."""
        total = spectrum(wave) if powers is None or not len(powers) else powers.sum(0)
        return cls(peak, float(wave @ wave) / len(wave), total)


class Levels(NamedTuple):
    """What windows are like before their features: which are `loud` [W], and the first three measures of those."""

    loud: NDArray[np.bool_]
    rows: tuple[NDArray[np.floating], ...]


def peak(wave: NDArray[np.float32]) -> np.float32:
    """Without a copy, which `abs` makes."""
    highest: np.float32 = max(wave.max(initial=0), -wave.min(initial=0))
    return highest


def spectrum(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N] to powers [K]: the sum over frames that lie end to end, or one that is filled up."""
    whole = wave[: len(wave) // N_FFT * N_FFT] if len(wave) >= N_FFT else np.pad(wave, (0, N_FFT - len(wave)))
    frames = torch.from_numpy(whole.reshape(-1, N_FFT) * HANN)
    parts = torch.fft.rfft(frames).numpy().view(np.float32)  # real and imaginary in turn
    squares: NDArray[np.float32] = np.einsum("lk,lk->k", parts, parts)
    return squares[::2] + squares[1::2]  # in a third of the time of abs


def levels(windows: Sequence[Level], rate: int) -> Levels:
    """Of all windows of a sound."""
    peaks = np.array([one.peak for one in windows], np.float32)
    loud = peaks >= max(QUIET, PAUSE * float(peaks.max(initial=0.0)))
    if not loud.any():
        return Levels(loud, ())
    rows = (
        10 * np.log10(np.maximum([one.square for one in windows], 1e-12))[loud],
        20 * np.log10(peaks[loud]),
        bandwidth(np.stack([one.powers for one in windows])[loud], rate),
    )
    return Levels(loud, rows)


def with_feature(of: Levels, feature: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """[M], or nothing, [0], of silence; of the first feature [W, F, L] only each window's extremes count."""
    if not of.rows:
        return np.zeros(0, np.float32)
    values = feature if of.loud.all() else feature[of.loud]
    rows = (*of.rows, values.min((1, 2)), values.max((1, 2)))
    return np.array([*np.median(np.stack(rows), axis=1), seconds], np.float32)


def bandwidth(power: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Power spectra [W, K] to the highest frequency [W] of each that is within 70 dB of its peak."""
    held = power >= HELD * power.max(1, keepdims=True)
    highest: NDArray[np.float64] = (held.shape[1] - 1 - held[:, ::-1].argmax(1)) * (rate / N_FFT)
    return highest
