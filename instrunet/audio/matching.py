"""Which prints are of one sound: products of matrices over all pairs, and of the few left a comparison in time.

What prints survive (tests/audio/test_fingerprint.py): lossy coding, gain, resampling, shifts up to 50 ms, noise 30 dB
below; other tempos as STRETCHED; not another pitch. Shapes: N clips, M clips of another table, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.fingerprint import BANDS, COARSE, FRAMES, HOP, PIECES, RATE, SIZE, STEP_DB, Floats

N_SHIFTS = 7  # of half a frame each: 0 to 96 ms
BLOCK = 256  # rows of the table of pairs at a time: 20 MB a matrix against 20,000 clips
PAIRS = 8192  # compared in time at once: 20 MB of either side

Pairs = NDArray[np.intp]


@dataclass(frozen=True)
class Limits:
    """The greatest difference between prints of one sound, in dB RMS, and between durations."""

    tone_db: float = 2.5
    course_db: float = 4.0
    onset_db: float = 2.5
    duration_s: float = 0.15  # a shift of 50 ms and what an MP3 encoder adds
    duration_share: float = 0.02
    course_from_s: float = 1.5  # of shorter clips `onset` holds most, and an eighth is not much longer than a shift


# On real takes of one note (tests/audio/test_fingerprint.py): some are as near to each other as a copy in OGG to its
# original, so only CERTAIN tells a copy from a take by itself. CLOSE holds 4 of 5 copies in OGG or MP3, and
# 1 of 4 pairs of takes that COPY holds.
COPY = Limits()
CLOSE = Limits(tone_db=1.0, course_db=2.0, onset_db=1.25)
CERTAIN = Limits(tone_db=0.25, course_db=0.4, onset_db=0.4, course_from_s=0.0)
# A copy at 0.8 to 1.25 of the tempo keeps its spectrum and, in eighths of its own length, its course
STRETCHED = Limits(tone_db=1.6, course_db=2.0, onset_db=np.inf, duration_share=0.25, course_from_s=0.0)


@dataclass(frozen=True)
class _Table:
    """Durations [N], and levels in dB: tone [N, 120], course [N, 80], and the onset every half frame [N, 59, 10]."""

    duration: Floats
    tone: Floats
    course: Floats
    fine: Floats


def matching(left: Sequence[bytes], right: Sequence[bytes] | None = None, limits: Limits = COPY) -> Pairs:
    """The places [P, 2] of pairs that match between two lists of prints, or (i < j) within one."""
    a = _unpacked(left)
    b = a if right is None else _unpacked(right)
    found = [_matching(a, slice(k, k + BLOCK), b, right is None, limits) for k in range(0, len(left), BLOCK)]
    return np.concatenate([np.zeros((0, 2), np.intp), *found])


def within(prints: Sequence[bytes], pairs: Pairs, limits: Limits) -> NDArray[np.bool_]:
    """Which of the pairs [P] that `matching` found are as near as closer limits ask."""
    table = _unpacked(prints)
    parts = [_within(table, pairs[k : k + PAIRS], limits) for k in range(0, len(pairs), PAIRS)]
    return np.concatenate([np.zeros(0, bool), *parts])


def durations(prints: Sequence[bytes]) -> Floats:
    """Of each clip, in seconds."""
    return _unpacked(prints).duration


def _within(table: _Table, pairs: Pairs, limits: Limits) -> NDArray[np.bool_]:
    i, j = pairs[:, 0], pairs[:, 1]
    tone, course = (np.sqrt(((x[i] - x[j]) ** 2).mean(1)) for x in (table.tone, table.course))
    long = np.maximum(table.duration[i], table.duration[j]) >= limits.course_from_s
    near: NDArray[np.bool_] = (tone <= limits.tone_db) & ~(long & (course > limits.course_db))
    return near & (_onset_distance(table, i, table, j) <= limits.onset_db)


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
