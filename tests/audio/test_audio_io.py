"""Reading sound: against soundfile for the decoding and librosa for the rate, ranges against the whole, and damage."""

import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.audio.io import DecodeError, probe, read

Wave = NDArray[np.float32]
RATE = 22_050


def music(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Wave:
    """Noise and a chord that every rate here can hold, [T] or [T, C]; each channel is another sound."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    wave = np.stack([0.05 * rng.standard_normal(len(t)) for _ in range(channels)], 1)
    for channel, hz in enumerate((440.0, 880.0, 1320.0)[:channels]):
        wave[:, channel] += 0.3 * np.sin(2 * np.pi * hz * t)
    mono: Wave = (wave[:, 0] if channels == 1 else wave).astype(np.float32)
    return mono


def written(path: Path, wave: Wave, rate: int, **how: str) -> Path:
    sf.write(path, wave, rate, **how)
    return path


def status(path: Path) -> str:
    with pytest.raises(DecodeError) as caught:
        read(path, RATE)
    assert str(path) in str(caught.value)
    return caught.value.status


FORMATS = {
    "int16.wav": {"subtype": "PCM_16"},
    "int24.wav": {"subtype": "PCM_24"},
    "float.wav": {"subtype": "FLOAT"},
    "a.flac": {},
    "a.ogg": {},
    "a.mp3": {},
    "a.aiff": {},
    "a.w64": {},
    "a.caf": {},
    "a.au": {},
}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FORMATS)
def test_decoding_is_soundfiles_mixed_down(tmp_path: Path, name: str, channels: int) -> None:
    path = written(tmp_path / name, music(1.3, 44_100, channels), 44_100, **FORMATS[name])
    plain, rate = sf.read(path, dtype="float64", always_2d=True)
    sound = read(path, 44_100)
    assert (sound.damage, sound.flags, sound.wave.dtype) == ("", [], np.float32)
    np.testing.assert_allclose(sound.wave, plain.mean(axis=1), atol=1e-6)
    header = probe(path)
    assert (header.sample_rate, header.frames, header.channels) == (rate, len(plain), channels)
    assert header.duration_s == pytest.approx(1.3, abs=0.06)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_is_librosas(tmp_path: Path, rate: int) -> None:
    wave = music(1.0, rate, 2)
    path = written(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    # Polyphase of scipy: another implementation, whose own filter leaves 1e-2 near the edge of its band
    rival = librosa.resample(wave.mean(axis=1), orig_sr=rate, target_sr=RATE, res_type="polyphase")
    sound = read(path, RATE).wave
    assert len(sound) == len(rival) == RATE
    spectrum, other = np.fft.rfft(sound * np.hanning(RATE)), np.fft.rfft(rival * np.hanning(RATE))
    below = round(0.8 * min(rate, RATE) / 2)  # bins are 1 Hz wide
    error = np.linalg.norm(spectrum[:below] - other[:below]) / np.linalg.norm(other[:below])
    assert error < 0.01
    soxr = librosa.resample(wave.mean(axis=1), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    np.testing.assert_allclose(sound, soxr, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 37_800, 44_100, 48_000, 96_000, 192_000])
def test_a_range_is_the_slice_of_the_whole(tmp_path: Path, rate: int) -> None:
    path = written(tmp_path / "a.wav", music(3.1, rate), rate, subtype="FLOAT")
    whole = read(path, RATE).wave
    rng = np.random.default_rng(rate)
    odd = [tuple(sorted(rng.uniform(0, 3.1, 2))) for _ in range(8)]
    for start_s, stop_s in [(0, 1), (1, 2), (0.1234567, 2.7654321), (2.999, 3.1), (1.0, 1.001), (3, 9), *odd]:
        expected = whole[round(start_s * RATE) : round(stop_s * RATE)]
        got = read(path, RATE, start_s, stop_s).wave
        assert len(got) == len(expected), (start_s, stop_s)
        np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(read(path, RATE, 1.7).wave, whole[round(1.7 * RATE) :], atol=1e-4)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_a_range_of_compressed_sound_is_the_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, music(3.0, 44_100, 2), 44_100)
    whole = read(path, RATE).wave
    for start_s, stop_s in ((0.0, 0.7), (0.51, 1.87), (2.2, 3.0)):
        expected = whole[round(start_s * RATE) : round(stop_s * RATE)]
        np.testing.assert_allclose(read(path, RATE, start_s, stop_s).wave, expected, atol=1e-4)


def test_ranges_put_together_are_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", music(3.0, 44_100), 44_100, subtype="FLOAT")
    cuts = [0.0, 0.37, 1.0001, 1.9, 3.0]
    pieces = [read(path, RATE, a, b).wave for a, b in zip(cuts, cuts[1:], strict=False)]
    np.testing.assert_allclose(np.concatenate(pieces), read(path, RATE).wave, atol=1e-4)


def test_blocks_of_decoding_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.flac", music(2.0, 44_100, 2), 44_100)
    whole = read(path, RATE).wave
    monkeypatch.setattr(io, "LARGE_BLOCK", 1000)
    np.testing.assert_array_equal(read(path, RATE).wave, whole)


@pytest.mark.parametrize("rate", [RATE, 44_100, 48_000])
def test_who_listens_hears_the_range_before_it_is_resampled(tmp_path: Path, rate: int) -> None:
    wave = music(3.0, rate, 2)
    path = written(tmp_path / "a.flac", wave, rate)
    for start_s, stop_s in ((0.0, None), (0.0, 1.0), (0.51, 2.87), (2.2, 3.0), (5.0, 6.0)):
        heard: list[Wave] = []
        rates = set()

        def listen(of: int, block: Wave, heard: list[Wave] = heard, rates: set[int] = rates) -> None:
            heard.append(block)
            rates.add(of)

        sound = read(path, RATE, start_s, stop_s, listen)
        np.testing.assert_array_equal(sound.wave, read(path, RATE, start_s, stop_s).wave)
        expected = wave.mean(1)[round(start_s * rate) : round((stop_s or 3.0) * rate)]
        np.testing.assert_allclose(np.concatenate([np.zeros(0), *heard]), expected, atol=1e-4)
        assert rates == ({rate} if len(expected) else set())


def test_a_break_is_heard_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", music(4.0, 44_100, 2), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard: list[Wave] = []
    sound = read(path, RATE, listen=lambda _, block: heard.append(block))
    assert sound.damage and abs(len(np.concatenate(heard)) / 44_100 - len(sound.wave) / RATE) < 1e-3
    np.testing.assert_array_equal(np.concatenate(heard), read(path, 44_100).wave)


def test_a_range_past_the_end_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", music(1.0, 44_100), 44_100)
    sound = read(path, RATE, 5, 6)
    assert (len(sound.wave), sound.damage) == (0, "")


def test_samples_that_are_no_numbers_are_silenced_and_flagged(tmp_path: Path) -> None:
    wave = music(1.0, RATE, 2)
    clean = wave.mean(axis=1)
    wave[100], wave[200, 0], wave[300, 1] = (np.inf, -np.inf), np.nan, 3e38
    sound = read(written(tmp_path / "a.wav", wave, RATE, subtype="FLOAT"), RATE)
    assert sound.flags == ["nonfinite"]
    assert sound.wave[100] == 0
    touched = [100, 200, 300]
    np.testing.assert_allclose(np.delete(sound.wave, touched), np.delete(clean, touched), atol=1e-6)
    assert np.abs(sound.wave[touched]).max() < 1


@pytest.mark.parametrize("channel", [0, 1])
def test_clipping_of_one_channel_is_flagged_though_the_mix_hides_it(tmp_path: Path, channel: int) -> None:
    wave = 0.5 * music(1.0, RATE, 2)
    assert read(written(tmp_path / "a.wav", wave, RATE), RATE).flags == []
    wave[:, channel] = np.clip(wave[:, channel] * 20, -1, 1)
    assert read(written(tmp_path / "b.wav", wave, RATE), RATE).flags == ["clipped"]


def test_a_few_full_samples_are_no_clipping(tmp_path: Path) -> None:
    wave = music(1.0, RATE)
    wave[:10] = 1.0
    assert read(written(tmp_path / "a.wav", wave, RATE, subtype="FLOAT"), RATE).flags == []
    wave[:11] = 1.0
    assert read(written(tmp_path / "b.wav", wave, RATE, subtype="FLOAT"), RATE).flags == ["clipped"]


def test_what_is_out_of_range_or_off_zero_is_flagged(tmp_path: Path) -> None:
    wave = music(1.0, RATE)
    assert read(written(tmp_path / "a.wav", wave * 9, RATE, subtype="FLOAT"), RATE).flags == ["out_of_range"]
    assert read(written(tmp_path / "b.wav", wave + 0.2, RATE, subtype="FLOAT"), RATE).flags == ["dc"]
    silence = np.zeros(RATE, np.float32)
    assert read(written(tmp_path / "c.wav", silence, RATE), RATE).flags == []


def test_what_is_no_sound_is_corrupt(tmp_path: Path) -> None:
    for name, content in {"empty.wav": b"", "text.wav": b"not a sound\n" * 50, "samples.raw": bytes(999)}.items():
        (tmp_path / name).write_bytes(content)
        assert status(tmp_path / name) == "corrupt"
        with pytest.raises(DecodeError, match="is not sound that can be decoded: "):
            probe(tmp_path / name)


def test_what_is_not_there_or_no_file_is_unreadable(tmp_path: Path) -> None:
    assert status(tmp_path / "missing.wav") == "unreadable"
    assert status(tmp_path) == "unreadable"
    os.mkfifo(tmp_path / "pipe.wav")
    assert status(tmp_path / "pipe.wav") == "unreadable"  # opening it would wait for a writer for ever
    with pytest.raises(DecodeError, match=r"expected a sound file at .*missing\.wav, found nothing"):
        probe(tmp_path / "missing.wav")
    with pytest.raises(DecodeError, match="found a folder"):
        probe(tmp_path)


def test_what_may_not_be_read_is_unreadable(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = written(tmp_path / "a.wav", music(0.1, RATE), RATE)
    path.chmod(0)
    assert status(path) == "unreadable"


def test_a_header_without_sound(tmp_path: Path) -> None:
    sound = read(written(tmp_path / "a.wav", np.zeros(0, np.float32), 44_100), RATE)
    assert (len(sound.wave), sound.damage, sound.flags) == (0, "", [])
    flac = written(tmp_path / "a.flac", music(1.0, 44_100), 44_100)
    flac.write_bytes(flac.read_bytes()[:42])  # the stream's own header and no frame
    assert status(flac) == "corrupt"


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_a_truncated_file_gives_what_it_holds_and_says_what_is_missing(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, music(4.0, 44_100), 44_100)
    whole = read(path, RATE).wave
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sound = read(path, RATE)
    declares, holds, missing = sound.damage.split(" s")[:3]
    assert declares == "declares 4.000" and sound.damage.endswith("s fewer than its header promises")
    missing_s = float(missing.removeprefix(": "))
    assert float(holds.removeprefix(", holds ")) == pytest.approx(len(sound.wave) / RATE, abs=0.001)
    assert missing_s == pytest.approx(4.0 - len(sound.wave) / RATE, abs=0.01)
    assert 1.7 < missing_s < 2.4
    np.testing.assert_allclose(sound.wave[:RATE], whole[:RATE], atol=1e-4)
    beginning = read(path, RATE, 0.5, 1.0)
    assert (beginning.damage, len(beginning.wave)) == ("", RATE // 2)


def test_a_length_that_the_header_does_not_state_is_counted(tmp_path: Path) -> None:
    path = _with_total_samples(
        written(tmp_path / "a.flac", music(3.0, 44_100), 44_100), 0
    )  # as ffmpeg writes to a pipe
    assert probe(path).duration_s == pytest.approx(3.0, abs=0.1)
    sound = read(path, RATE)
    assert sound.damage == ""
    assert len(sound.wave) / RATE == pytest.approx(3.0, abs=0.1)
    assert len(read(path, RATE, 1.0, 2.0).wave) == RATE


def test_a_stream_of_unknown_length_that_holds_nothing_is_corrupt(tmp_path: Path) -> None:
    path = _with_total_samples(written(tmp_path / "a.flac", music(3.0, 44_100), 44_100), 0)
    content = path.read_bytes()
    path.write_bytes(content[:90] + bytes(len(content) - 90))
    assert status(path) == "corrupt"


def test_a_header_that_promises_weeks_takes_no_memory(tmp_path: Path) -> None:
    path = _with_total_samples(written(tmp_path / "a.flac", music(3.0, 44_100), 44_100), 2**36 - 1)
    sound = read(path, RATE)
    assert len(sound.wave) / RATE == pytest.approx(3.0, abs=0.1)
    assert sound.damage.endswith("s fewer than its header promises")


def test_a_cut_file_says_what_it_declares_and_holds(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", music(3.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[: 44 + 2 * round(1.7 * RATE)])
    sound = read(path, RATE)
    assert sound.damage == "declares 3.000 s, holds 1.700 s: 57330 bytes fewer than its header promises"
    assert len(sound.wave) == round(1.7 * RATE)
    assert probe(path).duration_s == pytest.approx(1.7)  # units are made of what is there


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.w64", "a.au", "a.ogg"])
def test_the_range_that_reaches_the_end_tells_its_damage(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, music(3.0, 44_100), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    end_s = probe(path).duration_s
    assert 1.5 < end_s < 2.5
    assert read(path, RATE, 0.0, 1.0).damage == ""
    assert read(path, RATE, 1.0, end_s).damage == read(path, RATE).damage != ""
    assert read(path, RATE, 1.0, 9.0).damage and read(path, RATE, 5.0, 6.0).damage


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_md5_of_a_flac_is_checked_when_it_is_read_whole(tmp_path: Path, subtype: str, channels: int) -> None:
    path = written(tmp_path / "a.flac", music(2.0, 44_100, channels), 44_100, subtype=subtype)
    assert read(path, RATE).damage == ""
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    assert read(path, RATE).damage == "its samples are not those whose MD5 its header holds"
    assert read(path, RATE, 0.0, 2.0).damage
    assert read(path, RATE, 1.5, 2.0).damage == ""
    content[26:42] = bytes(16)  # never computed, as some encoders leave it
    path.write_bytes(content)
    assert read(path, RATE).damage == ""


def test_what_no_call_may_read_is_refused_and_read_in_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "LONGEST", 2 * 44_100)
    for name in ("a.wav", "a.flac", "a.ogg", "open.flac"):
        path = written(tmp_path / name, music(3.0, 44_100), 44_100)
        if name == "open.flac":
            _with_total_samples(path, 0)
        with pytest.raises(DecodeError, match=r"longer than one call may read \(2 s\); give a range"):
            read(path, RATE)
        assert len(read(path, RATE, 1.0, 2.0).wave) == RATE
    with pytest.raises(DecodeError, match="leaves the length open, and it goes on for hours"):
        probe(tmp_path / "open.flac")
    with pytest.raises(DecodeError, match=r"\(1 s\)"):
        read(tmp_path / "a.wav", 88_200)  # twice the samples come out


def test_mp3_of_a_varying_rate_without_a_count_is_no_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", music(3.0, 44_100), 44_100)
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\xff\xfb", 100) :])  # without the frame that holds the count
    assert "no header counts its frames" in read(path, RATE).damage


def test_an_mp3_cut_inside_its_last_frame_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", music(3.0, 44_100), 44_100)
    whole = path.read_bytes()
    for n in (1, 50, 100):
        path.write_bytes(whole[:-n])
        assert read(path, RATE).damage, n
    path.write_bytes(whole + b"TAG".ljust(128, b"\0"))
    assert read(path, RATE).damage == ""


def test_a_hole_in_an_ogg_is_told_wherever_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.ogg", music(3.0, 44_100, 2), 44_100)
    whole, content = read(path, RATE).wave, bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # costs a page
    path.write_bytes(content)
    told = set()
    for block in (1000, 2 * 4096, 2 * 32_768, 2**20):
        monkeypatch.setattr(io, "LARGE_BLOCK", block)
        sound = read(path, RATE)
        told.add((sound.damage, len(sound.wave)))
        np.testing.assert_allclose(sound.wave[:RATE], whole[:RATE], atol=1e-4)
    ((damage, n),) = told
    assert "fewer than its header promises" in damage and RATE < n < 2.9 * RATE


def test_links_in_a_circle_and_devices_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    with pytest.raises(DecodeError, match="its links lead in a circle"):
        read(tmp_path / "a.wav", RATE)
    with pytest.raises(DecodeError, match="found a device or pipe"):
        read(Path("/dev/zero"), RATE)


def test_a_name_that_is_not_utf8_is_opened_and_told_in_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", music(1.0, RATE), RATE).rename(tmp_path / os.fsdecode(b"a\xff.wav"))
    assert len(read(path, RATE).wave) == RATE
    path.write_bytes(b"no sound")
    with pytest.raises(DecodeError) as caught:
        read(path, RATE)
    assert "a\\xff.wav" in str(caught.value).encode().decode()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", music(1.0, 44_100), 44_100)
    broken = tmp_path / "b.flac"
    broken.write_bytes(path.read_bytes()[:9000])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read(path, RATE)
        read(broken, RATE)
        with pytest.raises(DecodeError):
            read(tmp_path, RATE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _with_total_samples(path: Path, n_samples: int) -> Path:
    """Rewrite the 36 bits of a FLAC's STREAMINFO that state its length."""
    content = bytearray(path.read_bytes())
    content[21] = (content[21] & 0xF0) | (n_samples >> 32)
    content[22:26] = (n_samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    return path
