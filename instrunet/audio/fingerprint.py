"""What a clip sounds like in 504 bytes: a hash of its samples, and a print that lossy copies of it still match.

The print is made of levels in dB, not of hash bits: the signs of Haitsma and Kalker are noise on held notes, and
landmarks need seconds. The clip is brought to 8 kHz (so that 8 kHz speech and 44.1 kHz masters compare), cut into
frames of 128 ms every 32 ms, and its power taken in 120 bands of half a semitone from 110 Hz to 3.5 kHz. Stored are

* its duration (4 bytes),
* `tone` (120): the mean over time, which tells notes and voices apart and forgets where in time they were,
* `course` (8 pieces of the whole clip x 10 bands): what the start does not say of a long clip,
* `onset` (30 frames x 10 bands): a second from 0.1 s before 2 % of the energy has come, whatever silence is ahead of
  it, compared at shifts of up to 96 ms both ways in steps of 16 ms.

All are relative to the mean power of the clip, so that gain does not matter, and cut off where codecs leave noise:
20 dB below it for the tone, 30 dB for the rest. matching.py compares them; tests/audio/test_fingerprint.py measures
what they survive. Shapes: T samples, L frames.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from instrunet.audio import io

RATE, N_FFT, HOP = 8000, 1024, 256
BANDS, COARSE, PIECES, FRAMES = 120, 10, 8, 30
FMIN_HZ, FMAX_HZ = 110.0, 3500.0
SMOOTHER = np.array([1, 2, 3, 2, 1], np.float32) / 9  # in time: a shift by part of a frame moves attacks less
FLOOR_DB, STEP_DB = -30.0, 0.25
SIZE = 4 + BANDS + COARSE * (PIECES + FRAMES)  # 504 bytes

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ClipPrint:
    """Both are empty where there is nothing to compare: no sound came out of the decoder, or silence."""

    samples_hash: str
    print: bytes


class Ear:
    """Listens while a clip is decoded for something else (`io.read`), so that its print costs no second decode."""

    def __init__(self) -> None:
        self._rate, self._blocks = 0, list[Floats]()

    def __call__(self, sample_rate: int, block: Floats) -> None:
        self._rate = sample_rate
        self._blocks.append(block)

    def made(self) -> ClipPrint:
        """The print; what was heard is let go."""
        blocks, self._blocks = self._blocks, []
        return print_of_wave(np.concatenate(blocks), self._rate) if blocks else ClipPrint("", b"")


def print_of(path: Path | str, start_s: float = 0.0, stop_s: float | None = None) -> ClipPrint:
    """Both prints of a clip from one decode, at its own rate; a file that cannot be decoded has none."""
    try:
        rate = io.probe(Path(path)).sample_rate
        sound = io.read(Path(path), rate, start_s, stop_s)
    except io.DecodeError:
        return ClipPrint("", b"")
    return print_of_wave(sound.wave, rate)


def print_of_wave(wave: Floats, sample_rate: int) -> ClipPrint:
    """Of a clip [T] that is decoded already; the hash is worth something at the rate of the file only."""
    if len(wave) < io.SHORTEST_S * sample_rate or float(np.abs(wave).max()) < io.QUIET:
        return ClipPrint("", b"")
    return ClipPrint(samples_hash(wave), audio_print(wave, sample_rate))


def samples_hash(wave: Floats) -> str:
    """Hash of mono samples at the rate of the file, as 16-bit numbers: any lossless container gives the same."""
    numbers = np.clip(np.rint(wave * 32768), -32768, 32767).astype("<i2")
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:32]


def audio_print(wave: Floats, sample_rate: int) -> bytes:
    """The print of a clip [T], SIZE bytes."""
    low = wave if sample_rate == RATE else soxr.resample(wave, sample_rate, RATE, quality="LQ")
    power = _power(low)
    even = _smooth(_coarse(power))
    # A mean of roots: one of powers is the attack alone in a plucked note, and differs where a shift cuts it off
    tone = np.sqrt(power).mean(0) ** 2
    levels = [np.maximum(tone, 0.01 * power.mean()), _pieces(even), _padded(even[_first(power) :])]
    quantised = [_quantised(10 * np.log10(part / power.mean() + 1e-9)) for part in levels]
    return struct.pack("<f", len(wave) / sample_rate) + b"".join(part.tobytes() for part in quantised)


def _power(wave: Floats) -> Floats:
    """[T] to the power in fine bands [L, 120]."""
    n_frames = 1 + len(wave) // HOP
    padded = np.pad(wave, (N_FFT // 2, N_FFT))
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:n_frames]
    window = np.hanning(N_FFT).astype(np.float32)
    parts = [_squared(frames[k : k + 4096] * window) @ _bands() for k in range(0, n_frames, 4096)]
    power: Floats = np.concatenate(parts)
    return power


def _squared(frames: Floats) -> Floats:
    spectrum = np.fft.rfft(frames)
    squared: Floats = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return squared


@cache
def _bands() -> Floats:
    """Triangles [bins, 120], even on a logarithmic scale and never narrower than the lines of the spectrum."""
    centres = np.geomspace(FMIN_HZ, FMAX_HZ, BANDS)
    line = RATE / N_FFT
    width = np.maximum(centres * (centres[1] / centres[0] - 1), 1.5 * line)
    away = np.abs(np.arange(N_FFT // 2 + 1)[:, None] * line - centres) / width
    bands = np.maximum(0, 1 - away)
    even: Floats = (bands / bands.sum(0)).astype(np.float32)
    return even


def _coarse(power: Floats) -> Floats:
    coarse: Floats = power.reshape(len(power), COARSE, -1).mean(2)
    return coarse


def _smooth(power: Floats) -> Floats:
    smooth: Floats = convolve1d(power, SMOOTHER, axis=0, mode="constant")
    return smooth


def _pieces(power: Floats) -> Floats:
    """Means over 8 equal pieces of a clip: frame k counts to the pieces that it lies in, by how much of it does."""
    edges = np.linspace(0, len(power), PIECES + 1)
    total = np.concatenate([np.zeros((1, COARSE)), np.cumsum(power, 0, dtype=np.float64)])
    at = np.stack([np.interp(edges, np.arange(len(total)), total[:, band]) for band in range(COARSE)], axis=1)
    pieces: Floats = (np.diff(at, axis=0) / np.diff(edges)[:, None]).astype(np.float32)
    return pieces


def _first(power: Floats) -> int:
    """The frame from which the onset is stored: found by energy, which no codec, gain or shift moves by much."""
    energy = np.cumsum(power.sum(1), dtype=np.float64)
    return max(0, int(np.searchsorted(energy, 0.02 * energy[-1])) - 3)


def _padded(power: Floats) -> Floats:
    padded: Floats = np.pad(power[:FRAMES], ((0, max(0, FRAMES - len(power))), (0, 0)))
    return padded


def _quantised(decibels: Floats) -> Bytes:
    quantised: Bytes = np.clip(np.rint((decibels - FLOOR_DB) / STEP_DB), 0, 255).astype(np.uint8)
    return quantised
