"""M4A and AAC: what FFmpeg gives is the sound that went in, ranges are the whole, and damage is said."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from instrunet.audio import ffmpeg, io
from instrunet.audio.io import DecodeError

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


def test_mpeg_audio_is_not_taken_for_aac(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    sf.write(path, np.zeros(RATE), RATE)
    with path.open("rb") as file:
        assert ffmpeg.form_of(file.fileno()) is None
