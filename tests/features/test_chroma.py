"""Chroma against librosa, the fast path against batches, and the shape law."""

import librosa
import numpy as np
import pytest
import torch
from making import tone
from numpy.typing import NDArray

from instrunet.features.chroma import Chroma, ChromaSpec

RATE = 22_050
SOUNDS = {
    "noise": np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.3,
    "tone": tone(440.0, 1.0, rate=RATE),
    "silence": np.zeros(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "half silent": np.concatenate([np.zeros(RATE // 2, np.float32), tone(440.0, 0.5, rate=RATE)]),
    "constant": np.ones(RATE, np.float32),
    "short": tone(440.0, 300 / RATE, rate=RATE),
}
SPECS = {
    "default": ChromaSpec(),
    "tuned": ChromaSpec(tuning=-0.23),
    "another rate": ChromaSpec(sample_rate=16_000, n_fft=1024, hop_length=160),
}


def rival(wave: NDArray[np.float32], spec: ChromaSpec) -> NDArray[np.float32]:
    found: NDArray[np.float32] = librosa.feature.chroma_stft(
        y=wave, sr=spec.sample_rate, n_fft=spec.n_fft, hop_length=spec.hop_length, tuning=spec.tuning
    )
    return found


@pytest.mark.parametrize("setting", SPECS)
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")  # librosa, of the sound of 300 samples
def test_equals_librosa(sound: str, setting: str) -> None:
    # Worst over all: 0.0000011
    part, wave = Chroma(SPECS[setting]), SOUNDS[sound]
    want = rival(wave, part.spec)
    for got in (part(torch.from_numpy(wave)[None])[0].numpy(), part.fast(wave)):
        assert got.shape == want.shape == part.spec.shape(len(wave))
        assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize("n_samples", [1, 255, 256, 22_050])
def test_shape_is_known_before_the_sound_is_read(n_samples: int) -> None:
    part = Chroma(ChromaSpec())
    assert part.fast(tone(440.0, n_samples / RATE, rate=RATE)).shape == part.spec.shape(n_samples)
    assert part.spec.shape(n_samples) == (12, 1 + n_samples // 512)


def test_a_clip_does_not_depend_on_its_batch() -> None:
    part = Chroma(ChromaSpec())
    clips = torch.stack([torch.from_numpy(SOUNDS[name]) for name in ("noise", "tone", "silence", "click")])
    for row, wave in zip(part(clips), clips, strict=True):
        torch.testing.assert_close(row, part(wave[None])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("note", "hz"), [(0, 261.63), (9, 440.0), (9, 880.0), (11, 246.94)])
def test_a_note_lights_its_class_in_every_octave(note: int, hz: float) -> None:
    chroma = Chroma(ChromaSpec()).fast(tone(hz, 1.0, rate=RATE))
    assert chroma.mean(1).argmax() == note
    assert chroma.min() >= 0 and chroma.max() == 1


def test_it_can_be_exported() -> None:
    part = Chroma(ChromaSpec())
    wave = torch.from_numpy(np.stack([SOUNDS["tone"], SOUNDS["silence"]]))
    exported = torch.export.export(part, (wave,)).module()
    torch.testing.assert_close(exported(wave), part(wave), rtol=0, atol=1e-6)
