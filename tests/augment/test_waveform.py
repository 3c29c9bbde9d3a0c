"""Each effect does what its name says, measured on sound; and a clip gets the same on any worker."""

import typing

import numpy as np
import pytest
from pydantic import TypeAdapter

from instrunet.augment.colour import MP3_RATES, CodecSpec, NoiseSpec, RoomSpec, TiltSpec, impulse_response
from instrunet.augment.tempo import PitchSpec, ShiftSpec, SpeedSpec, StretchSpec, stretch_by
from instrunet.augment.waveform import WAVEFORM, WaveformSpec, augment_wave, generator

RATE = 22_050
SPECS = typing.get_args(typing.get_args(WaveformSpec)[0])
Wave = np.ndarray


def tone(hz: float = 440, seconds: float = 2.0, rate: int = RATE) -> Wave:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def hiss(seconds: float = 2.0, rate: int = RATE) -> Wave:
    return (0.1 * np.random.default_rng(5).standard_normal(round(seconds * rate))).astype(np.float32)


def after(wave: Wave, spec: WaveformSpec, clip: str = "a", rate: int = RATE) -> Wave:
    return augment_wave(wave, rate, [spec], generator(0, 0, clip))


def peak_hz(wave: Wave, rate: int = RATE) -> float:
    """Of the middle half, by parabola between the bins."""
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    level = np.log(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) + 1e-12)
    k = int(level[1:-1].argmax()) + 1
    a, b, c = level[k - 1 : k + 2]
    return float((k + 0.5 * (a - c) / (a - 2 * b + c)) * rate / len(middle))


def band_db(wave: Wave, low_hz: float, high_hz: float, rate: int = RATE) -> float:
    power, hz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / rate)
    return float(10 * np.log10(power[(hz >= low_hz) & (hz < high_hz)].mean() + 1e-20))


def slope_db(wave: Wave) -> float:
    """dB per octave from 100 Hz to 6.4 kHz."""
    levels = [band_db(wave, 100 * 2**k, 200 * 2**k) for k in range(6)]
    return float(np.polyfit(range(6), levels, 1)[0])


@pytest.mark.parametrize("rate", [0.7, 0.9, 1.1, 1.4])
def test_a_stretch_changes_the_length_and_not_the_pitch(rate: float) -> None:
    out = after(tone(), StretchSpec(p=1, rate=(rate, rate)))
    assert len(out) == round(2 * RATE / rate)
    assert peak_hz(out) == pytest.approx(440, rel=0.002)
    level = np.std(out[4096:-4096]) / np.std(tone())  # librosa's loses the same 0.8 dB: its first frame is half empty
    assert 0.9 < level < 1.02


@pytest.mark.parametrize("before", [0.0, 1e-44])  # 1e-44: a number of three bits, whose ratios are no ratios
def test_a_stretch_goes_on_after_silence(before: float) -> None:
    wave = np.concatenate([np.full(RATE, before, np.float32), tone()])
    out = after(wave, StretchSpec(p=1, rate=(0.8, 0.8)))
    assert np.std(out[RATE * 2 : RATE * 3]) == pytest.approx(np.std(tone()), rel=0.1)


def test_a_stretch_is_librosas() -> None:
    import librosa

    wave = tone(220) + tone(1311) + hiss()
    ours, theirs = stretch_by(wave, RATE, 1.13), librosa.effects.time_stretch(wave, rate=1.13)
    differ = (ours - theirs)[:-4096]  # at the end librosa's last frames are cut short
    assert np.abs(differ).max() < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("rate", [0.8, 1.1])
def test_speed_changes_length_and_pitch_together(rate: float) -> None:
    out = after(tone(), SpeedSpec(p=1, rate=(rate, rate)))
    assert len(out) == round(2 * RATE / rate) and peak_hz(out) == pytest.approx(440 * rate, rel=0.002)


