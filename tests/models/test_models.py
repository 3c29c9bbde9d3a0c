"""The networks: their size, what they accept, their penalty, and the picture that they look at."""

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import FRONT, SMALL
from torch import nn

from instrunet.errors import ConfigError
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.models import ModelSpec, Network, n_parameters
from instrunet.models.picture import MAGMA, Picture, PictureSpec, colour_map
from instrunet.models.seed_cnn import Iteration11, Iteration11Spec, Task8, Task8Spec
from instrunet.training.optim import TrainSpec, build_optimizer

STATISTICS = Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (2.5,)}, n_windows=1)
GREY, COLOUR = PictureSpec(size=None, colour=False), PictureSpec(size=16, colour=True)
SMALL_ITERATION11 = Iteration11Spec(picture=GREY)


def network(spec: ModelSpec, front: FrontEnd = FRONT, n_labels: int = 11, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(spec, front, STATISTICS, n_labels)


def features(n: int, seed: int = 0, shape: tuple[int, int] = (16, 16)) -> dict[str, torch.Tensor]:
    return {"logmel": torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2.5 - 4}


def pictures(n: int, *shape: int) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(5))


def convolution(n_in: int, n_out: int, kernel: int) -> int:
    return n_in * n_out * kernel**2 + n_out


def dense(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def test_task8_has_the_parameters_that_the_seed_states() -> None:
    blocks = convolution(3, 16, 3) + convolution(16, 32, 3) + convolution(32, 64, 3)  # 448 + 4,640 + 18,496
    head = dense(64 * (128 // 8) ** 2, 128) + dense(128, 11)  # 2,097,280 + 1,419
    assert blocks + head == 2_122_283
    assert n_parameters(network(Task8Spec(), FrontEnd())) == 2_122_283


def test_iteration11_has_the_parameters_that_its_docstring_states() -> None:
    widths = (32, 64, 128, 256)
    blocks = convolution(3, 32, 5) + sum(convolution(i, o, 3) for i, o in zip(widths, widths[1:], strict=False))
    norms = 2 * sum(widths)  # a scale and a shift for each of 480 maps
    head = dense(256, 256) + dense(256, 11)
    assert (blocks, norms, head) == (389_952, 960, 68_619)
    body = network(Iteration11Spec(), FrontEnd()).body
    assert n_parameters(body) == blocks + norms + head == 459_531
    running = sum(b.numel() for name, b in body.named_buffers() if "running" in name)
    assert n_parameters(body) + running == 460_491  # Keras counts these too


@pytest.mark.parametrize("picture", [GREY, COLOUR, PictureSpec(size=16), PictureSpec(size=None, colour=True)])
@pytest.mark.parametrize("model", [Task8Spec, Iteration11Spec])
def test_one_channel_and_the_native_grid_are_accepted(
    model: type[Task8Spec | Iteration11Spec], picture: PictureSpec
) -> None:
    front = FRONT.model_copy(update={"window_s": 0.9})  # 16 bands x 29 frames: no square, no multiple of 8
    net = network(model(picture=picture), front).eval()
    assert net(features(3, shape=front.shapes()["logmel"])).shape == (3, 11)


@pytest.mark.parametrize("spec", [Task8Spec(), Iteration11Spec()])
def test_the_seeds_own_sizes_run(spec: ModelSpec) -> None:
    front = FrontEnd()
    net = network(spec, front).eval()
    seen: list[torch.Size] = []
    net.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    with torch.inference_mode():
        assert net(features(1, shape=front.shapes()["logmel"])).shape == (1, 11)
    assert seen == [(1, 3, spec.picture.size, spec.picture.size)]


@pytest.mark.parametrize("spec", [SMALL, SMALL_ITERATION11])
def test_gradients_reach_every_parameter(spec: ModelSpec) -> None:
    net = network(spec, n_labels=3)
    F.cross_entropy(net(features(16)), torch.arange(16) % 3).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("picture", [GREY, COLOUR])
@pytest.mark.parametrize("model", [Task8Spec, Iteration11Spec])
def test_a_clip_does_not_depend_on_its_batch(model: type[Task8Spec | Iteration11Spec], picture: PictureSpec) -> None:
    net = network(model(picture=picture)).eval()
    clips = features(5)["logmel"]
    alone = torch.cat([net({"logmel": clip[None]}) for clip in clips])
    torch.testing.assert_close(net({"logmel": clips}), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spec", [SMALL, SMALL_ITERATION11])
def test_dropout_is_off_in_service(spec: ModelSpec) -> None:
    net = network(spec).eval()
    assert torch.equal(net(features(2)), net(features(2)))
    net.train()
    assert not torch.equal(net(features(2)), net(features(2)))


def test_spatial_dropout_drops_whole_maps() -> None:
    body = Iteration11(Iteration11Spec(picture=GREY), (32, 32), 3)
    maps = body.blocks(pictures(4, 1, 32, 32)).flatten(2)  # [4, 256, 4]
    dropped = (maps == 0).all(2).float().mean()
    assert 0.4 < dropped < 0.7  # half of them, and those few that ReLU made zero everywhere


@pytest.mark.parametrize("spec", [SMALL, SMALL_ITERATION11])
def test_the_network_normalises(spec: ModelSpec) -> None:
    net, plain = network(spec).eval(), network(spec).eval()
    plain.mean_logmel.fill_(0.0)
    plain.std_logmel.fill_(1.0)
    raw = features(4)["logmel"]
    torch.testing.assert_close(net({"logmel": raw}), plain({"logmel": (raw + 4.0) / 2.5}))
    assert not torch.allclose(net({"logmel": raw}), plain({"logmel": raw}))


def test_frames_without_sound_do_not_count() -> None:
    net = network(SMALL_ITERATION11, FRONT.model_copy(update={"window_s": 2.0})).eval()
    shape = FRONT.model_copy(update={"window_s": 2.0}).shapes()["logmel"]
    whole = features(2, shape=shape)["logmel"]
    share = torch.tensor([0.5, 1.0])
    other = whole.clone()
    other[0, :, 48:] = 9.0  # the half is 32 of 63 frames; convolutions of 2 pixels at 1/8 reach a little further
    got, changed = (net({"logmel": x, "share": share}) for x in (whole, other))
    torch.testing.assert_close(got[0], changed[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[1], net({"logmel": whole[1:]})[0], rtol=0, atol=1e-5)
    assert (net({"logmel": other})[0] - net({"logmel": whole})[0]).abs().max() > 1e-3


def test_the_l2_penalty_is_that_of_the_loss() -> None:
    """Adam's weight decay of 2c adds the gradient of c * sum(w^2), and to dense weights only."""
    ours, rival = (network(SMALL_ITERATION11, n_labels=3).eval() for _ in range(2))
    inputs, targets = features(6), torch.arange(6) % 3
    optimizer = build_optimizer(ours, TrainSpec(learning_rate=0.01), l2_dense=0.001)
    F.cross_entropy(ours(inputs), targets).backward()
    optimizer.step()
    before = {name: value.detach().clone() for name, value in rival.named_parameters()}
    dense_weights = [module.weight for module in rival.modules() if isinstance(module, nn.Linear)]
    penalty = 0.001 * torch.stack([w.square().sum() for w in dense_weights]).sum()
    (F.cross_entropy(rival(inputs), targets) + penalty).backward()
    torch.optim.Adam(rival.parameters(), lr=0.01).step()
    for (name, got), want in zip(ours.named_parameters(), rival.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert not torch.equal(want, before[name]), name


def test_the_penalty_has_the_right_size() -> None:
    """By plain gradients too, because the first step of Adam hardly depends on a gradient's size."""
    net = network(SMALL_ITERATION11, n_labels=3)
    groups = build_optimizer(net, TrainSpec(), l2_dense=0.001).param_groups
    dense_weights = [module.weight for module in net.modules() if isinstance(module, nn.Linear)]
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    (0.001 * torch.stack([w.square().sum() for w in dense_weights]).sum()).backward()
    for weight in dense_weights:
        torch.testing.assert_close(weight.detach() * decays.pop(id(weight)), weight.grad)
    assert len(decays) == len(list(net.parameters())) - 2 and set(decays.values()) == {0}


@pytest.mark.parametrize(("model", "least"), [(Task8Spec, 8), (Iteration11Spec, 16)])
def test_a_picture_too_small_for_the_blocks_is_refused(model: type[Task8Spec | Iteration11Spec], least: int) -> None:
    features_spec = LogMelSpec(sample_rate=8000, n_fft=512, hop_length=800, n_mels=16, fmax_hz=4000.0)
    front = FrontEnd(features=(features_spec,), window_s=0.5)  # 16 bands x 6 frames
    spec = model(picture=GREY)
    with pytest.raises(ConfigError) as error:
        network(spec, front)
    assert str(error.value) == (
        f"{spec.name} needs a picture of at least {least} x {least}, got 16 x 6 (bands x frames); "
        f"set model.picture.size={least} or more, or lengthen front.window_s (adaptive: front.min_s)"
    )
    assert network(model(picture=PictureSpec(size=least)), front).eval()(features(1, shape=(16, 6))).shape == (1, 11)


def bilinear(image: np.ndarray, side: int) -> np.ndarray:
    """Between pixel centres, the edge repeated: written out in numpy as a rival."""
    for axis in (0, 1):
        n = image.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        image = image.take(low, axis) * (1 - part) + image.take(np.minimum(low + 1, n - 1), axis) * part
    return image


@pytest.mark.parametrize("side", [8, 16, 40])
def test_a_resized_picture_is_bilinear(side: int) -> None:
    raw = pictures(2, 16, 29)
    got = Picture(PictureSpec(size=side))(raw)
    want = F.interpolate(raw[:, None], size=(side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    for image, expected in zip(got[:, 0].numpy(), raw.numpy(), strict=True):
        np.testing.assert_allclose(image, bilinear(expected, side), atol=1e-5)


def test_without_a_size_the_grid_stays() -> None:
    raw = pictures(2, 16, 29)
    assert torch.equal(Picture(GREY)(raw), raw[:, None])


def stops() -> torch.Tensor:
    return torch.tensor(MAGMA).T.contiguous()


def test_colours_are_matplotlibs_magma() -> None:
    # worst of the 256 x 3 values: 0.019
    ramp = torch.linspace(0, 1, 256).reshape(1, 1, 16, 16)
    got = (colour_map(ramp, stops())[0].flatten(1).T.numpy() + 1) / 2
    want = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    assert np.abs(got - want).max() < 0.03


def test_colours_stay_in_range_and_are_the_stops_at_the_ends() -> None:
    picture = colour_map(pictures(3, 1, 16, 16), stops())
    assert picture.shape == (3, 3, 16, 16) and picture.min() >= -1 and picture.max() <= 1
    for clip, raw in zip(picture, pictures(3, 1, 16, 16)[:, 0], strict=True):
        for place, stop in ((raw.argmin(), MAGMA[0]), (raw.argmax(), MAGMA[-1])):
            torch.testing.assert_close(clip.flatten(1)[:, place], torch.tensor(stop) * 2 - 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 7.0), (12.0, 0.0), (0.2, -3.0)])
def test_colours_do_not_change_with_gain_and_offset(gain: float, offset: float) -> None:
    raw = pictures(2, 16, 16)
    picture = Picture(COLOUR)
    torch.testing.assert_close(picture(raw * gain + offset), picture(raw), rtol=0, atol=1e-4)


def test_a_constant_picture_has_one_colour_and_rounding_is_not_stretched() -> None:
    for wobble in (0.0, 1e-6):
        picture = colour_map(3.0 + wobble * pictures(1, 1, 8, 8), stops())
        assert torch.isfinite(picture).all() and picture.flatten(2).std(2).max() < 1e-4


def test_a_picture_is_deterministic() -> None:
    raw = pictures(2, 16, 16)
    assert torch.equal(Picture(COLOUR)(raw), Picture(COLOUR)(raw.clone()))


def test_dropout_rates_are_the_specs() -> None:
    task8 = Task8(Task8Spec(dropout=0.3), (8, 8), 2)
    assert [m.p for m in task8.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
