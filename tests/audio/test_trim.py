"""Silence at both ends, against librosa's trimming and through the front end."""

import librosa
import numpy as np
import pytest
from making import FRONT, RATE, tone
from numpy.typing import NDArray

from instrunet.audio.trim import KEPT_S, trimmed
from instrunet.features.featurizer import Featurizer
from instrunet.features.measures import NAMES

TRIMMING = Featurizer(FRONT.model_copy(update={"trim_db": 35, "length": "adaptive", "min_s": 0.2}))


def hushed(before_s: float, wave: NDArray[np.float32], after_s: float, level: float = 1e-4) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).normal(0, level, round((before_s + after_s) * RATE) + len(wave))
    at = round(before_s * RATE)
    noise[at : at + len(wave)] += wave
    return noise.astype(np.float32)


@pytest.mark.parametrize("below_db", [20, 35, 60])
@pytest.mark.parametrize(("before_s", "after_s"), [(0.5, 0.8), (0.0, 1.0), (0.7, 0.0), (0.0, 0.0)])
def test_the_stretch_is_librosas_and_a_margin(before_s: float, after_s: float, below_db: float) -> None:
    rate = 16_000
    swell = np.hanning(rate).astype(np.float32) * tone(300, 1.0, rate=rate)
    wave = np.pad(swell, (round(before_s * rate), round(after_s * rate)))
    _, (first, stop) = librosa.effects.trim(wave, top_db=below_db, frame_length=1024, hop_length=256)
    kept = round(KEPT_S * rate)
    assert trimmed(wave, rate, below_db) == (max(0, first - kept), min(len(wave), stop + kept))


def test_what_is_loud_is_never_cut_whatever_its_rate_and_level() -> None:
    for rate, gain in ((8_000, 1.0), (44_100, 1e-3), (192_000, 30.0)):
        wave = np.pad(gain * tone(200, 0.3, rate=rate), (rate // 2, rate // 3)).astype(np.float32)
        first, stop = trimmed(wave, rate, 35)
        assert 0 < first <= rate // 2 and rate // 2 + 0.3 * rate <= stop < len(wave)
        assert stop - first < 0.3 * rate + 2 * (KEPT_S + 0.05) * rate


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(4000), np.ones(1), np.ones(4000)])
def test_silence_and_what_has_no_silence_stay_whole(wave: NDArray[np.float64]) -> None:
    assert trimmed(wave.astype(np.float32), RATE, 35) == (0, len(wave))


def test_the_front_end_hears_the_same_whatever_silence_surrounds_a_sound() -> None:
    word = tone(440, 0.8)
    bare, quiet = TRIMMING.fast(hushed(0.2, word, 0.2)), TRIMMING.fast(hushed(1.2, word, 0.7))
    assert quiet.start_s[0] == pytest.approx(1.2 - KEPT_S, abs=0.04)
    assert bare.start_s[0] == pytest.approx(0.2 - KEPT_S, abs=0.04)
    assert quiet.features["logmel"].shape == bare.features["logmel"].shape
    whole = Featurizer(FRONT.model_copy(update={"length": "adaptive", "min_s": 0.2, "window_s": 4.0}))
    assert whole.fast(hushed(1.2, word, 0.7)).features["logmel"].shape[2] > 2 * quiet.features["logmel"].shape[2]


def test_drift_is_told_of_the_duration_as_it_was() -> None:
    measures = TRIMMING.fast(hushed(1.2, tone(440, 0.8), 0.7)).measures
    assert measures[NAMES.index("duration_s")] == pytest.approx(2.7, rel=0.01)
