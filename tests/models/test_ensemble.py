"""Several networks as one: what it answers, and that each member learns as it would alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from making import draft
from torch import Tensor

from instrunet.bundle import Bundle
from instrunet.config import Spec
from instrunet.errors import ConfigError
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.losses import build_loss
from instrunet.models import Network
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.ensemble import Ensemble, EnsembleSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.training.lesson import Lesson

FRONT = FrontEnd(features=(LogMelSpec(sample_rate=8000, n_fft=512, n_mels=33, fmax_hz=4000.0),), window_s=2.0)
STATISTICS = Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (2.5,)}, n_windows=1)
MEMBERS = (AttentiveSpec(widths=(4, 8), pools=((2, 2), (2, 2)), dropout=0.0), Iteration11Spec(dropout=0.0))
SPEC = EnsembleSpec(members=tuple(m.model_copy(update={"picture": EnsembleSpec().picture}) for m in MEMBERS))


def ensemble() -> tuple[Network, list[Network]]:
    """An ensemble, and its members' weights in networks of their own."""
    torch.manual_seed(0)
    whole, alone = Network(SPEC, FRONT, STATISTICS, 3), []
    assert isinstance(whole.body, Ensemble)
    for member, head, spec in zip(whole.body.members, whole.body.head.heads, SPEC.seeing, strict=True):
        one = Network(spec, FRONT, STATISTICS, 3)
        one.body.load_state_dict(member.state_dict() | {f"head.{n}": v for n, v in head.state_dict().items()})
        alone.append(one)
    return whole, alone


def batch(n: int) -> dict[str, Tensor]:
    return {"logmel": torch.randn(n, *FRONT.shapes()["logmel"], generator=torch.Generator().manual_seed(1)) * 2.5 - 4}


def test_it_answers_with_the_mean_of_its_members() -> None:
    whole, alone = ensemble()
    with torch.no_grad():
        own = torch.stack([one.eval()(batch(5)) for one in alone], 1)
        torch.testing.assert_close(whole.eval()(batch(5)), own.mean(1))
        assert whole.train()(batch(5)).shape == (5, 2, 3)


def test_each_member_learns_as_it_would_alone() -> None:
    whole, alone = ensemble()
    targets, lesson = torch.eye(3)[torch.tensor([0, 1, 2, 2])], Lesson(build_loss(None, "single"))
    lowered, _ = lesson(whole.train(), batch(4), targets, {})
    lowered.backward()
    own = [F.cross_entropy(one.train()(batch(4)), targets) for one in alone]
    torch.testing.assert_close(lowered, torch.stack(own).mean())
    for one, loss, member in zip(alone, own, whole.body.members, strict=True):  # type: ignore[arg-type]
        loss.backward()
        first, theirs = next(one.body.parameters()), next(member.parameters())
        assert first.grad is not None
        torch.testing.assert_close(theirs.grad, first.grad / 2)


def test_it_travels_in_a_bundle(tmp_path: Path) -> None:
    spec = draft(kind="single", model=EnsembleSpec(members=(MEMBERS[0], MEMBERS[0])))
    torch.manual_seed(0)
    network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    saved = Bundle(spec, network).save(tmp_path / "bundle")
    features = {n: torch.randn(2, *shape) for n, shape in spec.front.shapes().items()}
    with torch.no_grad():
        torch.testing.assert_close(Bundle.load(saved).network(features), network.eval()(features))


def test_members_look_at_one_picture() -> None:
    class Model(Spec):
        model: EnsembleSpec

    member = {"name": "iteration11", "picture": {"size": 64, "colour": True}}
    with pytest.raises(ConfigError, match=r"all members look at model\.picture; leave picture out of the member itera"):
        Model.parse({"model": {"name": "ensemble", "members": [{"name": "attentive"}, member]}}, "x.yaml")
