"""Every body of the table: shapes, gradients, silence, refusals, half precision; the arithmetic of the seeds' own."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from making import RATE
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.features.summary import SummarySpec, names
from instrunet.models import MODELS, NUMBER_MODELS, SHARE, ModelSpec, Network, n_parameters, without_weights
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.backbone import BackboneSpec
from instrunet.models.ensemble import EnsembleSpec
from instrunet.models.functionals import FunctionalsSpec
from instrunet.models.picture import PictureSpec
from instrunet.models.resnet import HarmonicsResnetSpec
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec
from instrunet.models.soundmind import Dense40Spec, SoundMindSpec, SoundMindTimeSpec

LOGMEL = LogMelSpec(sample_rate=RATE, n_fft=512, hop_length=256, n_mels=33, fmax_hz=4000.0)
FRONT = FrontEnd(features=(LOGMEL,), window_s=1.12)  # 33 bands x 36 frames: no square, no multiples
NUMBERS = FrontEnd(features=(SummarySpec(),))
NATIVE = PictureSpec()
# The emotion recipe's kind: strided blocks, a GRU, several heads, all views
RICH = AttentiveSpec(
    views=("plain", "level", "mean", "mean_std", "delta_time", "delta_band", "position"),
    **{"stem": 8, "widths": (8, 12, 16), "pools": ((2, 1), (2, 2), (1, 1)), "shrink": "stride", "residual": True},
    **{"block_dropout": 0.1, "flatten": True, "projection": 16, "recurrent": True, "heads": 4, "embedding": 12},
)
WIDE = RICH.model_copy(update={"pools": ((2, 8), (2, 1), (1, 1))})
SPECS: dict[str, ModelSpec] = {
    "task8": Task8Spec(picture=NATIVE),
    "task8 se": Task8Spec(picture=NATIVE, se=True),
    "iteration11 se": Iteration11Spec(picture=NATIVE, se=True),
    "multiscale": MultiscaleSpec(picture=NATIVE),
    "multiscale se colour": MultiscaleSpec(picture=PictureSpec(size=24, colour=True), se=True),
    "harmonics_resnet": HarmonicsResnetSpec(),
    "harmonics_resnet se": HarmonicsResnetSpec(se=True),
    "soundmind": SoundMindSpec(),
    "soundmind_time": SoundMindTimeSpec(),
    "dense40": Dense40Spec(),
    "attentive": AttentiveSpec(widths=(4, 8, 8, 16)),
    "attentive rich": RICH,
    "attentive dilated": RICH.model_copy(
        update={"stem_kernel": (7, 5), "stem_stride": (3, 2), "dilations": (1, 2), "recurrent": False}
    ),
    "backbone": BackboneSpec(timm_name="mobilenetv4_conv_small"),
    "functionals": FunctionalsSpec(),
    "functionals hidden": FunctionalsSpec(
        picture=PictureSpec(size=24, colour=True), means=False, cepstra=99, rates=6, hidden=5
    ),
    "ensemble": EnsembleSpec(members=(AttentiveSpec(widths=(4, 8, 8, 16)), Iteration11Spec(picture=NATIVE, se=True))),
}
PICTURES = [name for name, spec in SPECS.items() if spec.name not in NUMBER_MODELS]
each = pytest.mark.parametrize("name", SPECS)
each_picture = pytest.mark.parametrize("name", PICTURES)


def network(spec: ModelSpec, n_labels: int = 3) -> Network:
    torch.manual_seed(0)
    front = NUMBERS if spec.name in NUMBER_MODELS else FRONT
    n = {feature: 1 if feature != "summary" else 392 for feature in front.shapes()}
    statistics = Statistics(
        mean={k: (-4.0,) * v for k, v in n.items()}, std={k: (2.5,) * v for k, v in n.items()}, n_windows=1
    )
    return Network(spec, front, statistics, n_labels)


def inputs(spec: ModelSpec, n: int, seed: int = 0) -> dict[str, Tensor]:
    front = NUMBERS if spec.name in NUMBER_MODELS else FRONT
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(n, *shape, generator=generator) * 2.5 - 4 for k, shape in front.shapes().items()}


def settled(spec: ModelSpec) -> Network:
    """In evaluation, with running means and deviations as after training: those of a batch."""
    net = network(spec).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(inputs(spec, 8, seed=1))
    return net.eval()


def loss_of(logits: Tensor) -> Tensor:
    """Of an ensemble each member's."""
    members = 1 if logits.ndim == 2 else logits.shape[1]
    return F.cross_entropy(logits.float().flatten(0, -2), (torch.arange(len(logits)) % 3).repeat_interleave(members))


def test_every_model_of_the_table_is_tested_here() -> None:
    elsewhere = {"iteration11", "combined"}  # tests/models/test_models.py, tests/ensembles
    assert {spec.name for spec in SPECS.values()} | elsewhere == set(MODELS)


