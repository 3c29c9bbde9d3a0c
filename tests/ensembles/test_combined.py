"""Bundles as one: its scores are the mix of theirs, and it travels, exports and teaches like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import FRONT, LABELS, draft

from instrunet import export
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Provenance
from instrunet.ensembles.build import check, combined, ms_per_window
from instrunet.ensembles.joint import Member
from instrunet.ensembles.mix import Mix
from instrunet.errors import ConfigError
from instrunet.features.chroma import ChromaSpec
from instrunet.features.featurizer import Statistics
from instrunet.models import Network
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.distill import DistillSpec
from instrunet.models.ensemble import EnsembleSpec
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec, Task8Spec
from instrunet.training.start import teachers

ATTENTIVE = AttentiveSpec(widths=(4, 8), pools=((2, 2), (2, 2)), stem=4)
SPECS = (
    Task8Spec(picture=PictureSpec(size=24, colour=True)),
    Iteration11Spec(picture=PictureSpec()),
    ATTENTIVE,
    EnsembleSpec(members=(ATTENTIVE, ATTENTIVE)),
)


def members(kind: str = "single", **more: Any) -> list[Member]:
    found = []
    for k, model in enumerate(SPECS):
        torch.manual_seed(k)
        spec = draft(kind=kind, model=model).model_copy(update={"temperature": 0.5 + k, **more})
        network = Network(spec.model, spec.front, spec.statistics, len(LABELS))
        found.append(Member(Path(f"member{k}"), Bundle(spec, network)))
    return found


def heard(n: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n_: torch.randn(n, *shape, generator=generator) * 2 - 4 for n_, shape in FRONT.shapes().items()}


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_its_scores_are_the_weighted_mean_of_theirs(kind: str, tmp_path: Path) -> None:
    ours, weights = members(kind), np.array([0.5, 0.2, 0.0, 0.3])
    whole = combined(ours, Mix(weights), Provenance())
    theirs = [one.bundle.predict(heard()) for one in ours]
    expected = np.tensordot(weights, np.stack(theirs), 1)
    np.testing.assert_allclose(whole.predict(heard()), expected, atol=2e-6)
    assert len(whole.spec.model.members) == 3  # type: ignore[union-attr]  # one has no weight
    again = Bundle.load(whole.save(tmp_path / "bundle"))
    np.testing.assert_array_equal(again.predict(heard()), whole.predict(heard()))
    assert ms_per_window(again) > 0


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_stacked_it_reads_all_of_them(kind: str, tmp_path: Path) -> None:
    ours, rng = members(kind), np.random.default_rng(0)
    mix = Mix(matrix=rng.normal(0, 0.3, (3, 12)), bias=rng.normal(0, 1, 3))
    whole = combined(ours, mix, Provenance())
    said = np.stack([one.bundle.logits(heard()) / one.bundle.spec.temperature for one in ours], 1)
    logs = torch.tensor(said).log_softmax(2).numpy() if kind == "single" else said
    expected = torch.tensor(logs.reshape(5, -1) @ mix.matrix.T + mix.bias)  # type: ignore[union-attr]
    scores = (expected.softmax(1) if kind == "single" else expected.sigmoid()).numpy()
    np.testing.assert_allclose(whole.predict(heard()), scores, atol=1e-5)
    again = Bundle.load(whole.save(tmp_path / "bundle"))
    np.testing.assert_array_equal(again.predict(heard()), whole.predict(heard()))


CHROMA = ChromaSpec(sample_rate=8000, n_fft=512, hop_length=256)


def hearing(*features: Any, **more: Any) -> Member:
    """A member with a front end of its own."""
    front = FRONT.model_copy(update={"features": features})
    names = [one.name for one in features]
    numbers = {"logmel": ((-4.0,), (3.0,)), "chroma": ((0.4,), (0.3,))}
    statistics = Statistics(mean={n: numbers[n][0] for n in names}, std={n: numbers[n][1] for n in names}, n_windows=1)
    torch.manual_seed(len(features) + 7 * (names[0] == "chroma"))
    spec = draft(model=ATTENTIVE).model_copy(update={"front": front, "statistics": statistics, **more})
    return Member(Path("+".join(names)), Bundle(spec, Network(spec.model, front, statistics, len(LABELS))))


def test_each_hears_its_own_features(tmp_path: Path) -> None:
    """Stacked in the order that it knows, whatever the others hear."""
    logmel = FRONT.features[0]
    ours = [hearing(logmel), hearing(CHROMA), hearing(CHROMA, logmel)]
    check(ours)
    whole = combined(ours, Mix(np.array([0.5, 0.2, 0.3])), Provenance())
    assert [one.name for one in whole.spec.front.features] == ["logmel", "chroma"]
    wave = np.random.default_rng(0).normal(0, 0.1, 6000).astype(np.float32)
    theirs = [np.array(one.bundle(wave, 8000).window_scores) for one in ours]
    expected = np.tensordot([0.5, 0.2, 0.3], np.stack(theirs), 1)
    np.testing.assert_allclose(whole(wave, 8000).window_scores, expected, atol=2e-6)
    again = Bundle.load(whole.save(tmp_path / "bundle"))
    assert again(wave, 8000).window_scores == whole(wave, 8000).window_scores
    assert export.to_onnx(whole, tmp_path / "onnx")[1] < 1e-5
    alone = combined(ours, Mix(np.array([0.0, 1.0, 0.0])), Provenance())
    assert alone.spec.front == ours[1].bundle.spec.front and alone.spec.model.bands == ()  # type: ignore[union-attr]


def test_features_that_contradict_each_other_are_refused() -> None:
    logmel = FRONT.features[0]
    for other, told in (
        (hearing(logmel.model_copy(update={"n_mels": 24})), r"front\.features\.0\.n_mels is 24 there and 16 here"),
        (hearing(CHROMA.model_copy(update={"hop_length": 128})), "need the same number of frames a window"),
        (hearing(CHROMA.model_copy(update={"sample_rate": 16000})), "must share one sample_rate"),
    ):
        with pytest.raises(ConfigError, match=told):
            check([hearing(logmel), other])


def test_it_exports_and_teaches(tmp_path: Path) -> None:
    whole = combined(members(), Mix(np.array([0.4, 0.3, 0.2, 0.1])), Provenance())
    path, difference = export.to_onnx(whole, tmp_path / "onnx")
    assert path.is_file() and difference < 1e-5
    saved = whole.save(tmp_path / "bundle")
    (teacher,) = teachers(DistillSpec(teacher=(saved,)), draft(model=ATTENTIVE))
    torch.testing.assert_close(teacher(heard()), whole.network(heard()))


def test_what_does_not_fit_is_refused() -> None:
    ours = members()
    check(ours)
    with pytest.raises(ConfigError, match="two bundles or more to combine, got 1"):
        check(ours[:1])
    other = FRONT.model_copy(update={"window_s": 1.0})
    for update, told in (
        ({"labels": ("a", "b", "c")}, "answers with other labels"),
        ({"front": other}, r"features computed otherwise: front.window_s is 1\.0 there and 0\.5 here"),
        ({"statistics": Statistics(mean={"logmel": (0.0,)}, std={"logmel": (1.0,)}, n_windows=1)}, "on other clips"),
    ):
        odd = Bundle(ours[1].bundle.spec.model_copy(update=update), ours[1].bundle.network)
        with pytest.raises(ConfigError, match=told):
            check([ours[0], Member(Path("odd"), odd)])
