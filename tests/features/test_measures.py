"""The six numbers of a sound: each against what the sound was made with."""

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from scipy.signal import chirp, firwin, lfilter

from instrunet.features.featurizer import Featurizer, FrontEnd
from instrunet.features.logmel import LogMel, LogMelSpec
from instrunet.features.measures import N_FFT, NAMES, bandwidth, spectrum

RATE = 22_050
FRONT = FrontEnd(features=(LogMelSpec(n_mels=32),), level="none")


def noise(seconds: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def below(hz: float, wave: NDArray[np.float32]) -> NDArray[np.float32]:
    return lfilter(firwin(511, hz, fs=RATE, window=("kaiser", 9.0)), 1.0, wave).astype(np.float32)


def measures(wave: NDArray[np.float32], front: FrontEnd = FRONT) -> dict[str, float]:
    return dict(zip(NAMES, Featurizer(front).fast(wave).measures, strict=True))


@pytest.mark.parametrize("hz", [2000.0, 4000.0, 7000.0])
def test_bandwidth_is_where_a_low_pass_cuts(hz: float) -> None:
    assert measures(below(hz, noise()))["bandwidth_hz"] == pytest.approx(hz, abs=150)


def test_bandwidth_of_upsampled_sound_is_half_its_first_rate() -> None:
    slow = soxr.resample(noise(), RATE, 8000)
    assert measures(soxr.resample(slow, 8000, RATE).astype(np.float32))["bandwidth_hz"] == pytest.approx(4000, abs=200)


def test_bandwidth_does_not_depend_on_gain_and_sees_what_is_70_db_down() -> None:
    t = np.arange(3 * RATE) / RATE
    for high_db, hz in ((-65, 9000), (-75, 1000)):
        wave = np.sin(2 * np.pi * 1000 * t) + 10 ** (high_db / 20) * np.sin(2 * np.pi * 9000 * t)
        for gain in (1.0, 1e-2):
            found = bandwidth(spectrum((gain * wave).astype(np.float32))[None], RATE)
            assert found == pytest.approx([hz], abs=90)


@pytest.mark.parametrize("seconds", [0.093, 0.5, 3.0, 12.0])  # 12 s are four blocks of frames
def test_a_picture_with_the_same_frames_gives_their_spectra(seconds: float) -> None:
    """A tone that climbs: no two frames are alike."""
    wave = noise(seconds) + chirp(np.arange(round(seconds * RATE)) / RATE, 50, seconds, 9000).astype(np.float32)
    n = len(wave) // N_FFT
    powers = np.full((n, N_FFT // 2 + 1), np.nan, np.float32)
    LogMel(LogMelSpec()).fast(wave, powers)
    for k in range(n):
        expected = spectrum(wave[k * N_FFT : (k + 1) * N_FFT])
        np.testing.assert_allclose(powers[k], expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("feature", [LogMelSpec(n_fft=1024), LogMelSpec(hop_length=500), LogMelSpec(hop_length=3000)])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 5.5])  # less than a frame, less than a window, and more than one
def test_measures_do_not_hang_on_whose_frames_they_are_of(feature: LogMelSpec, seconds: float) -> None:
    wave = below(6000, noise(seconds))
    shared, own = measures(wave, FRONT), measures(wave, FRONT.model_copy(update={"features": (feature,)}))
    for name in ("level_db", "peak_db", "bandwidth_hz", "duration_s"):
        assert shared[name] == pytest.approx(own[name], abs=0.01 * RATE / N_FFT), name
    if seconds > 1:  # where it is cut off there is energy at all frequencies
        assert own["bandwidth_hz"] == pytest.approx(6000, abs=150)


def test_level_and_peak_are_those_of_the_sound() -> None:
    found = measures(np.sin(2 * np.pi * 441.1 * np.arange(RATE) / RATE).astype(np.float32) / 10)
    assert found["peak_db"] == pytest.approx(-20, abs=0.02)
    assert found["level_db"] == pytest.approx(-23.01, abs=0.02)  # the padding of its window does not count
    assert found["duration_s"] == 1.0


def test_the_value_range_is_the_features() -> None:
    wave = noise()
    seen = Featurizer(FRONT).fast(wave)
    found = measures(wave)
    assert found["feature_low"] == seen.features["logmel"].min()
    assert found["feature_high"] == seen.features["logmel"].max()


def test_a_long_recording_with_pauses_measures_as_its_clips_do() -> None:
    one, long = measures(noise()), measures(np.concatenate([noise(9, 1), np.zeros(60 * RATE, np.float32), noise(6, 2)]))
    for name in ("level_db", "peak_db", "bandwidth_hz", "feature_high"):
        assert long[name] == pytest.approx(one[name], rel=0.05, abs=1.0), name
    assert long["duration_s"] == 75.0


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(RATE), np.full(RATE, 5e-5)])
def test_silence_has_no_measures(wave: NDArray[np.float64]) -> None:
    assert Featurizer(FRONT).fast(wave.astype(np.float32)).measures == []
