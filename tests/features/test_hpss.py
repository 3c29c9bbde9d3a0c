"""Harmonic and percussive parts against librosa, bit for bit, their log-mels, and the shape law."""

import librosa
import numpy as np
import pytest
import torch
from making import tone
from numpy.typing import NDArray

from instrunet.errors import ConfigError
from instrunet.features.hpss import Hpss, HpssSpec, separate
from instrunet.features.spectra import magnitudes

RATE = 22_050
SOUNDS = {
    "noise": np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.3,
    "tone": tone(440.0, 1.0, rate=RATE),
    "silence": np.zeros(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "short": tone(440.0, 500 / RATE, rate=RATE),
}
SPECS = {
    "default": HpssSpec(),
    "margin": HpssSpec(margin=2.5, harmonic_frames=17, percussive_bins=11, power=1.0),
    "another rate": HpssSpec(sample_rate=16_000, n_fft=1024, hop_length=160, n_mels=40, fmax_hz=8000.0, floor=1e-8),
}


def rivals(wave: NDArray[np.float32], spec: HpssSpec) -> list[NDArray[np.float32]]:
    """Magnitudes [K, L] of both parts."""
    kernel = (spec.harmonic_frames, spec.percussive_bins)
    magnitude = np.abs(librosa.stft(wave, n_fft=spec.n_fft, hop_length=spec.hop_length))
    return list(librosa.decompose.hpss(magnitude, kernel_size=kernel, power=spec.power, margin=spec.margin))


def logmel(part: NDArray[np.float32], spec: HpssSpec) -> NDArray[np.float64]:
    mel = librosa.feature.melspectrogram(
        S=part**2, sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin_hz, fmax=spec.fmax_hz
    )
    return np.log(mel.astype(np.float64) + spec.floor)


@pytest.mark.parametrize("setting", SPECS)
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")  # librosa, of the sound of 500 samples
def test_equals_librosa(sound: str, setting: str) -> None:
    wave, spec = SOUNDS[sound], SPECS[setting]
    want = rivals(wave, spec)
    for ours, theirs in zip(separate(magnitudes(wave, spec.n_fft, spec.hop_length), spec), want, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The log-mels, worst over all: 0.0000006
    got = Hpss(spec).fast(wave)
    assert got.shape == spec.shape(len(wave))
    assert np.abs(got - np.concatenate([logmel(part, spec) for part in want])).max() < 1e-5


@pytest.mark.parametrize("n_frames", [1, 2, 3, 40])
def test_medians_are_mirrored_at_the_ends(n_frames: int) -> None:
    """Written out, as with two frames scipy.ndimage 1.17, and so librosa, mirrors wrongly."""
    spec = HpssSpec(harmonic_frames=31, percussive_bins=1)
    magnitude = np.random.default_rng(3).random((20, n_frames)).astype(np.float32)
    mirror = [*range(n_frames), *reversed(range(n_frames))]
    at = [[mirror[k % (2 * n_frames)] for k in range(frame - 15, frame + 16)] for frame in range(n_frames)]
    harmonic = np.median(magnitude[:, at], axis=-1)
    mask = harmonic**2 / (harmonic**2 + magnitude**2)  # a median over one bin is the bin
    np.testing.assert_allclose(separate(magnitude, spec)[0], magnitude * mask, rtol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 255, 256, 22_050])
def test_shape_is_known_before_the_sound_is_read(n_samples: int) -> None:
    part = Hpss(HpssSpec())
    assert part.fast(tone(440.0, n_samples / RATE, rate=RATE)).shape == part.spec.shape(n_samples)
    assert part.spec.shape(n_samples) == (256, 1 + n_samples // 512)


def test_forward_is_fast_clip_by_clip() -> None:
    part = Hpss(HpssSpec())
    clips = np.stack([SOUNDS["noise"], SOUNDS["tone"]])
    for row, wave in zip(part(torch.from_numpy(clips)).numpy(), clips, strict=True):
        np.testing.assert_array_equal(row, part.fast(wave))


@pytest.mark.parametrize(("sound", "stronger"), [("tone", 0), ("click", 1)])
def test_what_lasts_is_harmonic_and_what_strikes_percussive(sound: str, stronger: int) -> None:
    halves = np.split(np.exp(Hpss(HpssSpec()).fast(SOUNDS[sound])).sum(1), 2)
    assert halves[stronger].sum() > 10 * halves[1 - stronger].sum()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sample_rate": 16_000},
            "hpss needs 0 <= fmin_hz < fmax_hz <= 8000, half the sample rate; got fmin_hz=30 and fmax_hz=11025",
        ),
        (
            {"harmonic_frames": 30},
            "hpss needs odd harmonic_frames and percussive_bins: a median has a middle; got 30 and 31",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        HpssSpec.parse(fields, "x.yaml")
    assert str(error.value) == f"x.yaml: {message}"