@pytest.mark.parametrize("semitones", [-12.0, -1.0, 0.5, 4.0])
def test_a_pitch_shift_moves_a_sine_by_its_ratio_and_keeps_the_length(semitones: float) -> None:
    out = after(tone(), PitchSpec(p=1, semitones=(semitones, semitones)))
    assert len(out) == 2 * RATE and peak_hz(out) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.002)
    assert 0.9 < np.std(out[4096:-4096]) / np.std(tone()) < 1.02


def test_a_shift_moves_and_leaves_silence() -> None:
    wave, moved = hiss(), set()
    for clip in "abcdefgh":
        out = after(wave, ShiftSpec(p=1, share=0.25), clip)
        by = int(np.flatnonzero(out)[0]) or -int(len(out) - 1 - np.flatnonzero(out)[-1])
        assert len(out) == len(wave) and 0 < abs(by) <= 0.25 * len(wave)
        kept = (out[by:], wave[:-by]) if by > 0 else (out[:by], wave[-by:])
        np.testing.assert_array_equal(*kept)
        moved.add(np.sign(by))
    assert moved == {-1, 1}


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_its_ratio_and_its_colour(colour: typing.Literal["white", "pink"], snr_db: float) -> None:
    wave = tone()
    added = after(wave, NoiseSpec(p=1, snr_db=(snr_db, snr_db), colours=(colour,))) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.05)
    assert slope_db(added) == pytest.approx({"white": 0, "pink": -3.01}[colour], abs=0.3)


def test_a_room_adds_a_tail_that_falls_by_60_db() -> None:
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    out = after(click, RoomSpec(p=1, decay_s=(0.5, 0.5), direct_db=(6, 6)))
    assert len(out) == len(click) and np.abs(out[:1000]).max() < 1e-6 and out[1000] == pytest.approx(0.5, rel=1e-5)
    tail = out[1001:].astype(np.float64)
    assert 10 * np.log10(0.25 / np.sum(tail**2)) == pytest.approx(6, abs=0.01)
    level = [10 * np.log10(np.mean(tail[at : at + 1000] ** 2)) for at in range(2000, 10_000, 1000)]
    assert np.polyfit(np.arange(8) * 1000 / RATE, level, 1)[0] == pytest.approx(-60 / 0.5, rel=0.1)  # dB a second
    assert np.abs(tail[round(0.5 * RATE) :]).max() < 1e-6