@each
def test_logits_are_the_head_of_an_embedding(name: str) -> None:
    net, features = settled(SPECS[name]), inputs(SPECS[name], 3)
    with torch.no_grad():
        embedding = net.embed(features)
        assert embedding.shape == (3, net.body.width)
        assert torch.equal(net.body.head(embedding), net(features))
    assert net(features).shape == (3, 3) and isinstance(list(net.body.head.modules())[-1], nn.Linear)


@each
def test_gradients_reach_every_parameter(name: str) -> None:
    net = network(SPECS[name])
    for seed in range(2):  # dropout may close a path once
        loss_of(net(inputs(SPECS[name], 12, seed))).backward()
    for parameter, value in net.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, parameter


@each
def test_a_clip_does_not_depend_on_its_batch(name: str) -> None:
    net, features = settled(SPECS[name]), inputs(SPECS[name], 4)
    with torch.no_grad():
        together = net(features)
        alone = torch.cat([net({k: v[row : row + 1] for k, v in features.items()}) for row in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together - together.mean(0)).abs().max() > 1e-4  # and they are told apart


@each_picture
def test_what_stands_in_frames_without_sound_changes_nothing(name: str) -> None:
    net, features = settled(SPECS[name]), inputs(SPECS[name], 2)
    share = torch.tensor([0.5, 1.0])
    other = {k: v.clone() for k, v in features.items()}
    other["logmel"][0, :, 18:] = 9.0  # half of 36 frames
    with torch.no_grad():
        got, changed = net(features | {SHARE: share}), net(other | {SHARE: share})
        assert torch.equal(got, changed)
        torch.testing.assert_close(got[1], net(features)[1], rtol=1e-4, atol=1e-5)
        assert (net(other)[0] - net(features)[0]).abs().max() > 1e-5


@each
def test_half_precision_runs_forward_and_back(name: str) -> None:
    net, features = network(SPECS[name]), inputs(SPECS[name], 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(features)
    loss_of(logits).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    with torch.no_grad():
        whole = net(features)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(features)
    assert (whole - half.float()).abs().max() < 0.1 * max(1.0, float(whole.abs().max()))


@pytest.mark.parametrize(
    ("spec", "least", "fix"),
    [
        (MultiscaleSpec(picture=NATIVE), "multiscale needs a picture of at least 16 x 16", 16),
        (HarmonicsResnetSpec(), "harmonics_resnet needs a picture of at least 32 x 32", 32),
        (SoundMindTimeSpec(), "soundmind_time needs a picture of at least 1 x 8", 8),
        (AttentiveSpec(), "attentive needs a picture of at least 16 x 16", 16),
        (
            RICH.model_copy(update={"pools": ((2, 8), (2, 1), (1, 1))}),
            "attentive needs a picture of at least 8 x 16",
            16,
        ),
        (BackboneSpec(), "backbone mobilenetv3_large_100 needs a picture of at least 32 x 32", 32),
    ],
)
def test_a_picture_that_is_too_small_is_refused(spec: ModelSpec, least: str, fix: int) -> None:
    logmel = LOGMEL.model_copy(update={"hop_length": 800, "n_mels": 16})
    front = FrontEnd(features=(logmel,), window_s=0.5)  # 16 bands x 6 frames
    with pytest.raises(ConfigError) as error:
        without_weights(spec, front, 2)
    assert str(error.value) == (
        f"{least}, got 16 x 6 (bands x frames); set model.picture.size={fix} or more, or lengthen "
        "front.window_s (adaptive: front.min_s)"
    )


def test_an_experiment_that_cannot_be_built_is_refused_when_it_is_read() -> None:
    small = LOGMEL.model_copy(update={"hop_length": 800})
    with pytest.raises(ConfigError, match="attentive needs a picture of at least 16 x 16, got 33 x 12"):
        Experiment(model=AttentiveSpec(), front=FrontEnd(features=(small,), window_s=1.12))
    assert Experiment(model=AttentiveSpec(), front=FRONT).model == AttentiveSpec()


def test_numbers_that_are_not_the_392_are_refused() -> None:
    with pytest.raises(ConfigError, match="soundmind reads the 392 numbers of summary, got 40; set front.features"):
        MODELS["soundmind"](SoundMindSpec(), (40, 1), 2)


@pytest.mark.parametrize(("heads", "projection"), [(3, 16), (5, 0)])
def test_heads_that_do_not_share_the_maps_are_refused(heads: int, projection: int) -> None:
    spec = AttentiveSpec(widths=(8, 8, 8, 8), heads=heads, projection=projection)
    with pytest.raises(ConfigError, match=f"no multiple of twice model.heads={heads}; set model.heads=1"):
        without_weights(spec, FRONT, 2)


def test_a_pool_for_each_block_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="model: pools needs 2 pairs, one for each of widths; got 4"):
        _Holder.parse({"model": {"name": "attentive", "widths": [8, 8]}}, "file")


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stem_kernel.0: a kernel needs an odd size, .*; got 4"):
        _Holder.parse({"model": {"name": "attentive", "stem_kernel": [4, 5]}}, "file")


class _Holder(Spec):
    model: ModelSpec


def dense(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def lstm(n_in: int, n_each: int) -> int:
    """Both directions, four gates; torch has two biases where Keras has one."""
    return 2 * 4 * n_each * (n_in + n_each + 2)


def test_soundmind_has_the_layers_that_the_seed_states() -> None:
    def stage(n_in: int, n_each: int, kernels: tuple[int, ...]) -> int:
        n_out = n_each * len(kernels)
        excite = dense(n_out, n_out // 16) + dense(n_out // 16, n_out)
        return sum(n_in * n_each * kernel + n_each for kernel in kernels) + excite

    stages = stage(1, 32, (3, 5, 7)) + stage(96, 64, (3, 5)) + stage(128, 128, (3, 5))
    ends = dense(128, 256) + 2 * 256 + dense(256, 128) + 2 * 128 + dense(128, 8)
    assert (stages, lstm(256, 128), lstm(256, 64), ends) == (193_086, 395_264, 164_864, 67_720)
    net = network(SoundMindSpec(), n_labels=8)
    assert n_parameters(net) == stages + lstm(256, 128) + lstm(256, 64) + ends == 820_934
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25, 0.3, 0.3, 0.4, 0.4, 0.3]


def test_the_same_plan_over_time_reads_bands_as_maps() -> None:
    over_list, over_time = network(SoundMindSpec()), network(SoundMindTimeSpec())
    wider = (33 - 1) * 32 * (3 + 5 + 7)  # 33 bands instead of one list
    attention = dense(128, 64) + dense(64, 1) + 128 * 256  # its mean and deviation: twice the input of the dense part
    assert n_parameters(over_time) == n_parameters(over_list) + wider + attention


def test_harmonics_resnet_has_the_layers_that_the_seed_states() -> None:
    def stage(n_in: int, n_out: int) -> int:
        norm = 2 * n_out
        first = 9 * n_in * n_out + norm + 9 * n_out**2 + norm + n_in * n_out + norm
        return first + 2 * (9 * n_out**2 + norm)

    stem = 49 * 64 + 64 + 2 * 64
    stages = stage(64, 128) + stage(128, 256) + stage(256, 512)
    head = dense(512, 256) + dense(256, 128) + dense(128, 3)
    assert (stem, head) == (3_328, 164_611)
    assert n_parameters(network(HarmonicsResnetSpec(), n_labels=3)) == stem + stages + head


def test_multiscale_keeps_the_maps_of_iteration11() -> None:
    widths = (1, 32, 64, 128, 256)
    pairs = list(zip(widths, widths[1:], strict=False))
    kernels = 9 / 2 + 25 / 4 + 49 / 4
    blocks = sum(int(i * o * kernels) + o + 2 * o for i, o in pairs)
    squeezed = sum(dense(o, max(8, o // 8)) + dense(max(8, o // 8), o) for _, o in pairs)
    head = dense(256, 256) + dense(256, 3)
    assert n_parameters(network(MultiscaleSpec(picture=NATIVE))) == blocks + head
    assert n_parameters(network(MultiscaleSpec(picture=NATIVE, se=True))) == blocks + head + squeezed


def test_dense40_reads_the_means_of_the_mfcc_and_nothing_else() -> None:
    net, numbers = settled(Dense40Spec()), inputs(Dense40Spec(), 1)["summary"]
    with torch.no_grad():  # one clip, and 392 of which one number each is another
        logits = net({"summary": torch.cat([numbers, numbers + 5 * torch.eye(392)[:, :, None]])})
    moved = (logits[1:] - logits[0]).abs().amax(1) > 1e-4
    assert [name for name, has in zip(names(), moved.tolist(), strict=True) if has] == [
        f"mfcc_{k:02d}_mean" for k in range(40)
    ]


@pytest.mark.parametrize("timm_name", ["mobilenetv3_large_100", "efficientnet_b0", "convnext_atto"])
def test_image_networks_run_on_our_grid(timm_name: str) -> None:
    timm = pytest.importorskip("timm")
    net = MODELS["backbone"](BackboneSpec(timm_name=timm_name), (128, 130), 3).eval()
    picture = torch.randn(2, 1, 128, 130)
    with torch.inference_mode():
        assert net(picture).shape == (2, 3)
        theirs = net.net(picture)  # timm's own pooling, where all frames sound
        torch.testing.assert_close(net.embed(picture), theirs, rtol=1e-3, atol=1e-4)
    assert net.width == theirs.shape[1] and timm.is_model(timm_name)


@pytest.mark.parametrize(
    ("timm_name", "said"),
    [
        ("efficientnet_bo", r"timm .* has no network 'efficientnet_bo'; did you mean efficientnet_b"),
        ("hf-hub:timm/resnet18", r"has no network 'hf-hub:timm/resnet18'; did you mean "),
        ("vit_tiny_patch16_224", r"needs a convolutional network, whose last layer gives maps; vit_tiny_patch16_224 "),
    ],
)
def test_other_backbones_are_refused(timm_name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MODELS["backbone"](BackboneSpec(timm_name=timm_name), (128, 130), 3)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'instrunet\[backbone\]'"):
        network(BackboneSpec())


def test_the_table_is_read_without_timm() -> None:
    code = "import sys, instrunet.models, instrunet.experiment; print({'timm', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
