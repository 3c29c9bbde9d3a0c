"""The shared pieces: frames without sound weigh nothing, as if the clip had been cut where its sound ends."""

import pytest
import torch
from torch import nn

from instrunet.models.blocks import AttentivePooling, Branches, SqueezeExcite, mean_over_picture, silenced, sounding
from instrunet.models.views import VIEWS, Views

SHARE = torch.tensor([0.5, 1.0])


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_the_first_frame_always_sounds() -> None:
    assert sounding(torch.tensor([0.0, 0.1, 0.51, 1.0]), 10).sum(1).tolist() == [1, 1, 6, 10]


@pytest.mark.parametrize("shape", [(2, 3, 4, 10), (2, 3, 10)])
def test_means_and_weights_are_those_of_the_sounding_part(shape: tuple[int, ...]) -> None:
    x, excite = maps(*shape), SqueezeExcite(3, 2)
    torch.testing.assert_close(mean_over_picture(x, SHARE)[0], mean_over_picture(x[:1, ..., :5], None)[0])
    torch.testing.assert_close(mean_over_picture(x, SHARE)[1], mean_over_picture(x, None)[1])
    torch.testing.assert_close(excite(x, SHARE)[0, ..., :5], excite(x[:1, ..., :5])[0])
    assert silenced(x, SHARE)[0, ..., 5:].abs().max() == 0 and torch.equal(silenced(x, SHARE)[1], x[1])


@pytest.mark.parametrize("n_heads", [1, 2])
def test_attention_is_a_weighted_mean_and_deviation(n_heads: int) -> None:
    x, pool = maps(2, 4, 10), AttentivePooling(4, 3, n_heads)
    torch.testing.assert_close(pool(x, SHARE)[0], pool(x[:1, :, :5])[0])
    nn.init.zeros_(pool.attend[-1].weight)  # all frames alike
    mean, deviation = pool(x).chunk(2, 1)
    torch.testing.assert_close(mean, x.mean(2))
    torch.testing.assert_close(deviation, x.std(2, correction=0))


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_that_of_the_sounding_part(name: str) -> None:
    x = maps(2, 1, 6, 10)
    view = Views((name,), 1)
    end = 4 if name == "delta_time" else 5  # the slope at the last frame is towards the zeros behind it
    torch.testing.assert_close(view(x, SHARE)[0, ..., :end], view(x[:1, ..., :5])[0, ..., :end])
    assert view(x, SHARE)[0, ..., 5:].abs().max() == 0


@pytest.mark.parametrize("name", ["mean", "mean_std", "delta_time", "delta_band"])
def test_the_colour_of_a_microphone_is_not_seen(name: str) -> None:
    x, colour = maps(2, 1, 6, 10), maps(1, 1, 6, 1) * 3
    torch.testing.assert_close(Views((name,), 1)(x + colour), Views((name,), 1)(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(Views(("level",), 1)(x + colour), Views(("level",), 1)(x))


def test_branches_stand_side_by_side() -> None:
    branches = Branches(nn.Conv1d, 2, {3: 4, 5: 1})
    x = maps(2, 2, 9)
    assert branches(x).shape == (2, 5, 9)
    torch.testing.assert_close(branches(x)[:, 4:], branches.kernels[1](x))
