"""One bundle, trained, and 200 clips: the same decisions wherever it runs, and from every door."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile as sf
import torch
from archives import tag_archive
from making import FRONT, LABELS, RATE, TONES_HZ, draft, tone, tones_folder

from instrunet import export
from instrunet.archive.units import UnitSpec
from instrunet.bundle import Bundle
from instrunet.models.attentive import AttentiveSpec
from instrunet.training.fit import fit
from instrunet.training.job import Job
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER
from pipelines import flavour, predict

N = 200
MODEL = AttentiveSpec(widths=(8, 16), pools=((2, 2), (2, 2)), views=("plain", "position"))
Decisions = dict[str, list[str]]


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    folder = tones_folder(home / "tones", n_train=60, labels=[[label] for label in LABELS])
    spec = TrainSpec(epochs=12, batch_size=8, learning_rate=5e-3, specaugment=None, keep="last", precision="fp32")
    (home / "last").mkdir()
    job = Job(draft(folder, model=MODEL), spec, folder)
    fit(job, lambda seen, save: save(home / "last") if seen["epoch"] == 11 else None, torch.device("cpu"))
    return home / "last" / BUNDLE_FOLDER


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of the three classes and between them, from a third of a window to four."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for k in range(N):
        hz = 10 ** rng.uniform(2.3, 3.5) if k % 2 else list(TONES_HZ.values())[k % 3]
        wave = tone(hz, FRONT.window_s * rng.uniform(0.3, 4), seed=k)
        sf.write(folder / f"{k:03d}.wav", wave, RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def expected(saved: Path, clips: Path) -> Decisions:
    bundle = Bundle.load(saved)
    said = {path.name: bundle(path).labels for path in sorted(clips.iterdir())}
    assert len(said) == N
    counts = [sum(labels == [name] for labels in said.values()) for name in LABELS]
    assert min(counts) >= 20, f"every class should be answered often, or equal answers show little: {counts}"
    return said


def test_predict(saved: Path, clips: Path, expected: Decisions, capsys: pytest.CaptureFixture[str]) -> None:
    rest = {"json": True, "match": None, "verbose": False, "picture": None, "runtime": "torch"}
    predict.run(argparse.Namespace(bundle=str(saved), files=[str(clips / name) for name in expected], **rest))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {Path(line["file"]).name: line["labels"] for line in lines} == expected


def test_tags(saved: Path, clips: Path, expected: Decisions, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    bundle = Bundle.load(saved)
    tag_archive(clips, tmp_path, bundle, UnitSpec())
    rows = [row for path in sorted(tmp_path.rglob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]
    scored = {Path(row["uri"]).name: np.array(row["scores"], np.float32) for row in rows}
    assert {name: bundle.decide(bundle.of_clip(scores)) for name, scores in scored.items()} == expected


@pytest.mark.parametrize("where", ["onnxruntime", "openvino"])
def test_runtimes(where: str, saved: Path, clips: Path, expected: Decisions) -> None:
    bundle = Bundle.load(saved).on(where)
    assert {name: bundle(clips / name).labels for name in expected} == expected


def test_the_exported_graph(saved: Path, clips: Path, expected: Decisions, tmp_path: Path) -> None:
    bundle = Bundle.load(saved)
    path, _ = export.to_onnx(bundle, tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = {}
    for name in expected:
        (scores,) = session.run(["scores"], {"waveform": sf.read(clips / name, dtype="float32")[0][None]})
        said[name] = bundle.decide(scores[0])
    assert said == expected


@pytest.mark.filterwarnings("ignore::Warning:mlflow.*", "ignore:.*Any type hint is inferred:UserWarning")
def test_mlflow(saved: Path, clips: Path, expected: Decisions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As registered: MLflow's own loader, from a folder with the files of the flavour and the bundle's."""
    import mlflow.pyfunc

    monkeypatch.setattr(sys, "path", [*sys.path])  # it puts the model's code there
    flavour.write(saved, tmp_path)
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = mlflow.pyfunc.load_model(str(tmp_path))
    said = {name: model.predict(sf.read(clips / name, dtype="float32")[0][None])["labels"][0] for name in expected}
    assert said == expected
