"""Rolls and crops: how far, filled with what, on real log-mels, and that a clip's are its own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from instrunet.augment.spectrogram import CropSpec, RollSpec, crop, draw, roll
from instrunet.errors import ConfigError
from instrunet.features import SHARE
from instrunet.features.hpss import Hpss, HpssSpec
from instrunet.features.logmel import LogMel, LogMelSpec

BANDS, FRAMES = 40, 60
FILL = {"logmel": -7.0, "hpss": -7.0}


def picture(n: int) -> Tensor:
    return torch.randn(n, BANDS, FRAMES, generator=torch.Generator().manual_seed(0))


def rolled(features: Tensor, spec: RollSpec, draws: Tensor | None = None, name: str = "logmel") -> Tensor:
    draws = torch.from_numpy(draw(spec, 0, 0, len(features))) if draws is None else draws
    return roll({name: features}, draws, spec, FILL)[name]


def cropped(features: Tensor, spec: CropSpec, draws: Tensor | None = None, name: str = "logmel") -> Tensor:
    draws = torch.from_numpy(draw(spec, 0, 0, len(features))) if draws is None else draws
    return crop({name: features}, draws, spec)[name]


def tone(hz: float, seconds: float = 3.0, rate: int = 22_050) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_a_roll_moves_bands_fills_and_does_not_wrap() -> None:
    features, spec = picture(3), RollSpec(p=1, share=0.1)
    up, stay, down = rolled(features, spec, torch.tensor([[0.0, 1.0], [0.0, 0.5], [0.0, 0.0]]))
    assert torch.equal(up[4:], features[0, :-4]) and (up[:4] == -7).all()  # 0.1 * 40
    assert torch.equal(stay, features[1])
    assert torch.equal(down[:-4], features[2, 4:]) and (down[-4:] == -7).all()


def test_rolls_reach_every_distance_alike_and_p_of_the_clips() -> None:
    ramp = torch.arange(1.0, BANDS + 1).view(1, BANDS, 1).expand(4000, BANDS, 2)
    moved = (BANDS / 2 - rolled(ramp, RollSpec(p=0.6, share=0.1))[:, BANDS // 2 - 1, 0]).int()
    assert sorted(set(moved.tolist())) == list(range(-4, 5))
    counts = np.bincount(moved.numpy() + 4) / 4000
    assert counts[4] == pytest.approx(0.4 + 0.6 / 8, abs=0.025)  # 3 standard errors: 0.024
    assert counts[[1, 2, 3, 5, 6, 7]] == pytest.approx(0.6 / 8, abs=0.0125)


def test_a_roll_of_a_log_mel_is_a_higher_sound() -> None:
    wave = torch.from_numpy(tone(440))[None]
    features = LogMel(LogMelSpec())(wave)
    up = rolled(features, RollSpec(p=1, share=0.05), torch.tensor([[0.0, 1.0]]))
    assert up.mean(2).argmax() - features.mean(2).argmax() == 6  # 0.05 * 128


def test_the_pictures_of_hpss_do_not_run_into_each_other() -> None:
    features = torch.from_numpy(Hpss(HpssSpec(n_mels=40)).fast(tone(440)))[None]
    up = rolled(features, RollSpec(p=1, share=0.1), torch.tensor([[0.0, 1.0]]), "hpss")
    for half in (slice(0, 40), slice(40, 80)):
        assert torch.equal(up[0, half][4:], features[0, half][:-4]) and (up[0, half][:4] == -7).all()
    draws = torch.tensor([[0.0, 0.3, 0.2, 0.1, 0.8]])
    both = cropped(features, CropSpec(p=1), draws, "hpss")
    alone = torch.cat(
        [cropped(features[:, :40], CropSpec(p=1), draws), cropped(features[:, 40:], CropSpec(p=1), draws)], 1
    )
    torch.testing.assert_close(both, alone)


def test_a_crop_stretches_the_part_it_says() -> None:
    ramp = torch.arange(FRAMES, dtype=torch.float32).expand(2, BANDS, FRAMES)
    spec = CropSpec(p=1, time_share=0.5, frequency_share=1)
    first, last = cropped(ramp, spec, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]))[:, 0]
    expected = torch.arange(FRAMES) / 2 - 0.25  # the middle of frame k of the new picture, in the old one
    torch.testing.assert_close(first, expected.clamp_min(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(last, (expected + 30).clamp_max(FRAMES - 1), atol=1e-4, rtol=0)
    bands = torch.arange(BANDS, dtype=torch.float32)[:, None].expand(1, BANDS, FRAMES)
    lower = cropped(bands, CropSpec(p=1, time_share=1, frequency_share=0.5), torch.tensor([[0.0] * 5]))[0, :, 0]
    torch.testing.assert_close(lower, (torch.arange(BANDS) / 2 - 0.25).clamp_min(0), atol=1e-4, rtol=0)


def test_a_crop_stays_inside_and_keeps_at_least_its_share() -> None:
    ramp = torch.arange(FRAMES, dtype=torch.float32).expand(2000, BANDS, FRAMES)
    out = cropped(ramp, CropSpec(p=1, time_share=0.6))[:, 0]
    kept = (out[:, 40] - out[:, 20]) / 20  # by how much a frame of the new picture moves on in the old
    assert kept.min() >= 0.6 - 1e-4 and kept.max() <= 1 + 1e-4 and kept.mean() == pytest.approx(0.8, abs=0.01)
    assert out.min() >= 0 and out.max() <= FRAMES - 1


def test_nothing_drawn_changes_nothing() -> None:
    features = picture(50)
    for spec in (RollSpec(p=0), RollSpec(p=1, share=0)):
        assert torch.equal(rolled(features, spec), features)
    assert torch.equal(cropped(features, CropSpec(p=0)), features)
    whole = CropSpec(p=1, time_share=1, frequency_share=1)
    torch.testing.assert_close(cropped(features, whole), features, atol=1e-4, rtol=0)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_a_clip_has_the_same_on_any_worker(world: int) -> None:
    features, r, c = picture(30), RollSpec(), CropSpec()
    of_roll, of_crop = torch.from_numpy(draw(r, 3, 2, 30)), torch.from_numpy(draw(c, 3, 2, 30))
    whole = cropped(rolled(features, r, of_roll), c, of_crop)
    for rank in range(world):
        mine = slice(rank, None, world)
        assert torch.equal(cropped(rolled(features[mine], r, of_roll[mine]), c, of_crop[mine]), whole[mine])


def test_draws_differ_by_epoch_seed_and_effect() -> None:
    tables = [
        draw(spec, seed, epoch, 9)[:, :2] for spec in (RollSpec(), CropSpec()) for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len({table.tobytes() for table in tables}) == 8
    np.testing.assert_array_equal(draw(RollSpec(), 1, 0, 9), tables[2])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (1, 1, 5)])
def test_small_pictures(shape: tuple[int, int, int]) -> None:
    features = torch.ones(shape)
    for out in (rolled(features, RollSpec(p=1)), cropped(features, CropSpec(p=1))):
        assert out.shape == shape and torch.isfinite(out).all()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="roll works on logmel, cqt, hpss; got summary: leave it out of front.features"
    ):
        roll({"logmel": picture(1), "summary": torch.ones(1, 392, 1)}, torch.ones(1, 2), RollSpec(), FILL)
    with pytest.raises(ConfigError, match="crop works on .* got chroma"):
        crop({"chroma": torch.ones(1, 12, 9)}, torch.ones(1, 5), CropSpec())


def test_of_windows_of_their_own_length_bands_alone_are_cropped() -> None:
    features = torch.arange(40.0)[None, :, None].expand(2, 40, 9)
    share = torch.tensor([1.0, 0.5])
    moved = crop({"logmel": features, SHARE: share}, torch.zeros(2, 5), CropSpec(p=1, time_share=1))
    assert torch.equal(moved[SHARE], share) and not torch.equal(moved["logmel"], features)
    assert (moved["logmel"].diff(dim=2).abs() < 1e-4).all()  # nothing moved in time
    with pytest.raises(ConfigError, match=r"windows of one length alone; .*train\.crop\.time_share=1"):
        crop({"logmel": features, SHARE: share}, torch.zeros(2, 5), CropSpec(p=1))
