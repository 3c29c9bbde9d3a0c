"""M4A and AAC through the FFmpeg of the machine, where there is one: the part of soundfile's interface that we use.

Only files whose first bytes say so come here, with the demuxer named: a playlist or a picture is never opened.
Shapes: T frames, C channels.
"""

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

PREROLL_S = 0.5  # a frame of AAC overlaps the one before; this is twenty of them
# What an encoder's padding may differ from the length that the container states: two frames of 1024 samples, doubled
SLACK = 4096
PROBE_S = 30.0  # a header is read in 0.1 s
SAID_BYTES = 1 << 14  # of its complaints the last are told


def form_of(fd: int) -> str | None:
    """The demuxer for a file, by its first bytes."""
    head = os.pread(fd, 12, 0)
    if head[4:8] == b"ftyp":
        return "mov"
    # ADTS: twelve bits set, layer 0; a layer of 1 to 3 would be MPEG audio
    return "aac" if len(head) > 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


class Piped:
    """A file that FFmpeg decodes from a given sample on, to be read from front to back."""

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form = path, form
        found = _probed(path, form)
        self.samplerate, self.channels = int(found["sample_rate"]), int(found["channels"])
        # Only a container counts; of a bare stream FFmpeg guesses its length by the bit rate
        self.frames = (
            round(float(found["duration"]) * self.samplerate) if form == "mov" and "duration" in found else 2**63 - 1
        )
        self._at = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def seek(self, frame: int) -> None:
        self._stop()
        self._at = frame

    def read(self, n_frames: int, dtype: str = "float32", always_2d: bool = True) -> NDArray[np.float32]:
        """The next [T, C]; fewer than asked for at the end. RuntimeError where FFmpeg found fault with the stream."""
        process = self._process or self._start()
        assert process.stdout is not None
        content = process.stdout.read(n_frames * self.channels * 4)
        samples = np.frombuffer(content[: len(content) // (4 * self.channels) * 4 * self.channels], np.float32)
        block = samples.reshape(-1, self.channels)
        self._at += len(block)
        return block if len(block) == n_frames else self._ended(block, n_frames)

    def _ended(self, block: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
        """The last block, filled up with silence where the container counts an encoder's padding as sound."""
        said = self._stop()
        if said:
            raise RuntimeError(said)
        missing = min(n_frames - len(block), self.frames - self._at) if self._form == "mov" else 0
        if not 0 < missing <= SLACK:
            return block
        self._at += missing
        return np.concatenate([block, np.zeros((missing, self.channels), np.float32)])

    def _start(self) -> "subprocess.Popen[bytes]":
        # Of a bare stream positions are guesses, so it is decoded from its beginning; a container knows them
        seek_s = max(0.0, self._at / self.samplerate - PREROLL_S) if self._form == "mov" else 0.0
        cut = (
            ["-af", f"atrim=start_sample={self._at}"] if self._form == "aac" else ["-af", f"atrim=start_pts={self._at}"]
        )
        self._said = _said()
        self._process = subprocess.Popen(
            [*_command("ffmpeg"), "-nostdin", "-ss", f"{seek_s:.6f}", "-copyts", "-f", self._form, "-i"]
            + [_url(self._path), "-map", "0:a:0", *cut, "-f", "f32le", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        return self._process

    def _stop(self) -> str:
        """What FFmpeg had to complain of, if it was read to its end."""
        process, self._process = self._process, None
        if process is None:
            return ""
        assert process.stdout is not None
        done = not process.stdout.read(1)
        if not done:
            process.kill()
        process.stdout.close()
        code = process.wait()
        with self._said as complaints:
            length = complaints.seek(0, os.SEEK_END)
            complaints.seek(max(0, length - SAID_BYTES))
            said = complaints.read().decode(errors="replace").strip()
        return (said.splitlines() or [f"FFmpeg ended with exit code {code}"])[-1] if done and (said or code) else ""


def _probed(path: Path, form: str) -> dict[str, Any]:
    """The first sound stream of a file; OSError where FFmpeg is not there, RuntimeError where it finds none."""
    fields = "stream=sample_rate,channels,duration"
    command = [*_command("ffprobe"), "-f", form, "-select_streams", "a:0", "-show_entries", fields, "-of", "json"]
    try:
        done = subprocess.run([*command, _url(path)], capture_output=True, timeout=PROBE_S, check=False)
    except FileNotFoundError:
        raise OSError("M4A and AAC need FFmpeg, which is not on the PATH: install ffmpeg") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"FFmpeg did not read its header within {PROBE_S:.0f} s") from None
    streams = json.loads(done.stdout or b"{}").get("streams", [])
    if done.returncode or not streams or "sample_rate" not in streams[0]:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(said[-1] if said else "no sound stream in it")
    found: dict[str, Any] = streams[0]
    return found


def _said() -> IO[bytes]:
    """For what FFmpeg complains of: a pipe would be full of it before the sound is at its end."""
    return TemporaryFile()


def _command(program: str) -> list[str]:
    return [program, "-v", "error", "-protocol_whitelist", "file"]


def _url(path: Path) -> str:
    return f"file:{path.absolute()}"
