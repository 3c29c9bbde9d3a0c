"""Each way of searching, killed and gone on with: what it had is kept, and it ends with a choice."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, make_place, run
from making import tones_corpus

pytestmark = [pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(900)]
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
train: {epochs: 8, batch_size: 4, early_stop_patience: 99}
cluster: {cpus_per_worker: 0.5}
tune:
  samples: 6
  space:
    train.learning_rate: {loguniform: [1.0e-6, 1.0e-2]}
    model.dropout: {uniform: [0.0, 0.5]}
"""
ONE_SHORT = 'tune.space={"*": {each: {short: {train.epochs: 3}, long: {train.epochs: 150}}}}'
NONE_LEARNS = 'tune.space={"*": {each: {a: {train.learning_rate: 1.0e+12}, b: {train.learning_rate: 1.0e+13}}}}'
ONCE = "tune.scheduler=random tune.samples=1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = make_place(tmp_path / "instrunet")
    (place / "study.yaml").write_text(STUDY)
    tones_corpus(place / "FOLDER", 48)
    return place


def begun(command: str, place: Path) -> "subprocess.Popen[bytes]":
    with (place / "log").open("w") as log:
        return subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=place, env=environment(), stdout=log, stderr=log)


def wait(job: "subprocess.Popen[bytes]", place: Path, until: Callable[[], Any]) -> Any:
    while not (found := until()) and job.poll() is None:
        time.sleep(0.1)
    assert job.poll() is None, (place / "log").read_text()
    return found


def made(place: Path, name: str) -> Any:
    (path,) = place.glob(f"runs/tune/*/{name}")
    return json.loads(path.read_text())


def reported(place: Path) -> list[list[dict[str, Any]]]:
    """Of each trial what it reported, in order."""
    files = [path.read_text().splitlines() for path in sorted(place.glob("runs/tune/*/ray/*/result.json"))]
    return [[json.loads(line) for line in lines if line.endswith("}")] for lines in files]


@pytest.mark.parametrize(
    "how",
    ["tune.scheduler=hyperband tune.samples=8", "tune.scheduler=pbt", "tune.sampler=tpe", "tune.scheduler=asha"],
)
def test_killed_it_goes_on(how: str, place: Path) -> None:
    n = 8 if "hyperband" in how else 6  # its first bracket of four runs to the end, the second is halved
    command = f"python jobs/tune.py study.yaml {how}"
    job = begun(command, place)
    wait(job, place, lambda: len(list(place.glob("runs/tune/*/checkpoints/*/step-*"))) >= 6)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    done = run(command, place)
    assert done.returncode == 0, (place / "log").read_text() + done.stdout + done.stderr
    assert "going on with the study that was begun here" in done.stderr
    study, rows = made(place, "study.json"), made(place, "trials.json")
    assert study["n_trials"] == n == len(rows) and study["n_failed"] == 0, [row["reason"] for row in rows]
    assert study["n_stopped"] >= 2 or "hyperband" not in how
    assert rows[0]["epochs"] == 8 or how != "tune.sampler=tpe"
    assert study["best"]["score"] > 0.6


def test_a_trial_whose_process_is_killed_goes_on(place: Path) -> None:
    """And one that has ended is in MLflow while the other still trains."""
    job = begun(f"python jobs/tune.py study.yaml {ONCE} '{ONE_SHORT}' train.early_stop_patience=150", place)

    def ended() -> bool:
        return any("FINISHED" in path.read_text() for path in place.glob("runs/tune/*/records/*/tracking.jsonl"))

    wait(job, place, ended)

    def long() -> list[dict[str, Any]]:  # Tune copies what was reported now and then
        return next((rows for rows in reported(place) if rows and rows[-1]["epochs_done"] > 3), [])

    longest = wait(job, place, long)
    os.kill(longest[-1]["pid"], signal.SIGKILL)
    assert job.wait(300) == 0, (place / "log").read_text()
    rows = max(reported(place), key=len)
    pids = [row["pid"] for row in rows]
    assert len(set(pids)) == 2 and pids.count(longest[-1]["pid"]) >= len(longest)
    # Each epoch was trained once: one that was reported again, as Tune might not have heard of it, is the same
    epochs = {(row["epochs_done"], row["epoch_s"]) for row in rows if "epoch_s" in row}
    assert sorted(number for number, _ in epochs) == list(range(1, 151))
    assert {row["epochs"] for row in made(place, "trials.json")} == {3, 150}
    assert made(place, "study.json")["n_failed"] == 0


def test_all_of_them_may_fail(place: Path) -> None:
    done = run(f"python jobs/tune.py study.yaml {ONCE} '{NONE_LEARNS}'", place)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error: all 2 trials failed; trials.json says why; the first: " in done.stderr
    rows = made(place, "trials.json")
    assert [row["status"] for row in rows] == ["failed"] * 2 and all("finite" in row["reason"] for row in rows)
    assert len(list(place.glob("runs/tune/*/records/*/tracking.jsonl"))) == 2
