"""Memory follows the sound that is asked for: ranges of long and of many-channelled files, each in its own process."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from test_malformed import in_a_process, peak_memory

from instrunet.audio import io

RATE = 22_050
MOST = 150 * 2**20  # 300 MB are asked for; 90 MB is what it takes, with 33 MB for Python and the libraries


def peak_of_a_range(folder: Path, start_s: int, stop_s: int) -> None:
    """Run in a process of its own."""
    (path,) = folder.iterdir()
    sound = io.read(path, RATE, start_s, stop_s)
    assert (sound.damage, len(sound.wave)) == ("", (stop_s - start_s) * RATE)
    assert peak_memory() < MOST, peak_memory()


@pytest.mark.parametrize("start_s", [0, 7])
def test_five_minutes_of_eight_channels_at_96_khz(tmp_path: Path, start_s: int) -> None:
    with sf.SoundFile(tmp_path / "small.flac", "w", 96_000, 8) as file:
        for _ in range(31):
            file.write(np.zeros((960_000, 8), np.int16))
    assert (tmp_path / "small.flac").stat().st_size < 300_000  # and it holds 900 MB of floats
    in_a_process("peak_of_a_range", str(tmp_path), str(start_s), str(start_s + 300), module="test_memory")


@pytest.mark.parametrize("start_s", [0, 35_000])
def test_five_minutes_of_ten_hours(tmp_path: Path, start_s: int) -> None:
    n = 36_000 * 44_100 * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", n + 36, b"WAVE", b"fmt ", 16, 1, 1, 44_100, 88_200, 2, 16, b"data", n
    )
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(head)
        file.truncate(n + 44)  # a hole of zeros, which takes no room on the disk
    in_a_process("peak_of_a_range", str(tmp_path), str(start_s), str(start_s + 300), module="test_memory")
