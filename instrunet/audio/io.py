"""Any sound file to mono float32 at a chosen rate, whole or a range of it, with what was wrong said aloud.

Shapes: T samples, C channels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from instrunet.audio.decoder import (
    LARGE_BLOCK,
    SMALL_BLOCK,
    UNKNOWN,
    DecodeError,
    Opened,
    blocks,
    opened,
    reason,
    salvaged,
)
from instrunet.audio.rate import Resampled
from instrunet.audio.streams import Claims, short
from instrunet.audio.tally import Tally

__all__ = ["EXTENSIONS", "DecodeError", "Header", "Sound", "probe", "read", "verdict"]

# Extensions that libsndfile 1.2 opens, as in its own documentation, and two for FFmpeg; what has none of them is not
# offered to a decoder.
EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", ".caf", ".m4a", ".aac"}
)
# soxr HQ reaches about 1,200 input samples to each side at 48 kHz -> 22 kHz; twice that leaves an error below 1e-5.
QUIET = 1e-4  # -80 dBFS: below it is silence
SHORTEST_S = 0.05  # less sound than this says nothing about what made it
MARGIN_S = 0.06
LONGEST = 6 * 3600 * 48_000  # samples that one call reads, each channel's and before or after resampling: 4 GB

Read = Callable[..., "Sound"]  # `read`, or one that does the same elsewhere
Listener = Callable[[int, NDArray[np.float32]], None]  # the rate of the file, and a block [T] of it


@dataclass(frozen=True)
class Header:
    sample_rate: int
    frames: int
    channels: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Sound:
    """`wave` [T] is mono at the rate that was asked for; `damage` says what is missing from it, if anything is."""

    wave: NDArray[np.float32]
    damage: str = ""
    flags: list[str] = field(default_factory=list)


def probe(path: Path) -> Header:
    """The header alone, without decoding, unless it leaves the length open; of cut raw samples, what is held."""
    with opened(path) as found:
        file, frames = found.file, found.frames
        if frames == UNKNOWN:
            frames = _counted(found, 0, UNKNOWN, SMALL_BLOCK)
            if frames * file.channels > LONGEST:
                raise found.corrupt("its header leaves the length open, and it goes on for hours")
        return Header(file.samplerate, frames, file.channels)


def read(
    path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None, listen: Listener | None = None
) -> Sound:
    """Decode [start_s, stop_s) of a file, mixed down first (5.6 times cheaper than resampling each channel).

    What is wrong with the end of the file is said by the range that reaches it; a wrong checksum, by reading it whole.
    `listen` is given each block of the range, mixed down, before it is resampled, and the rate of the file.
    """
    assert start_s >= 0
    with opened(path) as found:
        source_rate = found.file.samplerate
        plan = _Range.of(start_s, stop_s, source_rate, sample_rate, found.frames)
        _refuse_endless(found, plan, sample_rate)
        tally = Tally(found.claims if plan.n_in == found.frames else Claims())
        resampled = Resampled(source_rate, sample_rate)
        mono = _mono(found, plan, tally)
        if listen:
            own = _Range.of(start_s, stop_s, source_rate, source_rate, found.frames)
            mono = _heard(mono, plan.first, own.first + own.skip, own.n_out, partial(listen, source_rate))
        for block in mono:
            resampled.add(block)
        flags, damage = _judged(found, plan, tally)
    return Sound(resampled.wave()[plan.skip : plan.skip + plan.n_out], damage, flags)


def verdict(sound: Sound, sample_rate: int) -> tuple[str, str]:
    """(status, reason) of what a model is to hear; no status: it is whole, long enough and not silent."""
    seconds = len(sound.wave) / sample_rate
    if sound.damage:
        return "damaged", sound.damage
    if seconds < SHORTEST_S:
        return "too_short", f"{seconds:.3f} s of sound, {SHORTEST_S} s needed"
    if max(sound.wave.max(), -sound.wave.min()) < QUIET:
        return "silent", "no sample above -80 dBFS"
    return "", ""


@dataclass(frozen=True)
class _Range:
    """Which input samples to decode so that the output samples fall where they would in the whole file.

    Input starts on a multiple of source_rate / gcd, where input and output sample positions coincide.
    """

    first: int
    n_in: int
    skip: int
    n_out: int
    to_end: bool  # what is wrong with the end of the file is this range's

    @classmethod
    def of(cls, start_s: float, stop_s: float | None, source_rate: int, rate: int, frames: int) -> "_Range":
        shared = math.gcd(source_rate, rate)
        block_in, block_out = source_rate // shared, rate // shared
        total_out = math.ceil(frames * rate / source_rate)
        start_out = min(round(start_s * rate), total_out)
        stop_out = total_out if stop_s is None else min(round(stop_s * rate), total_out)
        blocks = max(0, int((start_s - MARGIN_S) * source_rate) // block_in)
        last = frames if stop_s is None else min(frames, math.ceil((stop_s + MARGIN_S) * source_rate))
        first = min(blocks * block_in, frames)
        to_end = stop_s is None or stop_s * source_rate > frames - 1
        return cls(first, max(0, last - first), start_out - blocks * block_out, max(0, stop_out - start_out), to_end)


def _refuse_endless(found: Opened, plan: _Range, rate: int) -> None:
    """Only counting tells a small file that unpacks to 47 GB from a header that lies; it takes time but no memory."""
    file = found.file
    most = LONGEST // max(file.channels, math.ceil(rate / file.samplerate))  # frames
    if plan.n_in <= most:
        return
    # libsndfile cuts the length of raw samples to the file: it is true, and need not be counted
    if found.claims.declared or _counted(found, plan.first, most + 1, LARGE_BLOCK // file.channels) > most:
        raise found.corrupt(f"longer than one call may read ({most / file.samplerate:.0f} s); give a range")


def _counted(found: Opened, first: int, n_frames: int, block: int) -> int:
    """Frames that decode from `first` on: up to `n_frames`, or to a block more than one call may read."""
    n = 0
    for samples in salvaged(found, first, n_frames, block):
        n += len(samples)
        if n * found.file.channels > LONGEST:
            break
    return n


def _mono(found: Opened, plan: _Range, tally: Tally) -> Iterator[NDArray[np.float32]]:
    """The planned samples mixed down, in blocks [T]; where the decoder breaks, what it gives in small ones."""
    block = LARGE_BLOCK // found.file.channels
    whole = found.quickly() if plan.n_in == found.frames else None
    if whole is not None:
        tally.confirmed()
        yield from (tally.mixed(whole[k : k + block]) for k in range(0, len(whole), block))
        return
    try:
        for samples in blocks(found, plan.first, plan.n_in, block):
            yield tally.mixed(samples)
    except (sf.LibsndfileError, RuntimeError) as error:
        tally.broke_off(reason(error))
        for samples in salvaged(found, plan.first, plan.n_in, SMALL_BLOCK, tally.n):
            yield tally.mixed(samples)


def _heard(
    mono: Iterator[NDArray[np.float32]], at: int, first: int, n: int, listen: Callable[[NDArray[np.float32]], None]
) -> Iterator[NDArray[np.float32]]:
    """The blocks, which begin at sample `at` of the file; `listen` is given the `n` samples from `first` on."""
    for block in mono:
        own = block[max(0, first - at) : max(0, first + n - at)]
        if len(own):
            listen(own)
        at += len(block)
        yield block


def _judged(found: Opened, plan: _Range, tally: Tally) -> tuple[list[str], str]:
    """Flags of the samples that were decoded, and what was wrong."""
    damage = _damage(found, plan, tally.n) or tally.wrong_sum() or (tally.broken if found.by_ffmpeg else "")
    if not tally.n and (tally.broken or (damage and not plan.first)):
        raise found.corrupt(f"breaks off while decoding: {tally.broken or damage}")
    return [*tally.flags(), *(["open_length"] if found.claims.open_length else [])], damage


def _damage(found: Opened, plan: _Range, n: int) -> str:
    if found.frames == UNKNOWN:
        # libsndfile has no other way to end such a stream than to break off
        return "" if n or plan.first else "no sound in it can be decoded"
    rate = found.file.samplerate
    if n < plan.n_in:
        return short(plan.first + plan.n_in, plan.first + n, rate)
    return found.claims.disagreement(found.frames, rate) if plan.to_end else ""
