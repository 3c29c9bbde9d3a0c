"""libsndfile behind one door: what is opened, what is refused before it, and what a broken file still gives.

Shapes: T frames, C channels.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from instrunet.audio import ffmpeg, quick
from instrunet.audio.headers import examine
from instrunet.audio.streams import Claims
from instrunet.errors import AudioError

Samples = NDArray[np.float32] | NDArray[np.int16]
UNKNOWN = 2**63 - 1  # libsndfile's length of a stream whose header does not state one, as of FLAC from a pipe
RATES_HZ = (1000, 768_000)  # below, nothing is left of what made a sound; above, nobody records
MOST_CHANNELS = 64
LARGE_BLOCK = 2**16  # samples of all channels: 256 kB stay in the cache from decoding to resampling
SMALL_BLOCK = 1000  # frames: what an error costs; not a divisor of 4096, behind whose last sample libsndfile looks on


class DecodeError(AudioError):
    """No sound came out; `status` is the word for it in every output."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Forward(sf.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Read from front to back: after each read, soundfile seeks to where it is if it may.

    That decodes a FLAC frame anew, and steps over a hole in an Ogg stream: later sound would stand for what is lost.
    """

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Opened:
    file: sf.SoundFile | ffmpeg.Piped
    claims: Claims
    path: Path
    fd: int

    def quickly(self) -> NDArray[np.int16] | None:
        return quick.flac(self.fd, self.claims, self.frames, self.file.channels)

    @property
    def by_ffmpeg(self) -> bool:
        return isinstance(self.file, ffmpeg.Piped)

    @property
    def frames(self) -> int:
        return 0 if self.claims.empty else max(0, self.file.frames)

    def corrupt(self, why: str) -> DecodeError:
        return DecodeError("corrupt", f"{shown(self.path)} {why}")


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    fd = _descriptor(path)
    try:
        form = ffmpeg.form_of(fd)
        if form:
            with _piped(path, form) as piped:
                _check_header(piped, path)
                yield Opened(piped, Claims(), path, fd)
            return
        claims = examine(fd)
        try:
            # Not by its name, from which libsndfile would guess
            file = _Forward(_Patched(fd, claims.patch) if claims.patch else fd, closefd=False)
        except (sf.LibsndfileError, OSError, RuntimeError, TypeError) as error:
            raise _no_sound(path, reason(error)) from None
        with file:
            _check_header(file, path)
            yield Opened(file, claims, path, fd)
    finally:
        os.close(fd)


def blocks(found: Opened, first: int, n_frames: int, block: int) -> Iterator[Samples]:
    """At most `n_frames` from `first` on, in blocks [T, C], as floats or as the 16 bits that a checksum is of.

    A short one is the last: behind a hole in an Ogg stream, libsndfile would go on with sound from another place.
    """
    file, dtype = found.file, "int16" if found.claims.md5 and found.claims.width == 2 else "float32"
    if first:
        file.seek(first)
    while n_frames > 0:
        samples = file.read(min(block, n_frames), dtype=dtype, always_2d=True)
        if len(samples):
            yield samples
        if len(samples) < min(block, n_frames):
            return
        n_frames -= len(samples)


def salvaged(found: Opened, first: int, n_frames: int, block: int, heard: int = 0) -> Iterator[Samples]:
    """As `blocks`, of the file opened anew, up to where the decoder gives up, without the first `heard` frames."""
    with opened(found.path) as again, suppress(sf.LibsndfileError, RuntimeError):
        for _ in blocks(again, first, heard, LARGE_BLOCK // again.file.channels):
            pass
        yield from blocks(again, 0 if heard else first, n_frames - heard, block)


def shown(path: Path) -> str:
    """A name as valid Unicode: Parquet and terminals take nothing else."""
    return os.fsencode(path).decode(errors="backslashreplace")


def reason(error: Exception) -> str:
    text = getattr(error, "error_string", "") or str(error)
    return text.strip().rstrip(".")


def _descriptor(path: Path) -> int:
    """A regular file, open. Anything else is told apart before: opening a pipe waits for its writer."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise DecodeError("unreadable", f"expected a sound file at {shown(path)}, found {what}")
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise DecodeError("unreadable", f"expected a sound file at {shown(path)}, found nothing") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        loop = getattr(error, "errno", 0) == errno.ELOOP
        why = "its links lead in a circle" if loop else getattr(error, "strerror", "") or str(error)
        raise DecodeError("unreadable", f"{shown(path)} may not be read: {why}") from None


def _piped(path: Path, form: str) -> ffmpeg.Piped:
    try:
        return ffmpeg.Piped(path, form)
    except OSError as error:
        raise DecodeError("unreadable", f"{shown(path)} may not be read: {error}") from None
    except (RuntimeError, ValueError) as error:
        raise _no_sound(path, str(error)) from None


def _check_header(file: sf.SoundFile | ffmpeg.Piped, path: Path) -> None:
    low, high = RATES_HZ
    if not low <= file.samplerate <= high:
        raise _no_sound(path, f"its header says {file.samplerate} Hz, sound has {low} to {high}")
    if file.channels > MOST_CHANNELS:
        raise _no_sound(path, f"its header says {file.channels} channels, {MOST_CHANNELS} are the most")


def _no_sound(path: Path, why: str) -> DecodeError:
    return DecodeError("corrupt", f"{shown(path)} is not sound that can be decoded: {why}")


class _Patched:
    """The bytes of a file with some of its header replaced: libsndfile finds no sound behind a size of zero."""

    def __init__(self, fd: int, patch: tuple[int, bytes]) -> None:
        self._fd, self._size, self._at = fd, os.fstat(fd).st_size, 0
        self._patch_at, self._patch = patch

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, n: int) -> bytes:
        found = bytearray(os.pread(self._fd, n, self._at))
        for k, byte in enumerate(self._patch, self._patch_at - self._at):
            if 0 <= k < len(found):
                found[k] = byte
        self._at += len(found)
        return bytes(found)
