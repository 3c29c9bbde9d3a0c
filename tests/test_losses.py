"""Losses and class weights, held to torch's, torchvision's, scikit-learn's and the papers' own formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from instrunet.errors import ConfigError
from instrunet.losses import (
    LOSSES,
    BinarySpec,
    CrossEntropySpec,
    FocalSpec,
    build_loss,
    class_weights,
)
from instrunet.training.optim import TrainSpec

WEIGHTS = torch.tensor([1.0, 2.0, 0.5]).double()
EACH_WEIGHT = pytest.mark.parametrize("weights", [None, WEIGHTS])


def some(kind: str = "single", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and whole targets [20, 3] in double precision; each class is there."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(3), rng.integers(0, 3, 17)])
    whole = np.eye(3)[y] if kind == "single" else rng.integers(0, 2, (20, 3)).astype(float)
    return torch.tensor(3 * rng.normal(size=(20, 3))), torch.tensor(whole)


def soft() -> Tensor:
    return torch.tensor(np.random.default_rng(3).dirichlet(np.ones(3), size=20))


@EACH_WEIGHT
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_for_whole_targets(weights: Tensor | None, smoothing: float) -> None:
    logits, targets = some()
    want = F.cross_entropy(logits, targets.argmax(1), weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(
        build_loss(CrossEntropySpec(smoothing=smoothing), "single", weights)(logits, targets), want
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_for_shares(smoothing: float) -> None:
    logits, _ = some()
    want = F.cross_entropy(logits, soft(), label_smoothing=smoothing)
    torch.testing.assert_close(build_loss(CrossEntropySpec(smoothing=smoothing), "single")(logits, soft()), want)


@EACH_WEIGHT
def test_the_plain_loss_of_one_label_is_scikit_learns(weights: Tensor | None) -> None:
    logits, targets = some()
    y = targets.argmax(1).numpy()
    of_rows = None if weights is None else weights.numpy()[y]
    want = log_loss(y, logits.softmax(1).numpy(), sample_weight=of_rows)
    assert float(build_loss(None, "single", weights)(logits, targets)) == pytest.approx(want, rel=1e-6)


@EACH_WEIGHT
def test_the_plain_loss_of_many_labels_is_the_mean_over_labels(weights: Tensor | None) -> None:
    logits, targets = some("multi", 1)
    each = [log_loss(targets[:, k], logits[:, k].sigmoid().numpy(), labels=[0, 1]) for k in range(3)]
    want = np.mean(np.array(each) * (1.0 if weights is None else weights.numpy()))
    assert float(build_loss(None, "multi", weights)(logits, targets)) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("shares", [False, True])
def test_focal_of_many_labels_is_torchvisions(gamma: float, alpha: float | None, shares: bool) -> None:
    torchvision = pytest.importorskip("torchvision")
    logits, targets = some("multi")
    targets = soft() if shares else targets
    want = torchvision.ops.sigmoid_focal_loss(logits, targets, -1 if alpha is None else alpha, gamma, "mean")
    found = build_loss(FocalSpec(gamma=gamma, alpha=alpha), "multi")(logits, targets)
    torch.testing.assert_close(found, want)


@EACH_WEIGHT
def test_focal_of_one_label_is_the_papers(weights: Tensor | None) -> None:
    """FL = -(1 - p_t)^gamma * log(p_t), each row weighed by its class."""
    logits, targets = some()
    p = (logits.softmax(1) * targets).sum(1)
    of_rows = torch.ones(20).double() if weights is None else weights[targets.argmax(1)]
    want = (of_rows * -((1 - p) ** 2) * p.log()).sum() / of_rows.sum()
    torch.testing.assert_close(build_loss(FocalSpec(gamma=2), "single", weights)(logits, targets), want)
    torch.testing.assert_close(build_loss(FocalSpec(alpha=0.25), "single", weights)(logits, targets), want / 4)


@pytest.mark.parametrize(("kind", "plain"), [("single", CrossEntropySpec()), ("multi", BinarySpec())])
@EACH_WEIGHT
def test_focal_without_gamma_is_the_plain_loss(kind: str, plain: CrossEntropySpec, weights: Tensor | None) -> None:
    logits, targets = some(kind)
    found = build_loss(FocalSpec(gamma=0), kind, weights)(logits, targets)
    torch.testing.assert_close(found, build_loss(plain, kind, weights)(logits, targets))


@pytest.mark.parametrize(("name", "kind"), LOSSES)
def test_a_loss_of_shares_lies_between_those_of_its_ends(name: str, kind: str) -> None:
    """What mixup hands over: linear in the targets, but for the sigmoid's focal one."""
    logits, ends = torch.zeros(1, 3), torch.eye(3)[:2]
    spec = LOSSES[name, kind][0]()
    of = [float(build_loss(spec, kind)(logits + torch.arange(3), target[None])) for target in ends]
    mixed = float(build_loss(spec, kind)(logits + torch.arange(3), (0.5 * ends[0] + 0.5 * ends[1])[None]))
    assert min(of) < mixed < max(of) or (name, kind) == ("focal", "multi")
    assert (name, kind) == ("focal", "multi") or mixed == pytest.approx(np.mean(of))


