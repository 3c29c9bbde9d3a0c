"""Whole FLAC files of 16 bits by miniaudio, in 0.6 of libsndfile's time: taken only where their checksum confirms it.

Shapes: T frames, C channels.
"""

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.streams import Claims

try:
    from _miniaudio import ffi, lib  # of miniaudio, without its client for radio stations: 15 ms of each start
except ModuleNotFoundError:  # it has no wheel for every machine; libsndfile reads the same files
    ffi = lib = None

MOST = 2**23  # samples of all channels: 95 s of stereo, held whole as 16 MB


def flac(fd: int, claims: Claims, frames: int, channels: int) -> NDArray[np.int16] | None:
    """All samples [T, C] of an open file; None where miniaudio is not the one to read it, or reads it wrong.

    It came through 100,000 mutated FLAC files (docs/LOG.md); of its other formats, Ogg did not.
    """
    fits = claims.md5 and claims.width == 2 and 0 < frames * channels <= MOST
    if lib is None or not fits or os.pread(fd, 4, 0) != b"fLaC":
        return None
    try:
        samples = _decoded(os.pread(fd, os.fstat(fd).st_size, 0), frames, channels)
    except (OSError, MemoryError):  # a picture in it may be larger than all of its sound
        return None
    if samples is None or hashlib.md5(samples.data, usedforsecurity=False).digest() != claims.md5:
        return None  # whatever it makes of odd bytes, libsndfile is asked next
    return samples


def _decoded(content: bytes, frames: int, channels: int) -> NDArray[np.int16] | None:
    """[T, C] where the decoder put them, which is let go with the array: miniaudio's own call copies twice."""
    n_channels, rate, n_frames = ffi.new("unsigned int *"), ffi.new("unsigned int *"), ffi.new("ma_dr_flac_uint64 *")
    read = lib.ma_dr_flac_open_memory_and_read_pcm_frames_s16
    memory = ffi.gc(read(content, len(content), n_channels, rate, n_frames, ffi.NULL), _free)
    if not memory or (n_frames[0], n_channels[0]) != (frames, channels):
        return None
    samples = np.frombuffer(ffi.buffer(memory, 2 * frames * channels), np.int16)  # holds the memory
    return samples.reshape(frames, channels)


def _free(memory: Any) -> None:
    lib.ma_dr_flac_free(memory, ffi.NULL)
