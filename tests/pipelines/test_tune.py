"""A study as one starts it: two front ends, a configuration that cannot be trained, and a driver that is killed."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, make_place, run
from making import tones_corpus

from instrunet.bundle import Bundle

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
STUDY = """
name: small
out: runs
task: any
data: {name: csv, root: FOLDER}
audit: {allow_leaks: true}
front:
  features: [{name: logmel, sample_rate: 8000, n_fft: 512, hop_length: 256, n_mels: 16, fmax_hz: 4000}]
  window_s: 0.5
  hop_s: 0.5
model: {name: task8, picture: {size: null, colour: false}}
train: {epochs: 4, batch_size: 4, learning_rate: 3.0e-3}
cluster: {cpus_per_worker: 0.5}
tune:
  scheduler: random
  confirm: {top: 1, seeds: 1}
  space:
    "*":
      each:
        plain: {}
        broken: {train.learning_rate: 1.0e+12}
        bands: {front.features.0.n_mels: 24, train.learning_rate: 1.0e-9, train.on_collapse: ignore}
        longer: {train.epochs: 24, train.early_stop_patience: 24}
"""
COMMAND = "python jobs/tune.py study.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("tune") / "instrunet")
    (place / "study.yaml").write_text(STUDY)
    tones_corpus(place / "FOLDER", 48)
    return place


@pytest.fixture(scope="module")
def killed(place: Path) -> dict[str, float]:
    """The driver is killed when two trials have ended: the epochs that each had reported by then, by its folder."""
    with (place / "log").open("w") as log:
        job = subprocess.Popen(["bash", "-c", f"exec {COMMAND}"], cwd=place, env=environment(), stdout=log, stderr=log)
    try:
        while sum((4.0 in {number for number, _ in epochs}) for epochs in reported(place).values()) < 2:
            assert job.poll() is None, (place / "log").read_text()
            time.sleep(0.1)
    finally:
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
    assert not list(place.glob("runs/tune/*/_SUCCESS"))
    return {name: max(epochs, default=(0, 0))[0] for name, epochs in reported(place).items()}


@pytest.fixture(scope="module")
def done(place: Path, killed: dict[str, float]) -> "subprocess.CompletedProcess[str]":
    """The same command again."""
    again = run(f"{COMMAND} --resume", place)
    assert again.returncode == 0, (place / "log").read_text() + again.stdout + again.stderr
    return again


def reported(place: Path) -> dict[str, set[tuple[float, float]]]:
    """Of each trial the epochs that were trained, and how long each took: once trained anew, it would take another."""
    found = {}
    for path in place.glob("runs/tune/small-*/ray/*/result.json"):
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found[path.parent.name] = {(row["epochs_done"], row["epoch_s"]) for row in rows if "epoch_s" in row}
    return found


def made(place: Path, name: str) -> Any:
    (path,) = place.glob(f"runs/tune/small-*/{name}")
    return json.loads(path.read_text())


def test_the_killed_study_went_on(place: Path, killed: dict[str, float], done: Any) -> None:
    assert "going on with the study that was begun here" in done.stderr
    rows = reported(place)
    assert sum(epochs >= 4 for epochs in killed.values()) >= 2
    # No epoch was trained again, in a finished trial or in one that went on
    assert all(len(epochs) == len({number for number, _ in epochs}) for epochs in rows.values())
    assert sorted(row["epochs"] for row in made(place, "trials.json")) == [0, 4, 4, 24]


def test_a_configuration_that_cannot_be_trained_is_recorded(place: Path, done: Any) -> None:
    rows = {row["changed"]["*"]: row for row in made(place, "trials.json")}
    assert rows["broken"]["status"] == "failed" and "expected a finite number" in rows["broken"]["reason"]
    assert {rows[name]["status"] for name in ("plain", "bands", "longer")} == {"done"}
    assert "1 trials failed; trials.json says why" in done.stderr


def test_features_were_made_once_for_each_front_end(place: Path, done: Any) -> None:
    assert len(list((place / "runs/features").iterdir())) == 2
    assert "2 front ends" in (place / "log").read_text()


def test_it_says_beforehand_what_it_may_cost(place: Path, done: Any) -> None:
    """3 x 4 + 24 epochs, and the longest once more."""
    assert "at most 60 epochs in 4 trials and 1 x 1 to confirm, 2 at a time" in (place / "log").read_text()
    study = made(place, "study.json")
    assert study["epochs_most"] == 60 and study["epochs_spent"] <= 60


def test_the_choice_is_tested_once_and_kept(place: Path, done: Any) -> None:
    study = made(place, "study.json")
    best, (seeds,) = study["best"], study["confirmed"]
    assert len(seeds["scores"]) == 1 and seeds["trial"] == best["trial"]
    assert best["optimism"]["value"] == pytest.approx(best["validation"]["value"] - best["test"]["value"])
    (bundle,) = place.glob("runs/tune/small-*/bundle")
    loaded = Bundle.load(bundle)
    assert loaded.spec.trained.seed == 1 == best["fields"]["train.seed"]
    assert loaded.spec.trained.metrics["val_balanced_accuracy"] == best["score"]
    assert "LEAKY: test, looked at once" in done.stdout
    assert "Chosen on validation, tested once" in (bundle.parent / "index.html").read_text()


def test_each_trial_is_a_run_under_the_study(place: Path, done: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'runs/mlflow.db'}")
    (home,) = client.search_experiments(filter_string="name = 'instrunet'")
    runs = client.search_runs([home.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.status == "FINISHED" and parent.data.metrics["n_trials"] == 4
    assert {run.data.tags["status"] for run in children} == {"done", "failed"} and len(children) == 5
    (longer, *_) = [run for run in children if run.data.params.get("train.epochs") == "24"]
    assert len(client.get_metric_history(longer.info.run_id, "val_loss")) == 24


def test_a_third_run_has_nothing_to_do(place: Path, done: Any) -> None:
    again = run(COMMAND, place)
    assert again.returncode == 0 and "is searched already" in again.stderr


def test_nothing_to_go_on_with(place: Path, done: Any) -> None:
    other = run(f"{COMMAND} --resume train.seed=7", place)
    assert other.returncode == 2
    assert "found none; leave --resume out to begin it" in other.stderr
    assert len(list(place.glob("runs/tune/*"))) == 1


def test_its_trials_are_one_ensemble(place: Path, done: Any) -> None:
    """On its features, which are there: Ray does not start."""
    study = next(place.glob("runs/tune/small-*/_SUCCESS")).parent
    made_ = run(f"python jobs/ensemble.py {study} study.yaml --out runs/ensemble", place)
    assert made_.returncode == 0, made_.stderr
    assert "2 of 3 trials can be heard together with its best" in made_.stderr
    assert made_.stderr.count("made before") == 1
    bundle = place / made_.stdout.splitlines()[-1]
    record = json.loads((bundle.parent / "ensemble.json").read_text())
    assert [row["name"].split()[0] for row in record["ways"]] == [
        "task8",
        "task8",
        "soft",
        "weighted",
        "greedy",
        "stacking",
    ]
    ways = record["ways"][2:]
    assert record["chosen"] == max(ways, key=lambda row: row["validation"])["name"]
    assert all(row["test"][1] <= row["test"][0] <= row["test"][2] and row["ms_per_window"] > 0 for row in ways)
    loaded = Bundle.load(bundle)
    assert loaded.spec.trained.audit.startswith("leaky") and loaded.spec.model.name == "combined"
    assert len(loaded.spec.trained.begun_with) == 2
    said = run(f"python jobs/predict.py {bundle} FOLDER/0.wav", place)
    assert said.returncode == 0, said.stderr
    fitted = run(f"python jobs/calibrate.py {bundle} study.yaml --out runs/calibrated", place)
    assert fitted.returncode == 0, fitted.stderr
    again = run(f"python jobs/ensemble.py {study} study.yaml --out runs/ensemble", place)
    assert again.returncode == 2 and "found something; give another --out" in again.stderr


@pytest.mark.soak
def test_the_ends_of_its_cycles_are_one_ensemble(place: Path, done: Any) -> None:
    trained = run("python jobs/train.py study.yaml train.schedule=cosine train.cycles=2 train.epochs=4", place)
    assert trained.returncode == 0, trained.stderr
    home = (place / trained.stdout.splitlines()[-1]).parent
    ends = [Bundle.load(home / "snapshots" / f"cycle-{k}") for k in (1, 2)]
    assert [one.spec.trained.epoch for one in ends] == [1, 3]
    made_ = run(f"python jobs/ensemble.py {home} study.yaml --out runs/snapshots", place)
    assert made_.returncode == 0, made_.stderr
    bundle = Bundle.load(place / made_.stdout.splitlines()[-1])
    record = json.loads((place / "runs/snapshots/ensemble.json").read_text())
    names = [row["name"].split()[-1] for row in record["ways"]]
    assert names == ["cycle-1", "cycle-2", "soft", "weighted", "greedy", "stacking"]
    assert set(bundle.spec.trained.begun_with) == {one.fingerprint for one in ends}


def test_more_than_there_is(place: Path, done: Any) -> None:
    greedy = run(f"{COMMAND} train.seed=7 cluster.workers=2 cluster.cpus_per_worker=99", place)
    assert greedy.returncode == 2 and "2 x 99 CPU are asked for, this machine's Ray has" in greedy.stderr
