"""SpecAugment: how much is blanked, with what, and that a clip's masks are its own."""

import numpy as np
import pytest
import torch

from instrunet.augment.specaugment import SpecAugmentSpec, draw, mask

SPEC = SpecAugmentSpec(time_masks=2, time_share=0.15, frequency_masks=1, frequency_share=0.25)
N, BANDS, FRAMES = 400, 32, 60


def masked(spec: SpecAugmentSpec, n: int = N, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """[n, F, L], true where a mask lies."""
    out = mask(torch.ones(n, BANDS, FRAMES), torch.from_numpy(draw(spec, seed, epoch, n)), spec, fill=0.0)
    return out.numpy() == 0


def runs(line: np.ndarray) -> int:
    return int((np.diff(np.concatenate([[0], line.astype(int)])) == 1).sum())


def test_the_masked_share_is_within_its_bounds() -> None:
    where = masked(SPEC)
    bands, frames = where.all(2).sum(1), where.all(1).sum(1)
    assert (bands.min(), bands.max()) == (0, 8)  # 0.25 * 32
    assert bands.mean() == pytest.approx(4, abs=0.4)  # 3 standard errors: 0.39
    assert frames.max() <= 2 * 9  # 0.15 * 60
    assert 0.85 * 9 < frames.mean() < 9.4  # 2 masks of 4.5 on average, less where they meet


def test_masks_are_whole_bands_and_whole_stretches() -> None:
    for where in masked(SPEC, n=50):
        bands, frames = where.all(1), where.all(0)
        np.testing.assert_array_equal(where, bands[:, None] | frames[None, :])
        assert runs(bands) <= 1 and runs(frames) <= 2


def test_masks_reach_every_place_and_both_edges_alike() -> None:
    spec = SpecAugmentSpec(time_masks=1, time_share=0.15, frequency_masks=0)
    often = masked(spec, n=3000).all(1).mean(0)  # [L]
    assert often.min() > 0
    assert often[0] == pytest.approx(often[-1], abs=0.02)
    assert often[20:40].mean() == pytest.approx(4.5 / FRAMES, rel=0.2)


def test_masks_hold_the_fill_and_the_rest_is_untouched() -> None:
    features = torch.randn(20, BANDS, FRAMES, generator=torch.Generator().manual_seed(0))
    out = mask(features, torch.from_numpy(draw(SPEC, 0, 0, 20)), SPEC, fill=-4.5)
    where = torch.from_numpy(masked(SPEC, n=20))
    assert where.any() and (out[where] == -4.5).all() and torch.equal(out[~where], features[~where])


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_a_clip_has_the_same_masks_on_any_worker(world: int) -> None:
    draws, whole = torch.from_numpy(draw(SPEC, 3, 2, 40)), masked(SPEC, n=40, seed=3, epoch=2)
    for rank in range(world):
        mine = mask(torch.ones(40, BANDS, FRAMES)[rank::world], draws[rank::world], SPEC, fill=0.0)
        np.testing.assert_array_equal(mine.numpy() == 0, whole[rank::world])


def test_another_epoch_or_seed_has_other_masks() -> None:
    first = masked(SPEC)
    for other in (masked(SPEC, epoch=1), masked(SPEC, seed=1)):
        differ = (first != other).any((1, 2)).mean()
        assert differ > 0.95
    np.testing.assert_array_equal(first, masked(SPEC))


def test_clips_differ_from_one_another() -> None:
    assert len({where.tobytes() for where in masked(SPEC)}) > 0.9 * N


@pytest.mark.parametrize(
    "nothing",
    [
        SpecAugmentSpec(time_masks=0, frequency_masks=0),
        SpecAugmentSpec(time_share=0, frequency_share=0),
    ],
)
def test_no_masks_change_nothing(nothing: SpecAugmentSpec) -> None:
    features = torch.randn(7, BANDS, FRAMES, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mask(features, torch.from_numpy(draw(nothing, 0, 0, 7)), nothing, fill=9.0), features)


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_one_axis_alone(axis: str) -> None:
    other = "frequency" if axis == "time" else "time"
    where = masked(SpecAugmentSpec.model_validate({f"{other}_masks": 0, f"{axis}_masks": 2}))
    across = 1 if axis == "time" else 2
    assert where.any() and (where.any(across) == where.all(across)).all()


def test_a_full_share_may_blank_all_but_stays_inside() -> None:
    spec = SpecAugmentSpec(time_masks=1, time_share=1.0, frequency_masks=0)
    frames = masked(spec).all(1).sum(1)
    assert (frames.min(), frames.max()) == (0, FRAMES) and frames.mean() == pytest.approx(FRAMES / 2, rel=0.1)
