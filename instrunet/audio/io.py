"""Any sound file to mono float32 at a chosen rate, whole or a range of it, with what was wrong said aloud.

Shapes: T samples, C channels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from instrunet.errors import AudioError

# Extensions that libsndfile 1.2 opens, as in its own documentation; what has none of them is not offered to a decoder.
EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", ".caf"}
)
# soxr HQ reaches about 1,200 input samples to each side at 48 kHz -> 22 kHz; twice that leaves an error below 1e-5.
QUIET = 1e-4  # -80 dBFS: below it is silence
SHORTEST_S = 0.05  # less sound than this says nothing about what made it
MARGIN_S = 0.06
CLIP_LEVEL = 0.9999
ABSURD = 1e12  # no scale of samples reaches it, and the power of what does overflows float32
UNKNOWN = 2**63 - 1  # libsndfile's length of a stream whose header does not state one, as of FLAC from a pipe
BLOCK = 2**22  # frames, 95 s; memory follows the sound there is, not the length that a broken header claims
FLAC_BLOCK = 4096  # frames, the reference encoder's


class DecodeError(AudioError):
    """No sound came out; `status` is the word for it in every output."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


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
    """The header alone, without decoding, unless it leaves the length open."""
    with _opened(path) as file:
        known = file.frames != UNKNOWN
        frames = max(0, file.frames) if known else sum(len(block) for block in _salvaged(path, 0, UNKNOWN))
        return Header(file.samplerate, frames, file.channels)


def read(path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None) -> Sound:
    """Decode [start_s, stop_s) of a file, mixed down first (5.6 times cheaper than resampling each channel)."""
    assert start_s >= 0
    with _opened(path) as file:
        source_rate, frames = file.samplerate, max(0, file.frames)
        plan = _Range.of(start_s, stop_s, source_rate, sample_rate, frames)
        mono, flags, damage = _decode(file, plan, path)
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
        return cls(first, max(0, last - first), start_out - blocks * block_out, max(0, stop_out - start_out))


def _opened(path: Path) -> sf.SoundFile:
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device or pipe" if path.exists() else "nothing"
            raise DecodeError("unreadable", f"expected a sound file at {path}, found {what}")
        return sf.SoundFile(path)
    except PermissionError as error:
        raise DecodeError("unreadable", f"{path} may not be read: {error.strerror}") from None
    except (sf.LibsndfileError, OSError, RuntimeError, TypeError) as error:  # TypeError: raw samples have no header
        # libsndfile hides the system's own reason: an unreadable file is told apart by opening it plainly
        try:
            path.open("rb").close()
        except OSError as system:
            raise DecodeError("unreadable", f"{path} may not be read: {system.strerror}") from None
        raise DecodeError("corrupt", f"{path} is not sound that can be decoded: {_reason(error)}") from None


def _decode(file: sf.SoundFile, plan: _Range, path: Path) -> tuple[NDArray[np.float32], list[str], str]:
    """The planned samples mixed down [T], their flags, and what was wrong; what decodes before a break is kept."""
    broken = ""
    try:
        blocks = list(_blocks(file, plan.first, plan.n_in, BLOCK))
    except (sf.LibsndfileError, RuntimeError) as error:
        broken = _reason(error)
        blocks = list(_salvaged(path, plan.first, plan.n_in))
        if not blocks:
            raise DecodeError("corrupt", f"{path} breaks off while decoding: {broken}") from None
    samples = np.concatenate([np.zeros((0, file.channels), np.float32), *blocks])
    missing = plan.n_in - len(samples)
    damage = f"{missing / file.samplerate:.3f} s fewer than its header promises" if missing else ""
    # Where no length is stated, libsndfile has no other way to end than to break off
    return *_checked(samples), "" if file.frames == UNKNOWN else damage


def _blocks(file: sf.SoundFile, first: int, n_frames: int, block: int) -> Iterator[NDArray[np.float32]]:
    """At most `n_frames` from `first` on, in blocks [T, C]."""
    if first:
        file.seek(first)
    while n_frames > 0 and len(samples := file.read(min(block, n_frames), dtype="float32", always_2d=True)):
        yield samples
        n_frames -= len(samples)


def _salvaged(path: Path, first: int, n_frames: int) -> Iterator[NDArray[np.float32]]:
    """As `_blocks`, in small ones and up to where the decoder gives up: an error costs the block it falls in."""
    with _opened(path) as file:
        try:
            yield from _blocks(file, first, n_frames, FLAC_BLOCK)
        except (sf.LibsndfileError, RuntimeError):
            return


def _checked(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[str]]:
    """[T, C] to mono [T], and flags: judged before the mix, which hides what one channel has."""
    flags = []
    level = np.abs(samples)
    sane = level < ABSURD  # False for NaN as well
    if not sane.all():
        flags.append("nonfinite")
        samples, level = np.where(sane, samples, 0), np.where(sane, level, 0)
    if level.max(initial=0.0) > 1.5:
        flags.append("out_of_range")
    elif np.count_nonzero(level >= CLIP_LEVEL) > 10:
        flags.append("clipped")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak and abs(float(mono.mean())) > 0.1 * peak:
        flags.append("dc")
    return mono, flags


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", "") or str(error)
    return text.strip().rstrip(".")
