"""Beginning from another model, holding stages fast, learning from its answers, and hiding the domain."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from test_bodies import NATIVE, SPECS, inputs, network, settled

from instrunet.errors import ConfigError, DataError
from instrunet.models.adversarial import DomainAdversarial
from instrunet.models.backbone import BackboneSpec
from instrunet.models.distill import distillation, soft_targets
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec
from instrunet.models.transfer import TransferSpec, hold, load_matching, rate_scales, read_weights, stages

PLAIN = Iteration11Spec(picture=NATIVE, dropout=0.0)


def test_a_network_with_other_labels_takes_all_but_the_head() -> None:
    old, new = settled(PLAIN), network(PLAIN, n_labels=5).eval()
    torch.manual_seed(1)
    fresh = new.body.head[-1].weight.clone()
    fitted = load_matching(new, old.state_dict())
    assert fitted.fresh == fitted.unused == ("body.head.0.weight", "body.head.0.bias")
    features = inputs(PLAIN, 3)
    assert torch.equal(new.embed(features), old.embed(features)) and torch.equal(new.body.head[-1].weight, fresh)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        load_matching(network(PLAIN), {"conv.weight": torch.zeros(4, 4), "conv.bias": torch.zeros(4)})
    assert str(error.value) == (
        "none of the 2 tensors fits this network: expected names and shapes such as "
        "body.blocks.0.weight (32, 1, 5, 5), got conv.weight (4, 4); set model to that of the weights"
    )


def test_a_body_of_the_same_plan_lends_what_it_shares() -> None:
    fitted = load_matching(network(MultiscaleSpec(picture=NATIVE)), settled(PLAIN).state_dict())
    assert "body.dense.0.weight" in fitted.copied and "body.blocks.0.weight" in fitted.unused


def test_timms_own_file_fits_and_colours_are_summed(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    theirs = timm.create_model("mobilenetv4_conv_small", pretrained=False).eval()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    net = network(BackboneSpec(timm_name="mobilenetv4_conv_small")).eval()
    fitted = load_matching(net, read_weights(tmp_path / "model.safetensors"))
    assert fitted.fresh == ("body.head.1.weight", "body.head.1.bias")
    assert set(fitted.unused) == {"classifier.weight", "classifier.bias"}
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        want = theirs.forward_head(theirs.forward_features(grey.expand(-1, 3, -1, -1)), pre_logits=True)
        torch.testing.assert_close(net.body.embed(grey), want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("model.pt", ConfigError, "expected weights as a .safetensors file, got model.pt: others are pickles"),
        ("none.safetensors", DataError, "none.safetensors cannot be read"),
        ("bad.safetensors", DataError, "bad.safetensors is not a safetensors file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, error: type[Exception], said: str) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    (tmp_path / "bad.safetensors").write_bytes(b"not that")
    with pytest.raises(error, match=said):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", SPECS)
def test_stages_hold_each_parameter_once_and_end_in_the_head(name: str) -> None:
    body = network(SPECS[name]).body
    found = [id(p) for stage in stages(body) for module in stage for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in body.parameters())
    assert stages(body)[-1][-1] is body.head
    assert all(any(p.ndim > 1 for m in stage for p in m.parameters()) for stage in stages(body))


def test_frozen_stages_do_not_move() -> None:
    net = network(PLAIN)
    held = hold(net.body, TransferSpec(freeze=2))
    net.train()
    held.begin(0)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(net(inputs(PLAIN, 6)), torch.arange(6) % 3).backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {n.split(".")[2] for n in moved if "blocks" in n} == {"8", "9", "12", "13"}  # of 16 layers, 4 a block


def test_freezing_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 0 to 5 stages to freeze, or body for all but the head; got 6"):
        hold(network(PLAIN).body, TransferSpec(freeze=6))


def test_deeper_stages_learn_slower() -> None:
    body = network(PLAIN).body
    of = {name: rate_scales(body, 0.5, body_rate=0.1)[p] for name, p in body.named_parameters()}
    assert of["head.0.weight"] == 1 and of["dense.0.bias"] == pytest.approx(0.1)
    assert of["blocks.12.weight"] == of["blocks.13.weight"] == pytest.approx(0.05)
    assert of["blocks.0.weight"] == pytest.approx(0.1 * 0.5**4)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_student_that_follows_its_teachers_agrees_with_their_mean(kind: str) -> None:
    teachers = [network(PLAIN).eval(), settled(PLAIN)]
    targets = soft_targets(teachers, inputs(PLAIN, 4), kind, 2.0)
    logits = torch.zeros(4, 3, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(distillation(logits, targets, kind, 2.0), logits)
        logits = (logits - 2 * gradient).detach().requires_grad_()
    said = (logits / 2).softmax(1) if kind == "single" else (logits / 2).sigmoid()
    torch.testing.assert_close(said, targets, rtol=0, atol=1e-3)
    assert not targets.requires_grad


def test_the_domain_head_learns_and_the_network_unlearns() -> None:
    """The head's gradient is as usual; the embedding's is turned around and scaled."""
    domains, features = torch.arange(8) % 2, inputs(PLAIN, 8)
    gradients = {}
    for strength in (0.0, 0.3, -1.0):  # at -1 nothing is turned: the rival
        net = DomainAdversarial(network(PLAIN), 2, strength)
        torch.manual_seed(5)
        for layer in net.domain:
            getattr(layer, "reset_parameters", lambda: None)()
        labels, found = net(features)
        assert labels.shape == (8, 3) and found.shape == (8, 2)
        F.cross_entropy(found, domains).backward()
        gradients[strength] = (net.domain[0].weight.grad, net.network.body.blocks[0].weight.grad)
    for strength in (0.0, 0.3):
        torch.testing.assert_close(gradients[strength][0], gradients[-1.0][0])
        torch.testing.assert_close(gradients[strength][1], -strength * gradients[-1.0][1], rtol=1e-4, atol=1e-7)
    assert gradients[-1.0][1].abs().sum() > 0


def test_labels_are_learnt_as_ever_beside_the_domains() -> None:
    net = DomainAdversarial(network(PLAIN), 4)
    features = inputs(PLAIN, 6)
    assert torch.equal(net(features)[0], net.network(features))
    F.cross_entropy(net(features)[0], torch.arange(6) % 3).backward()
    wrapped = net.network.body.blocks[0].weight.grad.clone()
    net.zero_grad()
    F.cross_entropy(net.network(features), torch.arange(6) % 3).backward()
    torch.testing.assert_close(wrapped, net.network.body.blocks[0].weight.grad)
