"""Each kind of network as ONNX; tests/test_export.py has `task8`, `iteration11` and the rest of the promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from making import LABELS, draft
from test_bodies import FRONT, SPECS, settled

from instrunet import engines, export, quantise, runtime
from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.summary import SummarySpec
from instrunet.models import ModelSpec, Network
from instrunet.models.soundmind import Dense40Spec, SoundMindSpec


@pytest.mark.parametrize(
    "name", ["multiscale se colour", "harmonics_resnet", "soundmind_time", "attentive rich", "backbone", "functionals"]
)
def test_scores_are_the_bundles(name: str, tmp_path: Path) -> None:
    """`to_onnx` compares 1, 2 and 5 windows; an LSTM and a GRU are among them."""
    bundle = Bundle(draft(model=SPECS[name], front=FRONT), settled(SPECS[name]))
    path, difference = export.to_onnx(bundle, tmp_path)
    assert path.is_file() and difference < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        *("multiscale se colour", "harmonics_resnet", "soundmind_time", "attentive rich", "attentive dilated"),
        *("backbone", "functionals", "functionals hidden"),
    ],
)
def test_scores_of_windows_of_any_length_are_the_bundles(name: str, tmp_path: Path) -> None:
    """Lengths between the least and the most, too, of which the exporter saw one."""
    front = FRONT.model_copy(update={"length": "adaptive", "min_s": 0.9 * FRONT.window_s})
    spec = draft(model=SPECS[name], front=front)
    torch.manual_seed(0)
    network = Network(spec.model, front, spec.statistics, len(LABELS))
    network.load_state_dict(settled(SPECS[name]).state_dict())
    path, difference = export.to_onnx(Bundle(spec, network), tmp_path)
    assert path.is_file() and difference < 1e-5


@pytest.mark.parametrize(
    "model", [pytest.param(SoundMindSpec(), marks=pytest.mark.soak), Dense40Spec()], ids=lambda model: model.name
)
def test_networks_of_numbers_run_elsewhere(model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their front end stays ours. Any number of windows, on every runtime and in every precision that is here."""
    monkeypatch.setenv("INSTRUNET_CACHE", str(tmp_path))
    front = FrontEnd(features=(SummarySpec(),))
    made_up = Statistics(mean={"summary": (0.0,)}, std={"summary": (1.0,)}, n_windows=1)
    spec = BundleSpec(kind="single", labels=LABELS, front=front, model=model, statistics=made_up)
    bundle = Bundle(spec, Network(model, front, made_up, len(LABELS)))
    ranges = {name: values.numpy() for name, values in runtime.probe_batch(bundle, 8).items()}
    bundle.int8 = quantise.int8(runtime.graph(bundle), [ranges])
    for where, precision in runtime.everywhere(int8=True):
        run = runtime.run_on(bundle, where, precision)
        for n_windows in (1, 5):
            batch = runtime.probe_batch(bundle, n_windows)
            with torch.inference_mode():
                apart = np.abs(run(batch) - engines.by_torch(bundle.network)(batch)).max()
            assert apart < (1e-5 if precision == "fp32" else 0.05), (where, precision)
