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
20 dB below it for the tone, 30 dB for the rest. Products of matrices over `tone` and `course` find the candidates of
all pairs (`matching`); only these are compared in time. tests/audio/test_fingerprint.py measures what prints survive:
lossy coding, gain, resampling, shifts up to 50 ms, noise 30 dB below; other tempos as STRETCHED; not another pitch.
Shapes: T samples, L frames, N clips, M clips of another table, P pairs.
"""

import hashlib
import struct
from collections.abc import Sequence
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
N_SHIFTS = 7  # of half a frame each: 0 to 96 ms
BLOCK = 256  # rows of the table of pairs at a time: 20 MB a matrix against 20,000 clips
PAIRS = 8192  # compared in time at once: 20 MB of either side

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Pairs = NDArray[np.intp]


@dataclass(frozen=True)
class ClipPrint:
    """Both are empty where there is nothing to compare: no sound came out of the decoder, or silence."""

    samples_hash: str
    print: bytes


@dataclass(frozen=True)
class Limits:
    """The greatest difference between prints of one sound, in dB RMS, and between durations."""

    tone_db: float = 2.5
    course_db: float = 4.0
    onset_db: float = 2.5
    duration_s: float = 0.15  # a shift of 50 ms and what an MP3 encoder adds
    duration_share: float = 0.02
    course_from_s: float = 1.5  # of shorter clips `onset` holds most, and an eighth is not much longer than a shift


COPY = Limits()
# A copy at 0.8 to 1.25 of the tempo keeps its spectrum and, in eighths of its own length, its course
STRETCHED = Limits(tone_db=1.6, course_db=2.0, onset_db=np.inf, duration_share=0.25, course_from_s=0.0)


@dataclass(frozen=True)
class _Table:
    """Durations [N], and levels in dB: tone [N, 120], course [N, 80], and the onset every half frame [N, 59, 10]."""

    duration: Floats
    tone: Floats
    course: Floats
    fine: Floats


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


def matching(left: Sequence[bytes], right: Sequence[bytes] | None = None, limits: Limits = COPY) -> Pairs:
    """The places [P, 2] of pairs that match between two lists of prints, or (i < j) within one."""
    a = _unpacked(left)
    b = a if right is None else _unpacked(right)
    found = [_matching(a, slice(k, k + BLOCK), b, right is None, limits) for k in range(0, len(left), BLOCK)]
    return np.concatenate([np.zeros((0, 2), np.intp), *found])


def _matching(a: _Table, rows: slice, b: _Table, within: bool, limits: Limits) -> Pairs:
    i, j = np.nonzero(_candidates(a, rows, b, limits))
    i += rows.start
    if within:
        i, j = i[i < j], j[i < j]
    if limits.onset_db < np.inf:
        parts = [slice(k, k + PAIRS) for k in range(0, len(i), PAIRS)]
        near = [_onset_distance(a, i[part], b, j[part]) <= limits.onset_db for part in parts]
        kept = np.concatenate([np.zeros(0, bool), *near])
        i, j = i[kept], j[kept]
    return np.stack([i, j], axis=1)


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


def _unpacked(prints: Sequence[bytes]) -> _Table:
    table = np.frombuffer(b"".join(prints), np.uint8).reshape(len(prints), SIZE)
    duration = np.ascontiguousarray(table[:, :4]).view("<f4")[:, 0]
    levels = table[:, 4:].astype(np.float32) * STEP_DB
    tone, course, onset = np.split(levels, [BANDS, BANDS + COARSE * PIECES], axis=1)
    frames = onset.reshape(-1, FRAMES, COARSE)
    fine = np.repeat(frames, 2, axis=1)[:, :-1]
    fine[:, 1::2] = (frames[:, 1:] + frames[:, :-1]) / 2
    return _Table(duration, tone - tone.mean(1, keepdims=True), course, fine)


def _candidates(a: _Table, rows: slice, b: _Table, limits: Limits) -> NDArray[np.bool_]:
    """Which pairs of `rows` of one table with all of another are near in all but the time of the onset."""
    mine, theirs = a.duration[rows, None], b.duration[None, :]
    longer = np.maximum(mine, theirs)
    found = np.abs(mine - theirs) <= np.maximum(limits.duration_s, limits.duration_share * longer)
    found &= _distances(a.tone[rows], b.tone) <= limits.tone_db
    near: NDArray[np.bool_] = found & (
        (longer < limits.course_from_s) | (_distances(a.course[rows], b.course) <= limits.course_db)
    )
    return near


def _distances(x: Floats, y: Floats) -> Floats:
    """RMS of the difference between every row of [N, D] and every row of [M, D]."""
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    distances: Floats = np.sqrt(np.maximum(squares, 0) / x.shape[1])
    return distances


def _onset_distance(a: _Table, i: NDArray[np.intp], b: _Table, j: NDArray[np.intp]) -> Floats:
    """RMS of the difference of the pairs [P], at the shift at which it is least."""
    n_frames = 1 + np.maximum(a.duration[i], b.duration[j]) * RATE // HOP
    x, y = a.fine[i], b.fine[j]
    shifted = [_shifted(p, q, k, n_frames) for k in range(N_SHIFTS) for p, q in ((x, y), (y, x))]
    least: Floats = np.sqrt(np.min(shifted, axis=0))
    return least


def _shifted(x: Floats, y: Floats, shift: int, n_frames: Floats) -> Floats:
    """Mean square of x(t) - y(t + shift) over the frames that the clips have."""
    late = y[:, shift::2]
    squares = ((x[:, ::2][:, : late.shape[1]] - late) ** 2).mean(2)
    there = np.arange(late.shape[1]) < n_frames[:, None]
    mean: Floats = (squares * there).sum(1) / there.sum(1)
    return mean
