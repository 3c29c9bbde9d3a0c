"""Any sound file to mono float32 at a chosen rate, whole or a range of it, with what was wrong said aloud.

Shapes: T samples, C channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from instrunet.audio.decoder import UNKNOWN, DecodeError, Opened, blocks, opened, reason, salvaged
from instrunet.audio.streams import Claims, short
from instrunet.audio.tally import Tally

__all__ = ["EXTENSIONS", "DecodeError", "Header", "Sound", "probe", "read", "verdict"]

# Extensions that libsndfile 1.2 opens, as in its own documentation; what has none of them is not offered to a decoder.
EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", ".caf"}
)
# soxr HQ reaches about 1,200 input samples to each side at 48 kHz -> 22 kHz; twice that leaves an error below 1e-5.
QUIET = 1e-4  # -80 dBFS: below it is silence
SHORTEST_S = 0.05  # less sound than this says nothing about what made it
MARGIN_S = 0.06
BLOCK = 2**20  # samples of all channels, 24 s of one; memory follows the sound there is, not what a header claims
SMALL_BLOCK = 1000  # frames: what an error costs; not a divisor of 4096, behind whose last sample libsndfile looks on
LONGEST = 6 * 3600 * 48_000  # samples that one call reads, each channel's and before or after resampling: 4 GB

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

    What is wrong with the end of a file is said by the range that reaches it; a wrong checksum, by reading it whole.
    `listen` is given each block of the range, mixed down, before it is resampled, and the rate of the file.
    """
    assert start_s >= 0
    with opened(path) as found:
        source_rate = found.file.samplerate
        plan = _Range.of(start_s, stop_s, source_rate, sample_rate, found.frames)
        _refuse_endless(found, plan, sample_rate)
        mono, flags, damage = _decode(found, plan)
    if listen:
        own = _Range.of(start_s, stop_s, source_rate, source_rate, found.frames)
        begin = own.first + own.skip - plan.first
        listen(source_rate, mono[begin : begin + own.n_out])
    wave = mono if source_rate == sample_rate else soxr.resample(mono, source_rate, sample_rate, quality="HQ")
    wave = wave[plan.skip : plan.skip + plan.n_out]
    return Sound(np.ascontiguousarray(wave, dtype=np.float32), damage, flags)


def verdict(sound: Sound, sample_rate: int) -> tuple[str, str]:
    """(status, reason) of what a model is to hear; no status: it is whole, long enough and not silent."""
    seconds = len(sound.wave) / sample_rate
    if sound.damage:
        return "damaged", sound.damage
    if seconds < SHORTEST_S:
        return "too_short", f"{seconds:.3f} s of sound, {SHORTEST_S} s needed"
    if float(np.abs(sound.wave).max()) < QUIET:
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
    if found.claims.declared or _counted(found, plan.first, most + 1, BLOCK // file.channels) > most:
        raise found.corrupt(f"longer than one call may read ({most / file.samplerate:.0f} s); give a range")


def _counted(found: Opened, first: int, n_frames: int, block: int) -> int:
    """Frames that decode from `first` on: up to `n_frames`, or to a block more than one call may read."""
    n = 0
    for samples in salvaged(found, first, n_frames, block):
        n += len(samples)
        if n * found.file.channels > LONGEST:
            break
    return n


def _decode(found: Opened, plan: _Range) -> tuple[NDArray[np.float32], list[str], str]:
    """The planned samples mixed down [T], their flags, and what was wrong; what decodes before a break is kept."""
    file, claims = found.file, found.claims
    tally, broken = Tally(claims if plan.n_in == found.frames else Claims()), ""
    try:
        for block in blocks(file, plan.first, plan.n_in, BLOCK // file.channels):
            tally.add(block)
    except (sf.LibsndfileError, RuntimeError) as error:
        tally, broken = Tally(Claims()), reason(error)
        for block in salvaged(found, plan.first, plan.n_in, SMALL_BLOCK):
            tally.add(block)
    mono = tally.mono()
    damage = _damage(found, plan, len(mono)) or tally.wrong_sum()
    if not len(mono) and (broken or (damage and not plan.first)):
        raise found.corrupt(f"breaks off while decoding: {broken or damage}")
    return mono, [*tally.flags(mono), *(["open_length"] if claims.open_length else [])], damage


def _damage(found: Opened, plan: _Range, n: int) -> str:
    if found.frames == UNKNOWN:
        return ""  # libsndfile has no other way to end such a stream than to break off
    rate = found.file.samplerate
    if n < plan.n_in:
        return short(plan.first + plan.n_in, plan.first + n, rate)
    return found.claims.disagreement(found.frames, rate) if plan.to_end else ""
