"""Validation and checkpoints inside an epoch: the same run, wherever it is cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_fit
import torch
from making import SMALL, tones_folder
from test_fit import CPU, CYCLE, ITERATION11, MIXED, NO_DROPOUT, RESCUED, history_of, job, tensors, untimed

from instrunet.bundle import Bundle
from instrunet.errors import ConfigError
from instrunet.models import ModelSpec
from instrunet.training.fit import Metrics, Save, fit
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER, MISSES_FILE, Progress

STEPS = 3  # of an epoch: 24 clips in batches of 8


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tones_folder(tmp_path_factory.mktemp("tones"))


def run(folder: Path, model: ModelSpec, home: Path, resume: Path | None = None, **other: Any) -> Progress:
    """Train, with a checkpoint after each step and each validation."""

    def report(metrics: Metrics, save: Save) -> None:
        _keep(home / f"val-{int(metrics['step'])}", save)

    return fit(job(folder, model, **other), report, CPU, resume, lambda step, save: _keep(home / f"step-{step}", save))


def _keep(folder: Path, save: Save) -> None:
    if not folder.exists():  # a recovered run takes its steps again
        folder.mkdir(parents=True)
        save(folder)


def same(one: Path, two: Path) -> None:
    assert history_of(one) == history_of(two)
    assert tensors(one) == tensors(two)
    for name in (f"{BUNDLE_FOLDER}/bundle.json", f"{BUNDLE_FOLDER}/weights.safetensors", MISSES_FILE):
        assert (one / name).read_bytes() == (two / name).read_bytes()


CASES: dict[str, tuple[ModelSpec, dict[str, Any]]] = {
    "dropout": (SMALL, {"epochs": 3, "val_every_steps": 2}),
    "batch norm, mean, cycle": (ITERATION11, CYCLE | {"epochs": 2, "val_every_steps": 4}),
    "plateau": (SMALL, {"epochs": 3, "val_every_steps": 1, "learning_rate": 0.1, "plateau_patience": 0}),
    "mixed": (SMALL, MIXED | {"epochs": 2, "accumulate": 3, "schedule": "cosine"}),
    "rescued": (NO_DROPOUT, RESCUED | {"epochs": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_cut_after_any_step_is_the_undisturbed_one(tones: Path, tmp_path: Path, case: str) -> None:
    model, other = CASES[case]
    progress = run(tones, model, tmp_path / "whole", **other)
    last = other["epochs"] * STEPS
    assert progress.step == last and progress.epoch == other["epochs"] - 1
    if case == "rescued":
        assert progress.recoveries > 0
    for step in range(1, last + 1):
        torch.rand(step)
        again = run(tones, model, tmp_path / str(step), tmp_path / "whole" / f"step-{step}", **other)
        assert untimed(again.history) == untimed(progress.history), step
        same(tmp_path / str(step) / f"val-{last}", tmp_path / "whole" / f"val-{last}")


def test_saving_between_steps_changes_nothing(tones: Path, tmp_path: Path) -> None:
    run(tones, ITERATION11, tmp_path / "saved", epochs=2)
    test_fit.run(job(tones, ITERATION11, epochs=2), tmp_path / "plain")
    same(tmp_path / "saved/val-6", tmp_path / "plain/epoch-1")


def test_validations_stand_where_they_were_asked_for(tones: Path, tmp_path: Path) -> None:
    """Every four of nine steps, and always at the end; an epoch is done where its number is whole."""
    history = run(tones, SMALL, tmp_path, epochs=3, val_every_steps=4).history
    assert [m["step"] for m in history] == [4, 8, 9]
    assert [m["epoch"] for m in history] == pytest.approx([1 / 3, 5 / 3, 2])
    spec = TrainSpec(val_every_steps=4)
    assert [spec.tick(m) for m in history] == [4, 8, 9] and TrainSpec().tick(history[-1]) == 2
    best = Bundle.load(tmp_path / "val-9" / BUNDLE_FOLDER).spec.trained
    assert any(best.epoch == m["epoch"] and best.metrics["val_loss"] == m["val_loss"] for m in history)


def test_weights_do_not_hang_on_when_they_are_looked_at(tones: Path, tmp_path: Path) -> None:
    """Without a schedule that listens to validations, nothing of training depends on them."""
    for name, every in (("epochs", {}), ("steps", {"val_every_steps": 2})):
        run(tones, ITERATION11, tmp_path / name, epochs=2, schedule="cosine", **every)
    one, two = (
        test_fit.safetensors.torch.load_file(tmp_path / n / "val-6/state.safetensors") for n in ("epochs", "steps")
    )
    assert all(torch.equal(two[name], value) for name, value in one.items()) and len(one) == len(two)


def test_patience_is_counted_in_epochs(tones: Path, tmp_path: Path) -> None:
    still = {"learning_rate": 1e-30, "on_collapse": "ignore", "epochs": 9, "early_stop_patience": 2}
    history = run(tones, NO_DROPOUT, tmp_path, monitor="val_accuracy", val_every_steps=1, **still).history
    assert [m["step"] for m in history] == list(range(1, 2 + 2 * STEPS))  # the first was the best, and two epochs more


def test_a_checkpoint_before_the_first_validation_has_no_bundle(tones: Path, tmp_path: Path) -> None:
    run(tones, SMALL, tmp_path, epochs=1)
    assert not (tmp_path / "step-1" / BUNDLE_FOLDER).exists() and (tmp_path / "val-3" / BUNDLE_FOLDER).exists()


def test_epochs_and_steps_exclude_each_other() -> None:
    with pytest.raises(ConfigError) as error:
        TrainSpec.parse({"val_every_epochs": 2, "val_every_steps": 100}, "x.yaml")
    assert (
        str(error.value) == "x.yaml: expected val_every_epochs or val_every_steps, got both (2 and 100); leave one out"
    )
