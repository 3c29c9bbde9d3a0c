"""What a sound is like, in six numbers by which data of another kind is told: level, peak, bandwidth, values, length.

Shapes: W windows, N samples of a window, F bands, L frames, K frequency bins, M measures.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet.audio.io import QUIET


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
HANN = torch.hann_window(N_FFT)


class Levels(NamedTuple):
    """What windows are like before their features: which are `loud` [W], and the first three measures of those."""

    loud: NDArray[np.bool_]
    rows: tuple[NDArray[np.floating], ...]


def measured(cut: NDArray[np.float32], feature: NDArray[np.float32], seconds: float, rate: int) -> NDArray[np.float32]:
    """[M] of one sound, from its windows [W, N] and their first feature [W, F, L]; nothing, [0], where it is silent."""
    return with_feature(levels(cut, rate), feature, seconds)


def levels(cut: NDArray[np.float32], rate: int) -> Levels:
    peak = np.maximum(cut.max(1, initial=0.0), -cut.min(1, initial=0.0))
    loud = peak >= max(QUIET, PAUSE * float(peak.max(initial=0.0)))
    if not loud.any():
        return Levels(loud, ())
    wave = cut if loud.all() else cut[loud]
    rows = (
        10 * np.log10(np.maximum(np.einsum("wn,wn->w", wave, wave) / wave.shape[1], 1e-12)),
        20 * np.log10(peak[loud]),
        bandwidth(torch.from_numpy(wave), rate),
    )
    return Levels(loud, rows)


def with_feature(of: Levels, feature: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """[M]; of the feature only the smallest and the largest value of each window count."""
    if not of.rows:
        return np.zeros(0, np.float32)
    values = feature if of.loud.all() else feature[of.loud]
    rows = (*of.rows, values.min((1, 2)), values.max((1, 2)))
    return np.array([*np.median(np.stack(rows), axis=1), seconds], np.float32)


def bandwidth(wave: Tensor, rate: int) -> NDArray[np.float64]:
    """[W, N] to the highest frequency [W] at which a window's mean power spectrum is within 70 dB of its peak."""
    short = N_FFT - wave.shape[1]
    frames = (torch.nn.functional.pad(wave, (0, short)) if short > 0 else wave).unfold(1, N_FFT, N_FFT)
    spectrum = torch.fft.rfft(frames * HANN).numpy()
    parts = spectrum.view(np.float32)  # real and imaginary in turn
    squares = np.einsum("wlk,wlk->wk", parts, parts)
    power = squares[:, ::2] + squares[:, 1::2]  # [W, K], in a third of the time of abs
    held = power >= HELD * power.max(1, keepdims=True)
    highest: NDArray[np.float64] = (held.shape[1] - 1 - held[:, ::-1].argmax(1)) * (rate / N_FFT)
    return highest
