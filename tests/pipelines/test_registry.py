"""A registered bundle: fetched by its name, loaded by MLflow where nothing of ours is installed, and promoted."""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from archives import RATE, sound, tiny_bundle, write
from conftest import ROOT
from mlflow import MlflowClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_compare import other
from test_evaluate import corpus, featurize, place

from instrunet.bundle import Bundle
from instrunet.errors import BundleError, ConfigError, JobError
from instrunet.experiment import TrackingSpec
from pipelines import flavour, predict, promote, registry, sides
from pipelines.shelf import Shelf
from pipelines.tracking import Tracker

__all__ = ["corpus", "place"]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An embedded store with the tiny bundle as `tiny`, version 1, and one that answers otherwise as version 2."""
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        for k in (0, 1):
            with Tracker(TrackingSpec(model="tiny"), home / str(k), home, f"run{k}") as tracker:
                tracker.model(other(home / str(k) / "bundle", k))
            assert tracker.pending == 0
        yield home


@pytest.fixture
def client(mlflow: Path) -> Iterator[MlflowClient]:
    client = MlflowClient()
    client.set_registered_model_alias("tiny", "challenger", "2")
    yield client
    for alias in ("champion", "other"):
        client.delete_registered_model_alias("tiny", alias)


def test_a_bundle_is_fetched_by_its_name(client: MlflowClient, mlflow: Path, tmp_path: Path) -> None:
    client.set_registered_model_alias("tiny", "champion", "1")
    run = client.get_model_version("tiny", "1").run_id
    for name in ("models:/tiny@champion", "models:/tiny/1", f"runs:/{run}/bundle"):
        assert registry.load(name).fingerprint == Bundle.load(mlflow / "0/bundle").fingerprint
    path = write(tmp_path / "a.wav", sound(1.0))
    rest = {"json": True, "match": None, "verbose": False, "picture": None, "runtime": "torch"}
    predict.run(argparse.Namespace(bundle="models:/tiny@champion", files=[str(path)], **rest))


def test_a_server_offers_every_version_that_has_an_alias(client: MlflowClient, mlflow: Path, tmp_path: Path) -> None:
    client.set_registered_model_alias("tiny", "champion", "1")
    found = Shelf(["models:/tiny", str(mlflow / "0/bundle")], tmp_path, "torch").places
    assert list(found) == ["tiny@challenger", "tiny@champion", "0"]
    assert Bundle.load(Path(found["tiny@champion"])).fingerprint == Bundle.load(mlflow / "0/bundle").fingerprint
    with pytest.raises(ConfigError, match="expected a registered model nothing at"):
        Shelf(["models:/nothing"], tmp_path, "torch")


@pytest.mark.parametrize("name", ["models:/tiny@nobody", "models:/nothing/1", "runs:/0123456789abcdef/bundle"])
def test_what_is_not_there_is_told_in_a_line(name: str, client: MlflowClient) -> None:
    with pytest.raises(BundleError, match="cannot be had from MLflow") as error:
        registry.load(name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_without_a_store_it_says_which_setting_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="expected MLFLOW_TRACKING_URI or runs/mlflow.db"):
        registry.load("models:/tiny@champion")


CLEAN = """
import importlib.util, json, sys
assert importlib.util.find_spec("instrunet") is None, "it would prove nothing"
import mlflow.pyfunc, numpy as np
before = {*sys.modules}
model = mlflow.pyfunc.load_model(sys.argv[1])
waves = np.load(sys.argv[2])
told = model.predict(waves, params={"sample_rate": int(sys.argv[3])})
example = json.load(open(f"{sys.argv[1]}/input_example.json"))
assert len(model.predict(np.array(example, np.float32))) == 1
import instrunet
assert "instrunet.zip" in instrunet.__file__
third = sorted({name.split(".")[0] for name in {*sys.modules} - before})
print(json.dumps({"told": told.to_dict("list"), "modules": third, "inputs": str(model.metadata.signature.inputs)}))
"""


def test_mlflow_loads_it_in_a_clean_environment(client: MlflowClient, mlflow: Path, tmp_path: Path) -> None:
    """A new virtual environment with the installed packages but ours; what it imports is among the requirements."""
    folder = registry.fetched("models:/tiny/1", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # in it no .pth is read: not our install
    waves, rate = np.stack([sound(1.5, hz, rate=11_025) for hz in (250, 500, 750)]), 11_025
    np.save(tmp_path / "waves.npy", waves)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [tmp_path / "venv/bin/python", "-c", CLEAN, folder, tmp_path / "waves.npy", str(rate)]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    bundle = Bundle.load(mlflow / "0/bundle")
    said = [bundle(wave, rate) for wave in waves]
    assert found["told"]["labels"] == [one.labels for one in said]
    np.testing.assert_allclose(found["told"]["scores"], [list(one.scores.values()) for one in said], atol=1e-6)
    assert "float32" in found["inputs"]
    assert imported(found["modules"]) - closure((folder / "requirements.txt").read_text().split()) == set()


def imported(modules: list[str]) -> set[str]:
    """Distributions, without what comes with every environment or is ours."""
    known = packages_distributions()
    found = {canonicalize_name(name) for module in modules for name in known.get(module, [])}
    return found - {"pip", "setuptools", "instrunet"}


def closure(pins: list[str]) -> set[str]:
    """The pinned distributions and all that they ask for."""
    found: set[str] = set()
    left = pins
    while left:
        name = canonicalize_name(Requirement(left.pop()).name)
        if name not in found:
            found.add(name)
            try:
                wanted = [Requirement(text) for text in requires(name) or []]
            except ModuleNotFoundError:  # asked for on another platform
                continue
            left += [str(one) for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_requirements_are_pinned() -> None:
    pins = flavour.requirements({"model": {"name": "ensemble", "members": [{"name": "backbone"}, {"name": "task8"}]}})
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    names = {pin.split("==")[0] for pin in pins}
    assert {"torch", "numpy", "timm", "mlflow"} <= names
    assert "timm" not in {pin.split("==")[0] for pin in flavour.requirements({"model": {"name": "task8"}})}


def test_the_library_travels_as_the_same_bytes(tmp_path: Path) -> None:
    saved = tiny_bundle().save(tmp_path / "bundle")
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        contents.append((flavour.write(saved, tmp_path / name) / flavour.CODE).read_bytes())
    assert contents[0] == contents[1] and len(contents[0]) < 1_000_000


def ask(target: Path, margin: float = 0.02, name: str = "tiny") -> None:
    rest = {"overrides": [], "split": "test", "verbose": False}
    promote.run(argparse.Namespace(name=name, target=str(target), margin=margin, **rest))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones and clicks, four groups: version 1 knows all of them, and version 2 none."""
    folder = tmp_path_factory.mktemp("judge") / "clips"
    lines, bundle = ["path,label,group"], tiny_bundle()
    for k in range(4):
        clicks = np.zeros(RATE, np.float32)
        clicks[:: 130 + 40 * k] = 0.5
        for label, wave in (("bell", sound(1.0, 300 + 90 * k)), ("drum", clicks)):
            assert bundle(wave, RATE).labels == [label]
            lines.append(f"{write(folder / f'{label}{k}.wav', wave).name},{label},{k}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_first_challenger_is_champion(
    client: MlflowClient, corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(corpus)
    assert client.get_model_version_by_alias("tiny", "champion").version == 2
    assert "had no champion" in capsys.readouterr().err
    ask(corpus)
    assert "is champion already" in capsys.readouterr().out


def test_the_alias_moves_only_if_it_is_not_worse(
    client: MlflowClient, judge: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    featurize(sides.resolve(judge, []).frame, tiny_bundle(), Path("runs").absolute())

    def champion() -> str:
        return str(client.get_model_version_by_alias("tiny", "champion").version)

    client.set_registered_model_alias("tiny", "champion", "1")
    with pytest.raises(JobError, match=r"version 2 of tiny may be worse than the champion, version 1: balanced accur"):
        ask(judge)
    assert champion() == "1"
    assert "balanced accuracy -1.000 (-1.000 to -1.000) on 8 clips" in capsys.readouterr().out
    ask(judge, margin=1.0)  # whatever it costs
    assert champion() == "2"
    client.set_registered_model_alias("tiny", "challenger", "1")
    ask(judge)
    assert champion() == "1"
    assert "balanced accuracy +1.000" in capsys.readouterr().out


def test_what_cannot_be_compared_is_told(client: MlflowClient, corpus: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="expected a registered model nothing at"):
        ask(corpus, name="nothing")
    with pytest.raises(ConfigError, match="--margin is how much worse"):
        ask(corpus, margin=-1)
    client.delete_registered_model_alias("tiny", "challenger")
    with pytest.raises(ConfigError, match="tiny has no version with the alias challenger"):
        ask(corpus)


COUNTED = """
from pipelines.registry import Models
Models("nothing")
from mlflow.telemetry.client import get_telemetry_client
print(get_telemetry_client())
"""


def test_mlflow_counts_nobody(tmp_path: Path) -> None:
    """Its client for that is made at the first import, but in CI and under pytest."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    clean |= {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    done = subprocess.run([sys.executable, "-c", COUNTED], env=clean, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr
