"""Why a network answers as it does, on tones: what it looks at and needs is where the tone is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from making import FRONT, LABELS, SMALL, TONES_HZ, draft, tones_folder
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from instrunet import explain
from instrunet.bundle import Bundle
from instrunet.features import shards
from instrunet.features.logmel import slaney_bands
from instrunet.features.shards import Features
from instrunet.models import ModelSpec
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.ensemble import EnsembleSpec
from instrunet.models.soundmind import SoundMindTimeSpec
from instrunet.training.fit import fit
from instrunet.training.job import Job
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER

LOOKING = AttentiveSpec(widths=(8, 16), pools=((2, 2), (2, 2)))
MODELS: dict[str, ModelSpec] = {
    "task8": SMALL,
    "ensemble": EnsembleSpec(members=(SMALL, SMALL)),
    "soundmind_time": SoundMindTimeSpec(),
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_folder(tmp_path_factory.mktemp("tones"), n_val=15)


@pytest.fixture(scope="module", params=list(MODELS))
def bundle(request: pytest.FixtureRequest, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    home = tmp_path_factory.mktemp("bundle") / "last"
    home.mkdir()
    spec = TrainSpec(epochs=12, batch_size=8, learning_rate=5e-3, specaugment=None, keep="last", precision="fp32")
    job = Job(draft(tones, model=MODELS[request.param]), spec, tones)
    fit(job, lambda seen, save: save(home) if seen["epoch"] == 11 else None, torch.device("cpu"))
    return Bundle.load(home / BUNDLE_FOLDER)


@pytest.fixture(scope="module")
def held(tones: Path) -> Features:
    return shards.load(tones, FRONT, "val")


def truth_of(held: Features) -> NDArray[np.bool_]:
    return np.array([[label in names for label in LABELS] for names in held.clips["labels"]])


def band_of(hz: float) -> int:
    """The mel band that hears most of a tone."""
    bands = slaney_bands(FRONT.features[0])  # type: ignore[arg-type]
    return int(bands[:, round(hz / 4000 * (bands.shape[1] - 1))].argmax())


def test_the_map_lies_where_the_tone_is(bundle: Bundle, held: Features) -> None:
    """Of windows whose first or second half is silent, most of the map lies in the other."""
    labels = truth_of(held).argmax(1)
    for silent in (slice(0, 8), slice(8, 16)):
        values = held.values["logmel"].copy()
        values[:, :, silent] = values.min()
        found = explain.looked_at(bundle, Features({"logmel": values}, held.clips), labels)
        assert found is not None and [one.shape for one in found] == [(16, 16)] * len(held)
        assert all(one.min() >= 0 and one.max() <= 1 + 1e-6 for one in found)
        maps = np.array(found)
        assert maps[:, :, silent].sum() < 0.4 * maps.sum()


def test_explaining_changes_no_score(bundle: Bundle, held: Features) -> None:
    values = {name: torch.from_numpy(value) for name, value in held.values.items()}
    before = bundle.predict(values)
    explain.looked_at(bundle, held, truth_of(held).argmax(1))
    assert np.array_equal(bundle.predict(values), before)
    assert all(p.grad is None for p in bundle.network.parameters())


def test_the_bands_that_are_needed_hold_the_tones(bundle: Bundle, held: Features) -> None:
    found = explain.needed_bands(bundle, held, truth_of(held))
    assert [found[0].first, found[-1].stop] == [0, 16]
    assert all(a.stop == b.first for a, b in zip(found[:-1], found[1:], strict=True))
    assert all(strip.feature == "logmel" for strip in found)
    of_tones = [s for s in found if any(s.first <= band_of(hz) < s.stop for hz in TONES_HZ.values())]
    others = [s for s in found if s not in of_tones]
    assert max(s.fall for s in of_tones) > 0.05
    assert max(s.fall for s in of_tones) > 2 * max(s.fall for s in others)


@pytest.mark.parametrize("name", ["t-SNE", "UMAP"])
def test_the_map_holds_the_classes_apart(name: str, bundle: Bundle, held: Features) -> None:
    if name == "UMAP":
        pytest.importorskip("umap", reason="umap-learn is not installed: pip install instrunet[umap]")
    points, again = (explain.arranged(bundle, held)[name] for _ in range(2))
    assert points.shape == (15, 2) and np.array_equal(points, again)
    assert silhouette_score(points, truth_of(held).argmax(1)) > 0.3


def test_of_too_few_windows_there_is_no_map(bundle: Bundle, held: Features) -> None:
    assert explain.arranged(bundle, held.take(np.arange(3))) == {}


def test_windows_of_other_lengths_have_maps_of_their_own_length(held: Features) -> None:
    front = FRONT.model_copy(update={"length": "adaptive", "min_s": 0.25})
    spec = draft(model=LOOKING, front=front)
    from instrunet.models import Network

    bundle = Bundle(spec, Network(spec.model, front, spec.statistics, len(LABELS)))
    n = held.values["logmel"].shape[2]
    frames = np.array([n, n // 2, n] + [n - 3] * (len(held) - 3))
    short = Features(held.values, held.clips, frames)
    found = explain.looked_at(bundle, short, np.zeros(len(held), np.int64))
    assert found is not None and [one.shape[1] for one in found] == frames.tolist()
    assert len(explain.needed_bands(bundle, short, truth_of(held))) == explain.STRIPS
