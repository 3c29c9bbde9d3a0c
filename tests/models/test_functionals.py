"""The numbers against numpy and scipy, one clip at a time."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dct

from instrunet.models.functionals import Functionals, FunctionalsSpec

N_BANDS, N_CEPSTRA = 33, 16
BODY = Functionals(FunctionalsSpec(), (N_BANDS, 40), 3).eval()


def clip(n_frames: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((N_BANDS, n_frames)).astype(np.float32).cumsum(1) / 3


def numbers(picture: NDArray[np.float32], share: float | None = None) -> NDArray[np.float32]:
    shares = None if share is None else torch.tensor([share])
    return BODY.numbers(torch.from_numpy(picture)[None], shares)[0].numpy()


def by_numpy(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = picture.astype(np.float64)
    mean = wide.mean(1)
    cepstra = dct(wide - mean[:, None], axis=0, norm="ortho")[:N_CEPSTRA]
    frames = np.arange(wide.shape[1])
    turns = np.exp(2j * np.pi / 256 * frames[:, None] * np.arange(1, 41))
    size = np.abs(cepstra @ turns) / np.sqrt(len(frames))
    rates = np.log(np.sqrt(size**2 + 1e-6).reshape(N_CEPSTRA, 10, 4).mean(2)).reshape(-1)
    pairs = np.corrcoef(cepstra)[np.triu_indices(N_CEPSTRA, 1)]
    paces = [np.abs(np.diff(rows)).mean(1) for rows in (wide, cepstra)]
    return np.concatenate([mean - mean.mean(), wide.std(1), *paces, rates, pairs])


@pytest.mark.parametrize("n_frames", [40, 251, 9])
def test_numbers_are_those_of_numpy(n_frames: int) -> None:
    np.testing.assert_allclose(numbers(clip(n_frames)), by_numpy(clip(n_frames)), rtol=2e-4, atol=2e-5)


def test_without_means_the_colour_of_a_microphone_changes_nothing() -> None:
    body = Functionals(FunctionalsSpec(means=False), (N_BANDS, 40), 3).eval()
    curve = np.linspace(-3, 3, N_BANDS, dtype=np.float32)[:, None] ** 2
    plain, coloured = (body.numbers(torch.from_numpy(clip(40) + add)[None], None) for add in (0, curve))
    np.testing.assert_allclose(plain, coloured, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(plain[0], numbers(clip(40))[N_BANDS:])


def test_frames_without_sound_are_not_counted() -> None:
    filled = np.concatenate([clip(40), np.full((N_BANDS, 24), 9.0, np.float32)], 1)
    np.testing.assert_allclose(numbers(filled, 40 / 64), by_numpy(clip(40)), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("share", [1 / 40, None])
def test_silence_and_a_single_frame_are_numbers(share: float | None) -> None:
    """What never moves has no company: 0 over 0 is 0 here."""
    found = numbers(np.zeros((N_BANDS, 40), np.float32), share)
    assert np.isfinite(found).all() and np.allclose(found[-(N_CEPSTRA * (N_CEPSTRA - 1) // 2) :], 0)


def test_a_movement_is_found_at_its_rate() -> None:
    """All bands together at 10 turns in 256 frames: the first cepstrum, the third number of four rates each."""
    moving = np.tile(np.sin(2 * np.pi * 10 / 256 * np.arange(256)), (N_BANDS, 1)).astype(np.float32)
    start = 3 * N_BANDS + N_CEPSTRA
    rates = numbers(moving)[start : start + N_CEPSTRA * 10].reshape(N_CEPSTRA, 10)
    assert np.unravel_index(rates.argmax(), rates.shape) == (0, 2)
