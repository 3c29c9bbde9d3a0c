"""The front end: the module and the fast path, loudness, windows, and the rules between features."""

import numpy as np
import pytest
import torch
from making import FRONT, RATE, tone
from numpy.typing import NDArray

from instrunet.errors import ConfigError
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics, sums_of
from instrunet.features.logmel import LogMelSpec

DB = 10 / np.log(10)
WINDOW = FRONT.window
WINDOWS = {
    "noise": np.random.default_rng(1).standard_normal((3, WINDOW)).astype(np.float32) * 0.2,
    "silence": np.zeros((2, WINDOW), np.float32),
    "nearly silent": np.full((1, WINDOW), 5e-5, np.float32),
    "half silent": np.concatenate([tone(440, 0.25), np.zeros(WINDOW // 2, np.float32)])[None],
}


def front(**other: object) -> FrontEnd:
    return FrontEnd.model_validate(FRONT.model_dump() | other)


def of(wave: NDArray[np.float32], **other: object) -> NDArray[np.float32]:
    return Featurizer(front(**other)).fast(wave).features["logmel"]


@pytest.mark.parametrize("level", ["peak", "rms", "none"])
@pytest.mark.parametrize("sound", WINDOWS)
def test_module_and_fast_path_agree(sound: str, level: str) -> None:
    featurizer = Featurizer(front(level=level))
    module = featurizer(torch.from_numpy(WINDOWS[sound]))["logmel"].numpy()
    fast = featurizer.fast(WINDOWS[sound].reshape(-1)).features["logmel"]
    assert module.shape == fast.shape == (len(WINDOWS[sound]), *FRONT.shapes()["logmel"])
    # Worst over all of them: 0.000004 dB
    assert np.abs(module - fast).max() * DB < 0.01


def test_a_short_sound_is_one_window_padded_with_silence() -> None:
    wave = tone(440, 0.1)
    padded = np.pad(wave, (0, WINDOW - len(wave)))
    seen = Featurizer(FRONT).fast(wave)
    assert seen.start_s == [0.0]
    module = Featurizer(FRONT)(torch.from_numpy(padded[None]))["logmel"].numpy()
    assert np.abs(module - seen.features["logmel"]).max() * DB < 0.01


def test_a_long_sound_is_all_of_its_windows() -> None:
    wave = tone(440, 1.3)
    seen = Featurizer(FRONT).fast(wave)
    assert seen.start_s == pytest.approx([0.0, 0.5, 0.8])  # the last one flush with the end
    for start_s, window in zip(seen.start_s, seen.features["logmel"], strict=True):
        at = round(start_s * RATE)
        np.testing.assert_array_equal(window, of(wave[at : at + WINDOW])[0])


def test_no_sound_is_no_window() -> None:
    seen = Featurizer(FRONT).fast(np.zeros(0, np.float32))
    assert (seen.start_s, seen.features["logmel"].shape, seen.quiet.shape) == ([], (0, 16, 16), (0,))


def test_quiet_windows_are_marked() -> None:
    wave = np.concatenate([tone(440, 0.5), np.zeros(WINDOW, np.float32), np.full(WINDOW, 2e-4, np.float32)])
    assert Featurizer(FRONT).fast(wave).quiet.tolist() == [False, True, False]


@pytest.mark.parametrize("level", ["peak", "rms"])
def test_gain_changes_nothing(level: str) -> None:
    wave = tone(440, 1.0)
    np.testing.assert_allclose(of(wave * np.float32(0.1), level=level), of(wave, level=level), atol=1e-3)


def test_without_a_level_gain_is_seen() -> None:
    wave = tone(440, 0.5)
    quieter = of(wave * np.float32(0.1), level="none")
    loudest = np.unravel_index(of(wave, level="none").argmax(), quieter.shape)
    assert (of(wave, level="none") - quieter)[loudest] * DB == pytest.approx(20, abs=0.01)


def test_each_window_has_its_own_level() -> None:
    wave = tone(440, 0.5)
    together = of(np.concatenate([wave, wave * np.float32(0.01)]))
    np.testing.assert_allclose(together[1], together[0], atol=1e-3)


def test_peak_is_full_scale_and_rms_is_a_tenth_of_it() -> None:
    wave = tone(440, 0.5)
    np.testing.assert_allclose(of(wave), of(wave / np.abs(wave).max(), level="none"), atol=1e-4)
    at_rms = (wave / np.sqrt(np.mean(wave.astype(np.float64) ** 2)) / 10).astype(np.float32)
    np.testing.assert_allclose(of(wave, level="rms"), of(at_rms, level="none"), atol=1e-4)


@pytest.mark.parametrize("level", ["peak", "rms"])
def test_silence_is_not_raised(level: str) -> None:
    np.testing.assert_array_equal(of(WINDOWS["nearly silent"][0], level=level), of(WINDOWS["nearly silent"][0]))
    np.testing.assert_array_equal(of(WINDOWS["nearly silent"][0]), of(WINDOWS["nearly silent"][0], level="none"))


def test_features_must_share_one_sample_rate() -> None:
    other = LogMelSpec(sample_rate=16_000, fmax_hz=8000.0)
    tree = {"features": [LogMelSpec().model_dump(), other.model_dump()]}
    with pytest.raises(ConfigError) as error:
        FrontEnd.parse(tree, "x.yaml")
    assert str(error.value) == "x.yaml: all features must share one sample_rate; got [16000, 22050]"


def test_a_feature_may_stand_once() -> None:
    tree = {"features": [LogMelSpec().model_dump(), LogMelSpec(n_mels=64).model_dump()]}
    with pytest.raises(ConfigError) as error:
        FrontEnd.parse(tree, "x.yaml")
    assert str(error.value) == "x.yaml: each feature may stand once; got logmel, logmel"


def test_statistics_are_numpys() -> None:
    rng = np.random.default_rng(2)
    halves = [rng.normal(-5, 3, (n, 16, 16)) for n in (4, 9, 1)]
    whole = np.concatenate(halves)
    found = Statistics.of({name: sum(sums_of(name, h) for h in halves) for name in ("logmel", "summary")}, 14)
    assert found.mean["logmel"] == pytest.approx([whole.mean()], rel=1e-12)
    assert found.std["logmel"] == pytest.approx([whole.std()], rel=1e-9)
    assert found.mean["summary"] == pytest.approx(whole.mean((0, 2)), rel=1e-12)
    assert found.std["summary"] == pytest.approx(whole.std((0, 2)), rel=1e-9)
    assert found.n_windows == 14


def test_statistics_of_a_constant_do_not_divide_by_zero() -> None:
    found = Statistics.of({"logmel": sums_of("logmel", np.full((1, 5, 2), -3.0))}, 1)
    assert found.std["logmel"] == (1e-3,)
