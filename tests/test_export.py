"""ONNX: the same scores from the same samples, any number of windows, and the facts that a server needs."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from making import LABELS, RATE, draft, tone

from instrunet import export
from instrunet.bundle import Bundle
from instrunet.decisions import Decisions
from instrunet.errors import JobError
from instrunet.models import ModelSpec, Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec, Task8Spec

# The seed's own picture, resized and coloured; and the native grid with batch norm
MODELS: dict[str, ModelSpec] = {
    "task8": Task8Spec(picture=PictureSpec(size=128, colour=True)),
    "iteration11": Iteration11Spec(picture=PictureSpec(size=None)),
}
KINDS = {"task8": "single", "iteration11": "multi"}


def made(name: str) -> Bundle:
    spec = draft(kind=KINDS[name], model=MODELS[name]).model_copy(update={"temperature": 1.7})
    if name == "iteration11":
        spec = spec.model_copy(update={"thresholds": (0.25, 0.5, 0.75), "decisions": Decisions(abstain_below=0.3)})
    torch.manual_seed(0)
    network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():  # running means other than 0 and 1
        network.train()({"logmel": torch.randn(8, 16, 16) * 3 - 4})
        network.body.head[-1].weight.mul_(100)  # scores that are not all alike
    return Bundle(spec, network)


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, float]:
    bundle = made(request.param)
    return bundle, *export.to_onnx(bundle, tmp_path_factory.mktemp(request.param))


def scores(path: Path, windows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"windows": windows.astype(np.float32)})[0]


def test_parity(exported: tuple[Bundle, Path, float]) -> None:
    # Worst seen: 1.5e-7 on noise, 3e-6 on the tones and near-silence below
    bundle, path, difference = exported
    assert difference < 1e-4
    assert export.parity(bundle, path) == difference


@pytest.mark.parametrize("n_windows", [1, 3, 8])
def test_any_number_of_windows_of_any_sound(exported: tuple[Bundle, Path, float], n_windows: int) -> None:
    bundle, path, _ = exported
    window = bundle.spec.front.window
    wave = np.concatenate([tone(300.0 + 400 * k, 0.5, seed=k) * 10.0**-k for k in range(n_windows)])
    windows = np.concatenate([wave.reshape(n_windows, window), np.zeros((1, window), np.float32)])  # and silence
    theirs = scores(path, windows)
    ours = bundle.scores(bundle.featurizer.fast_windows(windows.astype(np.float32)))
    assert theirs.shape == (n_windows + 1, len(LABELS))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.ptp(ours, axis=0).max() > 0.002  # the windows are told apart


def test_the_facts_travel_with_the_model(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    facts = {p.key: json.loads(p.value) for p in onnx.load(str(path)).metadata_props if p.key.startswith("instrunet.")}
    if bundle.spec.kind == "multi":
        assert facts.pop("instrunet.thresholds") == [0.25, 0.5, 0.75]
        assert facts.pop("instrunet.decisions") == {"isotonic": [], "abstain_below": 0.3}
    assert facts == {
        "instrunet.labels": list(LABELS),
        "instrunet.fingerprint": bundle.fingerprint,
        "instrunet.kind": bundle.spec.kind,
        "instrunet.sample_rate": RATE,
        "instrunet.window": RATE // 2,
    }


def test_the_model_is_whole_and_alone_in_its_folder(exported: tuple[Bundle, Path, float]) -> None:
    _, path, _ = exported
    assert [p.name for p in path.parent.iterdir()] == [export.FILE]
    onnx.checker.check_model(str(path), full_check=True)
    opset = {entry.domain: entry.version for entry in onnx.load(str(path)).opset_import}
    assert opset[""] == export.OPSET


def test_names_and_shapes_of_what_goes_in_and_out(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (got,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1]) == ("windows", "tensor(float)", bundle.spec.front.window)
    assert (got.name, got.shape[1]) == ("scores", len(LABELS))
    assert isinstance(given.shape[0], str)  # dynamic


def test_a_model_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(JobError, match="the exported model differs from the bundle by .*, at most 0 is allowed"):
        export.to_onnx(made("iteration11"), tmp_path)
    assert list(tmp_path.iterdir()) == []
