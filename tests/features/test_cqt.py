"""The constant-Q transform against librosa, over settings that take each branch of its recursion, and the shape law."""

import librosa
import numpy as np
import pytest
import torch
from making import tone
from numpy.typing import NDArray

from instrunet.errors import ConfigError
from instrunet.features.cqt import Cqt, CqtSpec
from instrunet.features.spectra import constant_q

RATE = 22_050
SOUNDS = {
    "noise": np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.3,
    "tone": tone(440.0, 1.0, rate=RATE),
    "sine": np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32),
    "silence": np.zeros(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "short": tone(440.0, 300 / RATE, rate=RATE),
}
SPECS = {
    "seven octaves": CqtSpec(),
    "36 an octave": CqtSpec(n_bins=252, bins_per_octave=36),
    "part of an octave": CqtSpec(n_bins=30, fmin_hz=55.0),
    "halved before": CqtSpec(hop_length=256, n_bins=60, fmin_hz=110.0, bins_per_octave=24),
    "hop runs out of twos": CqtSpec(hop_length=100, n_bins=48, fmin_hz=55.0),
    "odd hop": CqtSpec(hop_length=441, n_bins=36, fmin_hz=65.0),
    "one bin": CqtSpec(n_bins=1, fmin_hz=440.0),
    "another rate": CqtSpec(sample_rate=16_000, hop_length=160),
}


def rival(wave: NDArray[np.float32], spec: CqtSpec) -> NDArray[np.float32]:
    found = librosa.cqt(
        wave,
        sr=spec.sample_rate,
        hop_length=spec.hop_length,
        fmin=spec.fmin_hz,
        n_bins=spec.n_bins,
        bins_per_octave=spec.bins_per_octave,
    )
    return np.abs(found)


@pytest.mark.parametrize("setting", SPECS)
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")  # librosa, of short sounds
def test_equals_librosa(sound: str, setting: str) -> None:
    # Worst over all: 4e-7 of the largest; as logarithms 0.0009, where a sine without noise leaves bins near the floor
    wave, spec = SOUNDS[sound], SPECS[setting]
    want = rival(wave, spec)[:, : spec.shape(len(wave))[1]]
    got = constant_q(spec.sample_rate, spec.hop_length, spec.fmin_hz, spec.n_bins, spec.bins_per_octave)(wave)
    assert got.shape == want.shape == spec.shape(len(wave))
    assert np.abs(got - want).max() <= 1e-6 * max(want.max(), 1e-3)
    logs = np.log(want.astype(np.float64) + spec.floor)
    assert np.abs(Cqt(spec).fast(wave) - logs).max() < 0.003


@pytest.mark.parametrize("setting", SPECS)
@pytest.mark.parametrize("n_samples", [1, 255, 256, 511, 22_050])
def test_shape_is_known_before_the_sound_is_read(n_samples: int, setting: str) -> None:
    spec = SPECS[setting]
    wave = tone(440.0, n_samples / RATE, rate=RATE)
    assert Cqt(spec).fast(wave).shape == spec.shape(n_samples) == (spec.n_bins, 1 + n_samples // spec.hop_length)


def test_forward_is_fast_clip_by_clip() -> None:
    part = Cqt(CqtSpec())
    clips = np.stack([SOUNDS["noise"], SOUNDS["tone"]])
    batch = part(torch.from_numpy(clips))
    assert batch.shape == (2, *part.spec.shape(RATE))
    for row, wave in zip(batch.numpy(), clips, strict=True):
        np.testing.assert_array_equal(row, part.fast(wave))


def test_a_tone_lights_its_bin_and_an_octave_is_twelve_higher() -> None:
    lit = [int(Cqt(CqtSpec()).fast(tone(hz, 1.0, rate=RATE)).mean(1).argmax()) for hz in (220.0, 440.0, 880.0)]
    assert lit == [33, 45, 57]  # A3, A4, A5 from C1


def test_silence_is_the_floor() -> None:
    np.testing.assert_allclose(Cqt(CqtSpec(floor=1e-4)).fast(SOUNDS["silence"]), np.log(1e-4), rtol=1e-6)


def test_a_bin_above_half_the_rate_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        CqtSpec.parse({"sample_rate": 8000, "n_bins": 96}, "x.yaml")
    assert str(error.value) == (
        "x.yaml: cqt needs its highest bin to end below 4000 Hz, half the sample rate; 96 bins from fmin_hz=32.7032, "
        "12 an octave, end at 8244: lower n_bins"
    )
    hz = librosa.cqt_frequencies(96, fmin=librosa.note_to_hz("C1"))
    assert librosa.filters.wavelet_lengths(freqs=hz, sr=8000)[1] == pytest.approx(8244, abs=1)
