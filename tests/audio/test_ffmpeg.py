"""M4A and AAC: what FFmpeg gives is the sound that went in, ranges are the whole, and damage is said."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT

from instrunet.audio import ffmpeg, io
from instrunet.audio.io import DecodeError
from instrunet.audio.isolated import Decoder, Limits

RATE = 44_100
here = shutil.which("ffmpeg") and shutil.which("ffprobe")
needs_ffmpeg = pytest.mark.skipif(not here, reason="FFmpeg is not on this machine's PATH")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 8 s in two channels as WAV, M4A and AAC, without the noise that a decoder draws anew each time."""
    folder = tmp_path_factory.mktemp("ffmpeg")
    t = np.arange(8 * RATE) / RATE
    wave = np.stack([0.3 * np.sin(2 * np.pi * (300 + 40 * t) * t), 0.2 * np.sin(2 * np.pi * 500 * t)], 1)
    sf.write(folder / "a.wav", wave, RATE)
    for name in ("a.m4a", "a.aac"):
        command = ["ffmpeg", "-v", "error", "-i", folder / "a.wav", "-c:a", "aac", "-aac_pns", "0", folder / name]
        subprocess.run(command, check=True)
    return folder


@needs_ffmpeg
def test_an_m4a_is_the_sound_that_went_in(sounds: Path) -> None:
    header, wave = io.probe(sounds / "a.m4a"), io.read(sounds / "a.m4a", 22_050)
    assert (header.sample_rate, header.channels, header.frames) == (RATE, 2, 8 * RATE)
    want = io.read(sounds / "a.wav", 22_050).wave
    assert len(wave.wave) == len(want) and not wave.damage
    inner = slice(2000, -4000)
    assert np.abs(wave.wave[inner] - want[inner]).mean() < 0.01  # 0.0033; half a sample late would be 0.02


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.aac"])
def test_ranges_are_the_whole(sounds: Path, name: str) -> None:
    whole = io.read(sounds / name, 22_050).wave
    for start_s in (0.0, 0.3, 3.7, 6.0):
        begin = round(start_s * 22_050)
        part = io.read(sounds / name, 22_050, start_s, start_s + 1.5).wave
        np.testing.assert_allclose(part, whole[begin : begin + len(part)], atol=1e-4)


@needs_ffmpeg
def test_noise_inside_is_damage_and_half_a_container_is_corrupt(sounds: Path, tmp_path: Path) -> None:
    content = (sounds / "a.aac").read_bytes()
    half = len(content) // 2
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    (tmp_path / "n.aac").write_bytes(content[:half] + noise + content[half + 3000 :])
    assert io.read(tmp_path / "n.aac", 22_050).damage
    container = (sounds / "a.m4a").read_bytes()
    (tmp_path / "h.m4a").write_bytes(container[: len(container) // 2])
    with pytest.raises(DecodeError, match="is not sound that can be decoded") as error:
        io.read(tmp_path / "h.m4a", 22_050)
    assert error.value.status == "corrupt"


def test_without_ffmpeg_the_reason_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 99)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DecodeError, match="M4A and AAC need FFmpeg, which is not on the PATH: install ffmpeg") as error:
        io.probe(tmp_path / "a.m4a")
    assert error.value.status == "unreadable"


@pytest.fixture
def m4a(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a second of silence, for an `ffmpeg` that a test writes: what its programs say is the shell's."""
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 99)
    stated = '{"streams": [{"sample_rate": "8000", "channels": 1, "duration": "1.0"}]}'
    program(tmp_path / "ffprobe", f"echo '{stated}'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "a.m4a"


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_who_complains_without_end_still_gives_its_sound(m4a: Path) -> None:
    program(m4a.parent / "ffmpeg", "yes 'one odd frame' | head -c 1000000 >&2; head -c 16000 /dev/zero")
    with Decoder(Limits(wait_s=5.0)) as decoder:
        sound = decoder.read(m4a, 8000, 0.0, 1.0)
    assert len(sound.wave) == 4000 and "0.500 s fewer than its header promises" in sound.damage


def test_one_that_stalls_is_ended_with_its_decoder(m4a: Path) -> None:
    program(m4a.parent / "ffmpeg", f"echo $$ >> {m4a.parent}/pids; exec sleep 60")
    with Decoder(Limits(wait_s=1.0)) as decoder, pytest.raises(DecodeError, match="gave no answer within 1 s twice"):
        decoder.read(m4a, 8000, 0.0, 1.0)
    pids = (m4a.parent / "pids").read_text().split()
    assert len(pids) == 2 and not [pid for pid in pids if runs(pid)]


def test_and_with_who_had_started_that(m4a: Path) -> None:
    program(m4a.parent / "ffmpeg", f"echo $$ >> {m4a.parent}/pids; exec sleep 60")
    code = "import pathlib, sys; from instrunet.audio import isolated; "
    code += "isolated.Decoder().read(pathlib.Path(sys.argv[1]), 8000)"
    with subprocess.Popen([sys.executable, "-c", code, str(m4a)], env=os.environ | {"PYTHONPATH": str(ROOT)}) as job:
        assert within(30, lambda: (m4a.parent / "pids").is_file() and (m4a.parent / "pids").stat().st_size > 0)
        job.kill()
    (pid,) = (m4a.parent / "pids").read_text().split()
    assert within(5, lambda: not runs(pid))


def within(seconds: float, found: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    return found()


def runs(pid: str) -> bool:
    """Unless it is dead and waits to be looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_mpeg_audio_is_not_taken_for_aac(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    sf.write(path, np.zeros(RATE), RATE)
    with path.open("rb") as file:
        assert ffmpeg.form_of(file.fileno()) is None