@pytest.mark.parametrize(("name", "kind"), LOSSES)
def test_logits_of_any_size_give_finite_gradients(name: str, kind: str) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    build_loss(LOSSES[name, kind][0](), kind)(logits, torch.eye(3)[:2]).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("spec", "kind", "known"),
    [(BinarySpec(), "single", "cross_entropy, focal"), (CrossEntropySpec(), "multi", "bce, focal")],
)
def test_a_loss_that_does_not_suit_is_refused(spec: BinarySpec, kind: str, known: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_loss(spec, kind)
    said = f"train.loss.name={spec.name} does not suit a task of kind {kind}; expected one of {known}"
    assert str(error.value) == said


def test_a_loss_is_named_in_short_or_with_its_fields() -> None:
    assert TrainSpec.parse({"loss": "focal"}, "x").loss == FocalSpec()
    assert TrainSpec.parse({"loss": {"name": "focal", "gamma": 1}}, "x").loss == FocalSpec(gamma=1)
    assert TrainSpec.parse({}, "x").loss is None
    with pytest.raises(ConfigError, match=r"unknown field loss\.smothing; did you mean smoothing\?"):
        TrainSpec.parse({"loss": {"name": "cross_entropy", "smothing": 0.1}}, "x")
    with pytest.raises(ConfigError, match=r"unknown loss 'focl'; did you mean focal\?"):
        TrainSpec.parse({"loss": "focl"}, "x")


def weights_of(y: np.ndarray, how: str, n_labels: int = 3) -> np.ndarray:
    found = class_weights(torch.eye(n_labels)[y], how)  # type: ignore[arg-type]
    assert found is not None
    return found.numpy()


def test_inverse_weights_are_scikit_learns_balanced_ones() -> None:
    y = np.array([0] * 7 + [1] * 2 + [2] * 11)
    np.testing.assert_allclose(
        weights_of(y, "inverse"), compute_class_weight("balanced", classes=np.arange(3), y=y), rtol=1e-6
    )
    assert class_weights(torch.eye(3)[y], "none") is None


def test_effective_weights_are_the_papers() -> None:
    """Cui et al. 2019, equation 2, with beta 0.999; where inverse ones differ 5,000-fold, these differ 1,000-fold."""
    y = np.repeat([0, 1, 2], [5000, 50, 1])
    want = (1 - 0.999) / (1 - 0.999 ** np.array([5000.0, 50.0, 1.0]))
    found = weights_of(y, "effective")
    np.testing.assert_allclose(found / found[0], want / want[0], rtol=1e-4)
    assert found[y].mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("how", ["inverse", "effective"])
def test_a_label_without_rows_is_not_silenced_and_moves_no_other(how: str) -> None:
    y = np.array([0, 0, 2])
    assert weights_of(y, how)[1] == 1
    np.testing.assert_allclose(weights_of(y, how)[[0, 2]], weights_of(y // 2, how, 2), rtol=1e-6)
    logits = torch.zeros(3, 3, requires_grad=True)
    weights = class_weights(torch.eye(3)[y], how)  # type: ignore[arg-type]
    build_loss(None, "multi", weights)(logits, torch.eye(3)[y]).backward()
    assert logits.grad is not None and (logits.grad[:, 1] > 0).all()  # it learns that the label is absent
