"""Log-mel against librosa, the fast path against the module, and the shape law."""

from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pytest
import torch
from making import tone
from numpy.typing import NDArray

from instrunet.config import ConfigError
from instrunet.features.logmel import LogMel, LogMelSpec, slaney_bands

RATE = 22_050
DB = 10 / np.log(10)  # decibels in one unit of the natural logarithm of energy
SOUNDS = {
    "noise": np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.3,
    "tone": tone(1234.5, 1.0, rate=RATE),
    "silence": np.zeros(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "short": tone(440.0, 300 / RATE, rate=RATE),
}


def rival(wave: NDArray[np.float32], spec: LogMelSpec) -> NDArray[np.float64]:
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.fmin_hz,
        fmax=spec.fmax_hz,
        power=2.0,
        center=True,
        pad_mode="constant",
        htk=False,
        norm="slaney",
    )
    return np.log(mel.astype(np.float64) + spec.floor)


def worst_db(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b).max() * DB)


def both(wave: NDArray[np.float32], spec: LogMelSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    part = LogMel(spec)
    return part(torch.from_numpy(wave)[None])[0].numpy(), part.fast(wave)


@pytest.mark.parametrize("hop_length", [512, 128])
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large:UserWarning")  # librosa, of the sound of 300 samples
def test_equals_librosa(sound: str, hop_length: int) -> None:
    # Worst over all sounds and hops: module and fast 0.00004 dB, one to the other 0.000005 dB. A pure sine at full
    # scale without any noise is beyond: single precision puts the bands far below it off by up to 0.0018 dB
    spec = LogMelSpec(hop_length=hop_length)
    module, fast = both(SOUNDS[sound], spec)
    want = rival(SOUNDS[sound], spec)
    assert worst_db(module, want) < 0.001
    assert worst_db(fast, want) < 0.001
    assert worst_db(module, fast) < 0.001


@pytest.mark.parametrize("hop_length", [512, 128])
@pytest.mark.parametrize("n_samples", [1, 255, 256, 22_050])
def test_shape_is_known_before_the_sound_is_read(n_samples: int, hop_length: int) -> None:
    spec = LogMelSpec(hop_length=hop_length)
    expected = {1: 1, 255: 1 + 255 // hop_length, 256: 1 + 256 // hop_length, 22_050: 1 + 22_050 // hop_length}
    module, fast = both(tone(440.0, n_samples / RATE, rate=RATE), spec)
    assert module.shape == fast.shape == spec.shape(n_samples) == (128, expected[n_samples])


@pytest.mark.parametrize("hop_length", [512, 128])
def test_a_frame_does_not_depend_on_the_block_it_is_in(hop_length: int) -> None:
    # 5 s are 216 and 862 frames, in blocks of 130; an offset of 7 frames puts each at another place of its block
    part, wave = LogMel(LogMelSpec(hop_length=hop_length)), tone(1234.5, 5.0, rate=RATE)
    whole, later = part.fast(wave), part.fast(wave[7 * hop_length :])
    inner = slice(16, -16)  # frames that do not reach over an end
    np.testing.assert_array_equal(whole[:, 7:][:, inner], later[:, inner])


@pytest.mark.parametrize("sample_rate", [22_050, 11_025, 8000])
def test_the_weights_are_librosas(sample_rate: int) -> None:
    spec = LogMelSpec(sample_rate=sample_rate, fmin_hz=0.0, fmax_hz=sample_rate / 2, n_mels=64)
    want = librosa.filters.mel(sr=sample_rate, n_fft=2048, n_mels=64, fmin=0.0, fmax=sample_rate / 2)
    np.testing.assert_allclose(slaney_bands(spec), want, rtol=0, atol=1e-7 * want.max())


def test_other_settings_follow_librosa_too() -> None:
    spec = LogMelSpec(sample_rate=16_000, n_fft=1024, hop_length=160, n_mels=40, fmin_hz=0.0, fmax_hz=7600, floor=1e-8)
    module, fast = both(SOUNDS["noise"], spec)
    assert worst_db(module, rival(SOUNDS["noise"], spec)) < 0.001
    assert worst_db(fast, rival(SOUNDS["noise"], spec)) < 0.001


def test_a_clip_does_not_depend_on_its_batch() -> None:
    part = LogMel(LogMelSpec())
    clips = torch.stack([torch.from_numpy(SOUNDS[name]) for name in ("noise", "tone", "silence", "click")])
    together = part(clips)
    for row, wave in enumerate(clips):
        torch.testing.assert_close(together[row], part(wave[None])[0], rtol=0, atol=1e-5)


def test_what_is_kept_between_calls_serves_whoever_calls() -> None:
    logmel, wave = LogMel(LogMelSpec()), np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    with torch.inference_mode():
        first = logmel.fast(wave)
    assert np.array_equal(logmel.fast(wave), first)


def test_threads_share_it() -> None:
    """Each has a buffer of its own while it works."""
    logmel, clips = LogMel(LogMelSpec(hop_length=64)), [tone(200.0 * k, 1.0, seed=k) for k in range(1, 9)]
    alone = [logmel.fast(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for one, other in zip(alone, pool.map(logmel.fast, clips), strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_higher_tone_lights_a_higher_band() -> None:
    spec = LogMelSpec()
    centres_hz = librosa.mel_frequencies(spec.n_mels + 2, fmin=spec.fmin_hz, fmax=spec.fmax_hz)[1:-1]
    tones_hz = (220.0, 440.0, 880.0, 3000.0, 9000.0)
    lit = [[int(path.mean(1).argmax()) for path in both(tone(hz, 0.5, rate=RATE), spec)] for hz in tones_hz]
    assert lit == sorted(lit) and len({bands[0] for bands in lit}) == len(tones_hz)
    for hz, bands in zip(tones_hz, lit, strict=True):
        # A bin is 10.8 Hz wide, more than half a band at 220 Hz: the band beside the nearest may win
        assert all(abs(band - int(np.abs(centres_hz - hz).argmin())) <= 1 for band in bands)


def test_silence_is_the_floor() -> None:
    for path in both(SOUNDS["silence"], LogMelSpec(floor=1e-4)):
        np.testing.assert_allclose(path, np.log(1e-4), rtol=1e-6)


def test_a_band_above_half_the_rate_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        LogMelSpec.parse({"sample_rate": 16_000, "fmin_hz": 50, "fmax_hz": 9000}, "x.yaml")
    assert str(error.value) == (
        "x.yaml: logmel needs 0 <= fmin_hz < fmax_hz <= 8000, half the sample rate; got fmin_hz=50 and fmax_hz=9000"
    )


def test_an_odd_n_fft_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_fft: input should be a multiple of 2, got 2047"):
        LogMelSpec.parse({"n_fft": 2047}, "x.yaml")
