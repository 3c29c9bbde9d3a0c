"""Each way of searching, killed and gone on with: what it had is kept, and it ends with a choice."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

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


@pytest.mark.parametrize(
    "how", ["tune.scheduler=hyperband", "tune.scheduler=pbt", "tune.sampler=tpe", "tune.scheduler=asha"]
)
def test_killed_it_goes_on(how: str, tmp_path: Path) -> None:
    place = make_place(tmp_path / "instrunet")
    (place / "study.yaml").write_text(STUDY)
    tones_corpus(place / "FOLDER", 48)
    command = f"python jobs/tune.py study.yaml {how}"
    with (place / "log").open("w") as log:
        job = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=place, env=environment(), stdout=log, stderr=log)
    while len(list(place.glob("runs/tune/*/checkpoints/*/step-*"))) < 6 and job.poll() is None:
        time.sleep(0.1)
    assert job.poll() is None, (place / "log").read_text()
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    done = run(command, place, timeout=600)
    assert done.returncode == 0, (place / "log").read_text() + done.stdout + done.stderr
    assert "going on with the study that was begun here" in done.stderr
    (path,) = place.glob("runs/tune/*/study.json")
    study, rows = json.loads(path.read_text()), json.loads((path.parent / "trials.json").read_text())
    assert study["n_trials"] == 6 == len(rows) and study["n_failed"] == 0, [row["reason"] for row in rows]
    assert rows[0]["epochs"] == 8 or how != "tune.sampler=tpe"
    assert study["best"]["score"] > 0.6
