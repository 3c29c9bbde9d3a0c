"""A killed worker and a killed driver change nothing of what a run ends with: with one seed, three runs are one."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import environment, make_place, run
from disks import small_disk

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
EPOCHS = 8
TRAIN = (
    f"python jobs/train.py configs/smoke.yaml data.name=irmas data.root=CORPUS train.epochs={EPOCHS} out=runs "
    "train.batch_size=8"
)
TIMING = ("clips_per_s", "wait_share", "epoch_s")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path) -> Path:
    place = make_place(tmp_path_factory.mktemp("undisturbed") / "instrunet")
    (place / "CORPUS").symlink_to(small_corpus)
    done = run(TRAIN, place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture
def disturbed(tmp_path: Path, undisturbed: Path) -> Path:
    """A fresh place with the same features."""
    place = make_place(tmp_path / "instrunet")
    (place / "CORPUS").symlink_to((undisturbed / "CORPUS").resolve())
    shutil.copytree(undisturbed / "runs/features", place / "runs/features")
    return place


def begin(place: Path) -> "subprocess.Popen[str]":
    with (place / "log").open("a") as log:
        return subprocess.Popen(
            ["bash", "-c", f"exec {TRAIN}"], cwd=place, env=environment(), stdout=log, stderr=log, text=True
        )


def workers_after_an_epoch(place: Path, job: "subprocess.Popen[str]") -> list[int]:
    """The pids of the workers, once they have reported."""
    for _ in range(9000):
        found = list(place.glob("runs/train/*/workers.json"))
        if found:
            pids: list[int] = json.loads(found[0].read_text())
            return pids
        assert job.poll() is None, (place / "log").read_text()
        time.sleep(0.1)
    raise AssertionError("no epoch within a quarter of an hour")


def outcome(place: Path) -> list[dict[str, float]]:
    (path,) = place.glob("runs/train/*/history.json")
    return [{k: v for k, v in epoch.items() if k not in TIMING} for epoch in json.loads(path.read_text())]


def weights(place: Path) -> bytes:
    (path,) = place.glob("runs/train/*/bundle/weights.safetensors")
    return path.read_bytes()


def tracked_epochs(place: Path) -> list[int]:
    (path,) = place.glob("runs/train/*/tracking.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "metrics" and "val_loss" in line["values"]]


def test_killed_worker(undisturbed: Path, disturbed: Path) -> None:
    job = begin(disturbed)
    os.kill(workers_after_an_epoch(disturbed, job)[1], signal.SIGKILL)
    assert job.wait(300) == 0, (disturbed / "log").read_text()
    assert "a worker was lost" in (disturbed / "log").read_text()
    assert outcome(disturbed) == outcome(undisturbed)
    assert weights(disturbed) == weights(undisturbed)
    assert sorted(tracked_epochs(disturbed)) == list(range(EPOCHS))


@pytest.mark.soak
def test_an_interrupted_driver(disturbed: Path) -> None:
    job = begin(disturbed)
    workers_after_an_epoch(disturbed, job)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130
    assert (disturbed / "log").read_text().splitlines()[-1].startswith("interrupted; what was finished is kept")
    assert list(disturbed.glob("runs/train/*/checkpoints/step-*"))


def test_killed_driver(undisturbed: Path, disturbed: Path) -> None:
    job = begin(disturbed)
    workers_after_an_epoch(disturbed, job)
    job.kill()
    job.wait()
    assert not list(disturbed.glob("runs/train/*/bundle"))
    again = run(TRAIN, disturbed)
    assert again.returncode == 0, again.stdout + again.stderr
    shown = [line for line in again.stderr.splitlines() if line.startswith("epoch")]
    assert len(shown) < EPOCHS  # it went on, it did not begin again
    assert outcome(disturbed) == outcome(undisturbed)
    assert weights(disturbed) == weights(undisturbed)
    assert sorted(tracked_epochs(disturbed)) == list(range(EPOCHS))


@pytest.mark.soak
def test_a_driver_that_is_told_to_stop_keeps_its_step(undisturbed: Path, disturbed: Path) -> None:
    job = begin(disturbed)
    workers_after_an_epoch(disturbed, job)
    job.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert job.wait(60) == 143
    assert time.monotonic() - began < 30  # what Kubernetes gives
    *lines, end = (disturbed / "log").read_text().splitlines()
    (told,) = (line for line in lines if line.startswith("told to stop"))  # an epoch may end meanwhile
    assert re.fullmatch(r"told to stop: a checkpoint after step \d+ is kept", told)
    assert end == "stopped; what was finished is kept, the same command goes on from there"
    steps = [int(p.name.split("-")[1]) for p in disturbed.glob("runs/train/*/checkpoints/step-*")]
    assert max(steps) >= int(told.split()[-3])  # later ones where it trained on until it was stopped
    again = run(TRAIN, disturbed)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(disturbed) == outcome(undisturbed)
    assert weights(disturbed) == weights(undisturbed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64m") as disk:
        yield disk


@pytest.mark.soak
def test_a_full_disk_fails_the_job_and_the_same_command_goes_on(undisturbed: Path, disturbed: Path, disk: Path) -> None:
    shutil.copytree(disturbed / "runs", disk / "runs")
    shutil.rmtree(disturbed / "runs")
    (disturbed / "runs").symlink_to(disk / "runs")
    job = begin(disturbed)
    workers_after_an_epoch(disturbed, job)
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    assert job.wait(120) == 1
    told = (disturbed / "log").read_text().splitlines()[-1]
    assert re.fullmatch(
        r"error: the checkpoint after step \d+ cannot be written to \S+: .*No space left on device.*; "
        r"make room, then the same command goes on after step \d+",
        told,
    ), told
    (disk / "ballast").unlink()
    again = run(TRAIN, disturbed)
    assert again.returncode == 0, again.stdout + again.stderr
    assert outcome(disturbed) == outcome(undisturbed)
    assert weights(disturbed) == weights(undisturbed)


def test_a_third_run_does_nothing(undisturbed: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.glob("runs/train/*/bundle/*")}
    done = run(TRAIN, undisturbed)
    assert done.returncode == 0
    assert "is trained already" in done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.glob("runs/train/*/bundle/*")}


def test_a_run_leaves_its_mistakes_and_its_curves(undisturbed: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (home,) = undisturbed.glob("runs/train/*")
    misses = json.loads((home / "misclassified.json").read_text())
    best = min(outcome(undisturbed), key=lambda epoch: epoch["val_loss"])
    assert 1 - misses["n_wrong"] / misses["n_clips"] == pytest.approx(best["val_accuracy"])
    told = EventAccumulator(str(home / "tensorboard"))
    told.Reload()
    curve = {event.step: event.value for event in told.Scalars("val_loss")}
    assert curve == pytest.approx({int(epoch["epoch"]): epoch["val_loss"] for epoch in outcome(undisturbed)})