def test_rooms_differ_and_have_echoes_before_the_tail() -> None:
    rooms = [impulse_response(RATE, 0.4, 3, np.random.default_rng(k)) for k in range(20)]
    assert len({room.tobytes() for room in rooms}) == 20
    counts = []
    for room in rooms:
        early = np.abs(room[1 : RATE // 20])
        noise = np.array([np.median(early[max(0, k - 50) : k + 50]) for k in range(len(early))]) / 0.6745
        counts.append(int((early[100:] > 6 * noise[100:]).sum()))  # an echo of 4 stands out from noise up to 33 ms
    assert max(counts) <= 8 and 40 < sum(counts) < 100  # 3 to 8 a room, of which 62 %


@pytest.mark.parametrize("slope", [-6.0, -1.5, 3.0])
def test_a_tilt_has_its_slope(slope: float) -> None:
    wave = hiss()
    out = after(wave, TiltSpec(p=1, slope_db=(slope, slope)))
    assert slope_db(out) - slope_db(wave) == pytest.approx(slope, abs=0.1)
    assert band_db(out, 980, 1020) == pytest.approx(band_db(wave, 980, 1020), abs=0.1)


@pytest.mark.parametrize(("kind", "cut_hz"), [("ogg", 17_500), ("mp3", 10_000)])
def test_a_codec_loses_what_lies_above_its_cut_and_delays_nothing(
    kind: typing.Literal["ogg", "mp3"], cut_hz: float
) -> None:
    wave = hiss(rate=44_100)
    out = after(wave, CodecSpec(p=1, formats=(kind,), compression=(0.95, 0.95)), rate=44_100)
    above = band_db(out, cut_hz, 22_050, 44_100) - band_db(wave, cut_hz, 22_050, 44_100)
    below = band_db(out, 200, 2000, 44_100) - band_db(wave, 200, 2000, 44_100)
    assert len(out) == len(wave) and above < -25 and abs(below) < 1.5
    low = [np.fft.rfft(signal, 2 * len(wave)) for signal in (out, wave)]
    assert np.fft.irfft(low[0] * low[1].conj()).argmax() == 0  # best overlap without any lag


def test_a_codec_does_the_same_at_any_level_and_rate() -> None:
    spec, wave = CodecSpec(p=1), hiss(0.5)
    loud, soft = after(wave, spec), after(wave * np.float32(2**-12), spec) * np.float32(2**12)
    np.testing.assert_allclose(loud, soft, atol=1e-6)
    assert np.abs(after(wave * 100, spec)).max() > 20  # full scale is 1: nothing is cut off there
    for rate in (4000, 22_051, 96_000, *MP3_RATES):
        for kind in ("ogg", "mp3"):
            out = after(wave, CodecSpec(p=1, formats=(kind,), compression=(1, 1)), rate=rate)  # type: ignore[arg-type]
            assert len(out) == len(wave) and np.std(out) > 0.4 * np.std(wave)


def test_gain_and_polarity() -> None:
    wave = hiss()
    gains = [
        20 * np.log10(np.std(after(wave, SPECS[0](p=1, gain_db=(-6, 3)), str(k))) / np.std(wave)) for k in range(60)
    ]
    assert -6 <= min(gains) < -5 and 2 < max(gains) <= 3
    np.testing.assert_array_equal(
        after(wave, TypeAdapter(WaveformSpec).validate_python({"name": "polarity", "p": 1})), -wave
    )


@pytest.mark.parametrize("spec", [spec(p=1) for spec in SPECS], ids=lambda spec: spec.name)
@pytest.mark.parametrize("wave", [hiss(1), np.zeros(RATE, np.float32), hiss(1)[:10], hiss(1)[:1], hiss(1)[:0]])
def test_any_sound_comes_back_finite_and_what_went_in_is_untouched(spec: typing.Any, wave: Wave) -> None:
    before = wave.copy()
    for clip in "abc":
        out = after(wave, spec, clip)
        assert out.dtype == np.float32 and out.ndim == 1 and np.isfinite(out).all()
        if len(wave):
            assert len(out) == len(wave) if spec.name not in ("stretch", "speed") else len(out) >= 1
        assert np.abs(out).max(initial=0) <= 10 and (before.any() or not out.any())
    np.testing.assert_array_equal(wave, before)


def test_every_effect_stands_in_the_table_under_its_name() -> None:
    assert {spec().name for spec in SPECS} == set(WAVEFORM)


def test_a_clip_gets_the_same_whatever_was_done_before() -> None:
    effects, wave = [spec(p=0.5) for spec in SPECS], hiss(0.5)
    first = {clip: augment_wave(wave, RATE, effects, generator(3, 1, clip)) for clip in "abcdef"}
    for clip in "fbdace":
        np.testing.assert_array_equal(augment_wave(wave, RATE, effects, generator(3, 1, clip)), first[clip])
    others = [generator(3, 1, "a"), generator(3, 1, "b"), generator(3, 2, "a"), generator(4, 1, "a")]
    assert len({other.random() for other in others}) == 4


def test_the_numbers_of_a_clip_stay_the_same_between_versions() -> None:
    assert generator(0, 1, "IRMAS/[cel]_0001.wav").random() == 0.9052166037380784


def test_an_effect_is_applied_as_often_as_it_says() -> None:
    wave = hiss(0.01)
    often = np.mean([not np.array_equal(after(wave, SPECS[0](p=0.3), str(k)), wave) for k in range(1000)])
    assert often == pytest.approx(0.3, abs=0.045)  # 3 standard errors
