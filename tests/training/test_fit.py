"""Training: that it learns, repeats itself, goes on where it was, and is the same with two workers."""

import io
import json
import os
import pickletools
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from making import LABELS, RATE, SMALL, chord, draft, tones_folder

from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.errors import ConfigError, DataError, JobError
from instrunet.features import shards
from instrunet.models import ModelSpec
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec, Task8Spec
from instrunet.training.feed import Feed
from instrunet.training.fit import Job, Metrics, Save, fit
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER as BUNDLE
from instrunet.training.state import MISSES_FILE, SNAPSHOTS, STATE_FILE, TENSORS_FILE, Progress
from instrunet.training.validate import clip_scores, hear

CPU = torch.device("cpu")
CLOCK = {"clips_per_s", "wait_share", "epoch_s"}
TRAIN = TrainSpec(epochs=3, batch_size=8, learning_rate=3e-3, precision="fp32")
ITERATION11 = Iteration11Spec(picture=PictureSpec(size=None))
NO_DROPOUT = Task8Spec(picture=PictureSpec(size=None, colour=False), dropout=0)
PAIRS = [["low"], ["low", "top"], ["middle", "top"], ["middle"]]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_folder(tmp_path_factory.mktemp("tones"))


def train(**other: Any) -> TrainSpec:
    return TrainSpec.model_validate(TRAIN.model_dump() | other)


def run(job: Job, home: Path | None = None, resume: Path | None = None, stop_after: int | None = None) -> Progress:
    """Train; with `home`, save a checkpoint there after each epoch. `stop_after` an epoch, as a kill would."""

    def report(metrics: Metrics, save: Save) -> None:
        epoch = int(metrics["epoch"])
        if home:
            (home / f"epoch-{epoch}").mkdir(parents=True)
            save(home / f"epoch-{epoch}")
        if epoch == stop_after:
            raise KeyboardInterrupt

    return fit(job, report, CPU, resume)


def untimed(history: list[Metrics]) -> list[Metrics]:
    return [{name: value for name, value in metrics.items() if name not in CLOCK} for metrics in history]


def history_of(checkpoint: Path) -> list[Metrics]:
    return untimed(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["progress"]["history"])


def tensors(checkpoint: Path) -> bytes:
    """Latest weights and the optimizer's moments, bit by bit."""
    return (checkpoint / TENSORS_FILE).read_bytes()


def snapshots(checkpoint: Path) -> dict[str, bytes]:
    return {one.name: (one / "weights.safetensors").read_bytes() for one in (checkpoint / SNAPSHOTS).glob("*")}


def last(home: Path) -> Path:
    return max(home.iterdir(), key=lambda p: int(p.name.removeprefix("epoch-")))


def job(folder: Path, model: ModelSpec = SMALL, **other: Any) -> Job:
    return Job(draft(folder, model=model), train(**other), folder)


@pytest.mark.parametrize("model", [SMALL, ITERATION11])
def test_it_learns_to_tell_tones_apart(tones: Path, tmp_path: Path, model: ModelSpec) -> None:
    progress = run(job(tones, model, epochs=6), tmp_path)
    assert progress.history[progress.best_epoch]["val_accuracy"] > 0.9
    assert progress.history[-1]["train_loss"] < 0.5 * progress.history[0]["train_loss"]
    bundle = Bundle.load(tmp_path / "epoch-5" / BUNDLE)
    feed = val_feed(tones, bundle.spec)
    decided = bundle.predict({name: value.float() for name, value in feed.values.items()}).argmax(1)
    assert (decided == feed.targets.argmax(1).numpy()).mean() > 0.9


def test_epochs_are_reported_with_their_figures(tones: Path) -> None:
    seen: list[Metrics] = []
    progress = fit(job(tones), lambda metrics, _: seen.append(metrics), CPU)
    assert seen == progress.history and [m["epoch"] for m in seen] == [0, 1, 2]
    assert set(seen[0]) == CLOCK | {
        *("epoch", "step", "learning_rate", "train_loss", "val_loss", "gradient_norm", "answers", "spread"),
        *("val_accuracy", "val_balanced_accuracy", "val_macro_f1"),
    }
    assert all(0 <= m["wait_share"] <= 1 and m["clips_per_s"] > 0 for m in seen)


def test_validation_is_what_the_bundle_says(tones: Path, tmp_path: Path) -> None:
    """The figures of the best epoch, recomputed from its bundle by other code."""
    progress = run(job(tones, epochs=1), tmp_path)
    bundle = Bundle.load(tmp_path / "epoch-0" / BUNDLE)
    feed = val_feed(tones, bundle.spec)
    scores = bundle.predict({name: value.float() for name, value in feed.values.items()})
    y = feed.targets.argmax(1).numpy()
    assert progress.history[0]["val_loss"] == pytest.approx(-np.log(scores[range(len(y)), y]).mean(), rel=1e-4)
    assert progress.history[0]["val_accuracy"] == pytest.approx((scores.argmax(1) == y).mean())
    assert bundle.spec.trained.metrics == {k: v for k, v in progress.history[0].items() if k.startswith("val_")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits(tones: Path, tmp_path: Path, precision: str) -> None:
    for name in ("one", "two"):
        torch.rand(7)  # what was drawn before must not matter
        run(job(tones, precision=precision, epochs=2), tmp_path / name)
    one, two = tmp_path / "one" / "epoch-1", tmp_path / "two" / "epoch-1"
    assert tensors(one) == tensors(two) and history_of(one) == history_of(two)
    assert (one / BUNDLE / "bundle.json").read_bytes() == (two / BUNDLE / "bundle.json").read_bytes()


def test_another_seed_gives_other_weights(tones: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        run(job(tones, seed=seed, epochs=1), tmp_path / str(seed))
    assert tensors(tmp_path / "0" / "epoch-0") != tensors(tmp_path / "1" / "epoch-0")
    assert history_of(tmp_path / "0" / "epoch-0") != history_of(tmp_path / "1" / "epoch-0")


# A learning rate that is too high makes the loss rise after some epochs, and the schedule step down
HIGH = {"learning_rate": 0.1, "plateau_patience": 0, "epochs": 8, "on_collapse": "ignore"}
CYCLE = {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "one_cycle", "ema": 0.99, "clip_norm": 1.0}
WAVE = {"optimizer": "sgd", "learning_rate": 0.01, "schedule": "cosine", "weight_decay": 1e-4}
MIXED = {
    "mixup": {},
    "roll": {},
    "crop": {},
    "sampling": "balanced",
    "loss": {"name": "cross_entropy", "smoothing": 0.1},
}
RESCUED = {"optimizer": "sgd", "learning_rate": 50.0, "on_collapse": "recover", "max_recoveries": 9, "ema": 0.9}
RESUMED: dict[str, tuple[ModelSpec, dict[str, Any]]] = {
    "task8": (SMALL, {"epochs": 4}),
    "iteration11": (ITERATION11, {"epochs": 4}),
    "bf16": (ITERATION11, {"epochs": 4, "precision": "bf16"}),
    "plateau": (SMALL, HIGH),
    "cycle": (ITERATION11, CYCLE | {"epochs": 4}),
    "wave": (SMALL, WAVE | {"epochs": 5, "val_every_epochs": 2}),
    "mixed": (SMALL, MIXED | {"epochs": 4, "accumulate": 3}),
    "rescued": (NO_DROPOUT, RESCUED | {"epochs": 5}),
    "cycles": (SMALL, {"schedule": "cosine", "cycles": 3, "epochs": 6}),
}


@pytest.mark.parametrize(
    ("case", "stop_after"),
    [
        *(("task8", 0), ("task8", 2), ("iteration11", 1), ("bf16", 1), ("plateau", 1), ("plateau", 5), ("plateau", 6)),
        *(("cycle", 0), ("cycle", 2), ("wave", 1), ("wave", 3), ("mixed", 1), ("rescued", 0), ("rescued", 2)),
        *(("cycles", 0), ("cycles", 3)),
    ],
)
def test_a_resumed_run_is_the_undisturbed_one(tones: Path, tmp_path: Path, case: str, stop_after: int) -> None:
    model, other = RESUMED[case]
    whole = job(tones, model, **other)
    run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(whole, tmp_path / "cut", stop_after=stop_after)
    torch.rand(3)
    progress = run(whole, tmp_path / "rest", resume=tmp_path / "cut" / f"epoch-{stop_after}")
    undisturbed, resumed = last(tmp_path / "whole"), last(tmp_path / "rest")
    assert not (tmp_path / "rest" / f"epoch-{stop_after}").exists()
    assert history_of(resumed) == history_of(undisturbed) == untimed(progress.history)
    assert tensors(resumed) == tensors(undisturbed)
    for name in (f"{BUNDLE}/bundle.json", f"{BUNDLE}/weights.safetensors", MISSES_FILE):
        assert (resumed / name).read_bytes() == (undisturbed / name).read_bytes()
    assert snapshots(resumed) == snapshots(undisturbed) and len(snapshots(resumed)) == (3 if case == "cycles" else 0)
    if case == "plateau":
        rates = [metrics["learning_rate"] for metrics in progress.history]
        assert rates[0] == rates[1] and rates[5] < rates[4]  # it fell before the later stops, after the first
    if case == "rescued":
        assert progress.history[-1]["recoveries"] > 0


def test_a_finished_run_is_not_trained_further(tones: Path, tmp_path: Path) -> None:
    done = run(job(tones, epochs=2), tmp_path)
    again = run(job(tones, epochs=2), tmp_path / "again", resume=tmp_path / "epoch-1")
    assert again.history == done.history and not (tmp_path / "again").exists()


def test_the_learning_rate_falls_when_the_loss_does_not(tones: Path) -> None:
    progress = run(job(tones, learning_rate=1e-7, epochs=6, plateau_patience=1, plateau_factor=0.1))
    assert [m["learning_rate"] for m in progress.history] == pytest.approx([1e-7] * 3 + [1e-8] * 3)


def test_training_stops_early(tones: Path, tmp_path: Path) -> None:
    high = HIGH | {"epochs": 50, "early_stop_patience": 2, "monitor": "val_accuracy"}
    progress = run(job(tones, **high), tmp_path)
    assert len(progress.history) < 50
    assert len(progress.history) == progress.best_epoch + 1 + 2


def test_the_last_weights_are_kept_where_that_is_asked_for(tones: Path, tmp_path: Path) -> None:
    progress = run(job(tones, learning_rate=0.03, epochs=6, keep="last", early_stop_patience=1), tmp_path)
    assert len(progress.history) == 6 and progress.best_epoch == 5
    assert Bundle.load(tmp_path / "epoch-5" / BUNDLE).spec.trained.epoch == 5


ALL = {"keep": "last", "schedule": "one_cycle", "early_stop_patience": 1}


def test_all_clips_may_train_and_no_figure_of_the_bundle_is_of_clips_that_it_learnt(tmp_path: Path) -> None:
    folder = tones_folder(tmp_path / "all", n_val=0)
    progress = run(job(folder, **ALL), tmp_path)
    assert [m["learnt_accuracy"] for m in progress.history][-1] > 0.9 and progress.best_epoch == 2
    kept = Bundle.load(tmp_path / "epoch-2" / BUNDLE).spec.trained
    assert kept.epoch == 2 and kept.metrics == {}
    assert json.loads((tmp_path / "epoch-2" / MISSES_FILE).read_text())["tried_on"] == "learnt"


def test_what_all_train_for_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    folder = tones_folder(tmp_path / "all", n_val=0)
    whole = run(job(folder, **ALL), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(job(folder, **ALL), tmp_path / "cut", stop_after=0)
    again = run(job(folder, **ALL), tmp_path / "again", resume=tmp_path / "cut/epoch-0")
    assert [m["train_loss"] for m in again.history] == [m["train_loss"] for m in whole.history]
    one, other = (tmp_path / home / "epoch-2" / BUNDLE / "weights.safetensors" for home in ("whole", "again"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("choosing", [{}, {"keep": "last"}, {"schedule": "cosine"}])
def test_what_chooses_needs_clips_to_choose_by(tmp_path: Path, choosing: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the val split holds no clip"):
        run(job(tones_folder(tmp_path, n_val=0), **choosing))


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_the_bundle_is_that_of_the_best_epoch(tones: Path, tmp_path: Path, monitor: str) -> None:
    # A high learning rate makes the figures go up and down, so that the best epoch is not the last
    progress = run(job(tones, learning_rate=0.03, epochs=6, monitor=monitor), tmp_path)
    figures = [metrics[monitor] for metrics in progress.history]
    best = int(np.argmin(figures) if monitor == "val_loss" else np.argmax(figures))
    assert progress.best_epoch == best < 5
    last = Bundle.load(tmp_path / "epoch-5" / BUNDLE)
    assert last.spec.trained.epoch == best
    assert last.spec.trained.metrics[monitor] == figures[best]
    then = safetensors.torch.load_file(tmp_path / f"epoch-{best}" / TENSORS_FILE)
    latest = safetensors.torch.load_file(tmp_path / "epoch-5" / TENSORS_FILE)
    name = "body.head.1.weight"
    assert torch.equal(last.network.state_dict()[name], then[f"network.{name}"])
    assert not torch.equal(last.network.state_dict()[name], latest[f"network.{name}"])


def test_class_weights_move_the_result(tones: Path, tmp_path: Path) -> None:
    uneven = tones_folder(tmp_path / "uneven", labels=[["low"], ["low"], ["low"], ["middle"], ["top"]])
    losses = [run(job(uneven, epochs=1, class_weights=w)).history[0]["train_loss"] for w in ("none", "inverse")]
    assert losses[0] != losses[1]


def test_augmentation_is_used_in_training(tones: Path) -> None:
    losses = [run(job(tones, epochs=1, **other)).history[0]["train_loss"] for other in ({}, {"specaugment": None})]
    assert losses[0] != losses[1]


def test_a_loss_that_is_no_number_fails_the_job(tones: Path) -> None:
    with pytest.raises(JobError) as error:
        run(job(tones, NO_DROPOUT, learning_rate=1e30))
    assert str(error.value) == (
        "the training loss is nan in epoch 0; expected a finite number: lower train.learning_rate "
        "(now 1e+30) or set train.precision=fp32"
    )


def test_answers_that_are_no_numbers_fail_the_job(tones: Path) -> None:
    """One step an epoch: the loss is taken before the step that ruins the weights."""
    with pytest.raises(
        JobError, match="answers to the validation split are not finite numbers after this epoch: lower"
    ):
        run(job(tones, NO_DROPOUT, learning_rate=3e37, batch_size=24))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_folder(tmp_path_factory.mktemp("pairs"), n_train=32, n_val=8, labels=PAIRS)


@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_several_labels_a_clip(pairs: Path, tmp_path: Path, weights: str) -> None:
    spec = train(epochs=12, monitor="val_micro_f1", class_weights=weights, early_stop_patience=12)
    progress = run(Job(draft(pairs, kind="multi"), spec, pairs), tmp_path)
    best = progress.history[progress.best_epoch]
    assert {"val_micro_f1", "val_macro_f1", "val_lrap", "val_loss"} <= set(best) and "val_accuracy" not in best
    assert best["val_micro_f1"] > 0.9 and best["val_lrap"] > 0.9
    bundle = Bundle.load(tmp_path / "epoch-11" / BUNDLE)
    assert bundle(pairs / "sound" / "clip001.wav").labels == ["low", "top"]


def test_a_figure_that_is_not_measured_cannot_be_watched(pairs: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(Job(draft(pairs, kind="multi"), train(monitor="val_accuracy"), pairs))
    assert str(error.value) == (
        "train.monitor=val_accuracy is not measured in a task of kind multi; "
        "expected val_loss, val_micro_f1, val_macro_f1, val_lrap"
    )


def test_without_a_validation_split_nothing_is_trained(tmp_path: Path) -> None:
    folder = tones_folder(tmp_path, n_train=3, n_val=0)
    with pytest.raises(DataError, match="the val split holds no clip"):
        run(job(folder))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_does_not_fit_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed: input should be"):
        TrainSpec.parse({"seed": seed}, "x.yaml")


def test_windows_of_a_clip_vote_together(tmp_path: Path) -> None:
    folder = tones_folder(tmp_path, n_train=3, n_val=3, seconds=1.5)  # three windows a clip
    spec = draft(folder)
    feed = val_feed(folder, spec)
    assert feed.n == 9
    logits = np.tile(np.log([0.2, 0.3, 0.5]), (9, 1)).astype(np.float32)
    for first in (0, 3, 6):  # two windows lean to a wrong label, the third is so sure that the mean is right
        right = int(feed.targets[first].argmax())
        logits[first] = np.log([0.98 if k == right else 0.01 for k in range(3)])
        logits[first + 1 : first + 3] = np.log(
            [0.4 if k == right else 0.6 if k == (right + 1) % 3 else 0.001 for k in range(3)]
        )
    assert clip_scores(hear(logits, feed, spec))["accuracy"] == 1.0
    assert (logits.argmax(1) == feed.targets.argmax(1).numpy()).mean() == pytest.approx(1 / 3)


def opcodes(content: bytes) -> bool:
    """Does a pickle begin anywhere in these bytes?"""
    for at in range(len(content)):
        if content[at : at + 1] == b"\x80" and content[at + 1 : at + 2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            try:
                if sum(1 for _ in pickletools.genops(io.BytesIO(content[at:]))) > 3:
                    return True
            except Exception:  # noqa: BLE001, S112  # not a pickle, then
                continue
    return False


def test_a_checkpoint_holds_no_pickle(tones: Path, tmp_path: Path) -> None:
    run(job(tones, epochs=1), tmp_path)
    files = {str(p.relative_to(tmp_path / "epoch-0")) for p in (tmp_path / "epoch-0").rglob("*") if p.is_file()}
    assert files == {STATE_FILE, TENSORS_FILE, MISSES_FILE, f"{BUNDLE}/bundle.json", f"{BUNDLE}/weights.safetensors"}
    for name in files:
        content = (tmp_path / "epoch-0" / name).read_bytes()
        assert b"PK\x03\x04" not in content[:4] and b"ctorch" not in content and not opcodes(content), name
        if name.endswith(".json"):
            json.loads(content)
        else:
            assert safetensors.torch.load(content)
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved, _use_new_zipfile_serialization=False)
    assert opcodes(saved.getvalue())  # the test would see one
    assert Bundle.load(tmp_path / "epoch-0" / BUNDLE).spec.labels == LABELS


ODD = 7  # rows of a batch: 4 for one worker, 3 for the other
TOGETHER: dict[str, tuple[ModelSpec, dict[str, Any]]] = {
    "task8": (SMALL, {"epochs": 3}),
    "iteration11": (ITERATION11, {"epochs": 2, "plateau_patience": 0}),
    "plain": (NO_DROPOUT, {"epochs": 2, "batch_size": ODD, "learning_rate": 1e-3}),
    "few": (NO_DROPOUT, {"epochs": 2, "batch_size": 64}),
    "parts": (NO_DROPOUT, {"epochs": 2, "batch_size": ODD, "accumulate": 3, "learning_rate": 1e-3, "clip_norm": 1.0}),
    "mean": (ITERATION11, {"epochs": 2, "ema": 0.9, "schedule": "one_cycle", "sampling": "balanced"}),
}


def worker(rank: int, world: int, home: Path, folders: dict[str, Path]) -> None:
    """One rank: every case after the other, its history and weights left in files."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{home}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=600)
    )
    for name, (model, other) in TOGETHER.items():
        run(job(folders[name], model, **other), home / name / str(rank))
    try:
        run(job(folders["few"], batch_size=1))
    except ConfigError as error:
        (home / f"refused-{rank}").write_text(str(error), encoding="utf-8")
    try:
        run(job(folders["plain"], NO_DROPOUT, learning_rate=1e30))
    except JobError as error:
        (home / f"failed-{rank}").write_text(str(error), encoding="utf-8")
    dist.destroy_process_group()
    os._exit(0)  # a thread of gloo's aborted the interpreter's own end once in twenty whole runs


@pytest.fixture(scope="module")
def together(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("together")
    few = tones_folder(home / "few-tones", n_train=3, n_val=1)
    folders = dict.fromkeys(TOGETHER, tones) | {"few": few}
    torch.multiprocessing.spawn(worker, (2, home, folders), nprocs=2)
    for name, (model, other) in TOGETHER.items():
        run(job(folders[name], model, **other), home / name / "alone")
    return home


@pytest.mark.parametrize("case", TOGETHER)
def test_two_workers_end_alike(together: Path, case: str) -> None:
    """Weights, batch norm's running means and the optimizer's moments, to the bit; every figure but the clock's."""
    ours, theirs = last(together / case / "0"), last(together / case / "1")
    assert tensors(ours) == tensors(theirs)
    assert history_of(ours) == history_of(theirs)
    assert len(history_of(ours)) == TOGETHER[case][1]["epochs"]
    assert (ours / BUNDLE / "weights.safetensors").read_bytes() == (
        theirs / BUNDLE / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("case", ["plain", "few", "parts"])
def test_two_workers_learn_what_one_learns(together: Path, case: str) -> None:
    """Without dropout, and though a batch of 7 rows is shared unevenly."""
    one, two = last(together / case / "alone"), last(together / case / "0")
    for alone, shared in zip(history_of(one), history_of(two), strict=True):
        assert shared == pytest.approx(alone, rel=2e-3)
    alone_weights, shared_weights = (safetensors.torch.load_file(at / TENSORS_FILE) for at in (one, two))
    for name, value in alone_weights.items():
        torch.testing.assert_close(
            shared_weights[name], value, rtol=0, atol=1e-3, msg=lambda t, name=name: f"{name}: {t}"
        )


def test_two_workers_validate_the_model_that_is_saved(together: Path, tones: Path) -> None:
    """Batch norm's running means included: DDP leaves each worker with its own after the last step."""
    checkpoint = last(together / "iteration11" / "0")
    bundle = Bundle.load(checkpoint / BUNDLE)
    feed = val_feed(tones, bundle.spec)
    scores = bundle.predict({name: value.float() for name, value in feed.values.items()})
    y = feed.targets.argmax(1).numpy()
    told = history_of(checkpoint)[bundle.spec.trained.epoch]["val_loss"]
    assert told == pytest.approx(-np.log(scores[range(len(y)), y]).mean(), rel=1e-4)


def test_two_workers_cannot_share_one_row(together: Path) -> None:
    for rank in (0, 1):
        assert (together / f"refused-{rank}").read_text(encoding="utf-8") == (
            "train.batch_size=1 cannot be shared by 2 workers; raise it to 2 or more, or lower cluster.workers"
        )


def test_a_loss_that_is_no_number_ends_every_worker(together: Path) -> None:
    assert all("the training loss is nan" in (together / f"failed-{rank}").read_text() for rank in (0, 1))


def val_feed(folder: Path, spec: BundleSpec) -> Feed:
    return Feed(shards.load(folder, spec.front, "val"), spec.labels, "val")


def weights_after(home: Path) -> dict[str, torch.Tensor]:
    found = safetensors.torch.load_file(last(home) / TENSORS_FILE)
    return {name: value for name, value in found.items() if name.startswith("network.")}


def test_a_batch_in_parts_is_the_batch(tones: Path, tmp_path: Path) -> None:
    """Without batch norm; 7 rows in 3 parts are 2, 2 and 3 of them."""
    for parts in (1, 3):
        spec = {"epochs": 2, "accumulate": parts, "batch_size": ODD, "clip_norm": 0.5, "mixup": {}}
        progress = run(job(tones, NO_DROPOUT, optimizer="sgd", **spec), tmp_path / str(parts))
        assert progress.history[-1]["clips_per_s"] > 0 and 0 <= progress.history[-1]["wait_share"] <= 1
    one, three = weights_after(tmp_path / "1"), weights_after(tmp_path / "3")
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-4, atol=1e-5)


def test_parts_that_would_be_empty_are_refused(tones: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(job(tones, accumulate=9))
    assert str(error.value) == (
        "train.batch_size=8 cannot be shared by 1 workers in 9 parts each; raise it to 9 or more, "
        "or lower cluster.workers or train.accumulate"
    )


def rates(folder: Path, **other: Any) -> list[float]:
    return [m["learning_rate"] for m in run(job(folder, NO_DROPOUT, on_collapse="ignore", **other)).history]


def test_schedules_go_where_they_say(tones: Path) -> None:
    """24 clips in batches of 8: 3 steps an epoch. The figure is the rate after an epoch's last step."""
    assert rates(tones, epochs=3, schedule="constant") == [3e-3] * 3
    half = [3e-3 * 0.5 * (1 + np.cos(np.pi * k / 4)) for k in range(1, 5)]
    assert rates(tones, epochs=4, schedule="cosine", warmup_share=0) == pytest.approx(half)
    warm = rates(tones, epochs=4, schedule="cosine", warmup_share=0.5)
    assert warm[0] == pytest.approx(3e-3 * 4 / 7) and warm[1] == 3e-3 and warm[3] == 0
    cycle = rates(tones, epochs=10, schedule="one_cycle", early_stop_patience=10)
    assert np.argmax(cycle) == 2 and cycle[2] > 0.99 * 3e-3 and cycle[-1] == pytest.approx(3e-3 / 25e4, rel=0.01)


def test_each_cycle_ends_at_nothing_and_leaves_a_snapshot(tones: Path, tmp_path: Path) -> None:
    """24 clips in batches of 8: two epochs a cycle are 6 steps; nothing stops before the last."""
    spec = job(tones, epochs=6, schedule="cosine", cycles=3, warmup_share=0, early_stop_patience=1)
    progress = run(spec, tmp_path)
    assert [m["learning_rate"] for m in progress.history] == pytest.approx([1.5e-3, 3e-3] * 2 + [1.5e-3, 0])
    made = [Bundle.load(tmp_path / "epoch-5" / SNAPSHOTS / f"cycle-{k}") for k in (1, 2, 3)]
    assert [one.spec.trained.epoch for one in made] == [1, 3, 5]
    assert made[1].spec.trained.metrics["val_loss"] == progress.history[3]["val_loss"]
    assert made[1].network.state_dict().keys() == made[0].network.state_dict().keys()
    assert len({one.fingerprint for one in made}) == 3
    at_two = [path.name for path in (tmp_path / "epoch-2" / SNAPSHOTS).iterdir()]
    assert at_two == ["cycle-1"] and not (tmp_path / "epoch-0" / SNAPSHOTS).exists()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"schedule": "one_cycle"}, "cycles belong to schedule=cosine; got schedule=one_cycle"),
        ({"epochs": 5}, "expected epochs a multiple of 2 and no val_every_steps, got 5 epochs"),
        ({"epochs": 6, "val_every_epochs": 2}, "expected epochs a multiple of 4"),
        ({"val_every_steps": 3}, "val_every_steps=3"),
        ({"warmup_share": 0.5}, "the warm-up is 0.5 of all steps, a cycle 0.5"),
    ],
)
def test_cycles_that_do_not_end_at_a_validation_are_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainSpec.parse({"epochs": 4, "schedule": "cosine", "cycles": 2} | told, "x.yaml")


def test_a_warm_up_without_a_schedule_of_its_own_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="warmup_share belongs to the schedules cosine and one_cycle; got schedule=pl"
    ):
        TrainSpec.parse({"warmup_share": 0.1}, "x.yaml")


def test_clipping_bounds_the_step(tones: Path, tmp_path: Path) -> None:
    """Plain gradient descent by one step: the weights move by the rate times the bound."""
    spec = {"epochs": 1, "batch_size": 24, "optimizer": "sgd", "learning_rate": 1.0, "on_collapse": "ignore"}
    for bound in (1e-3, 2e-3):
        run(job(tones, NO_DROPOUT, clip_norm=bound, **spec), tmp_path / str(bound))
    run(job(tones, NO_DROPOUT, **spec | {"learning_rate": 1e-30}), tmp_path / "still")
    still = weights_after(tmp_path / "still")
    for bound in (1e-3, 2e-3):
        moved = [(v - still[name]).square().sum() for name, v in weights_after(tmp_path / str(bound)).items()]
        assert float(torch.stack(moved).sum().sqrt()) == pytest.approx(bound, rel=1e-3)


def test_the_mean_of_the_weights_is_what_is_validated_and_kept(tones: Path, tmp_path: Path) -> None:
    run(job(tones, ITERATION11, epochs=4, ema=0.9), tmp_path)
    found = safetensors.torch.load_file(tmp_path / "epoch-3" / TENSORS_FILE)
    bundle = Bundle.load(tmp_path / "epoch-3" / BUNDLE)
    state = bundle.network.state_dict()
    kept = safetensors.torch.load_file(tmp_path / f"epoch-{bundle.spec.trained.epoch}" / TENSORS_FILE)
    running = [name for name in state if name.endswith("running_mean")]
    assert running and all(not torch.equal(found[f"average.{n}"], found[f"network.{n}"]) for n in running)
    for name, value in state.items():
        torch.testing.assert_close(value, kept[f"average.{name}"], rtol=0, atol=0)
    scores = bundle.predict({n: v.float() for n, v in val_feed(tones, bundle.spec).values.items()})
    y = val_feed(tones, bundle.spec).targets.argmax(1).numpy()
    told = bundle.spec.trained.metrics["val_loss"]
    assert told == pytest.approx(-np.log(scores[range(len(y)), y]).mean(), rel=1e-4)


def test_every_other_epoch_is_validated_and_always_the_last(tones: Path) -> None:
    assert [m["epoch"] for m in run(job(tones, epochs=5, val_every_epochs=2)).history] == [1, 3, 4]


def test_mistakes_are_kept_worst_first(tones: Path, tmp_path: Path) -> None:
    progress = run(job(tones, epochs=1, learning_rate=1e-6), tmp_path)
    told = json.loads((tmp_path / "epoch-0" / MISSES_FILE).read_text(encoding="utf-8"))
    assert told["n_clips"] == 9
    assert 1 - told["n_wrong"] / 9 == pytest.approx(progress.history[0]["val_accuracy"])
    assert len(told["clips"]) == told["n_wrong"] > 0 and told["tried_on"] == "val"
    scores = [clip["score"] for clip in told["clips"]]
    assert scores == sorted(scores, reverse=True)
    for clip in told["clips"]:
        assert set(clip) == {"clip_id", "uri", "truth", "predicted", "score"}
        assert clip["truth"] != clip["predicted"] and Path(clip["uri"]).stem == clip["clip_id"]


def test_sounds_mixed_with_one_another_teach_many_labels(tones: Path, tmp_path: Path) -> None:
    """One label a clip in training; two tones at once are heard as two, which without mixing they are not."""
    heard = {}
    for name, mixed in (("plain", {}), ("mixed", {"polymix": {"partners": 1, "level_db": (-3, 3)}})):
        spec = train(epochs=16, monitor="val_micro_f1", early_stop_patience=16, **mixed)
        run(Job(draft(tones, kind="multi"), spec, tones), tmp_path / name)
        bundle = Bundle.load(last(tmp_path / name) / BUNDLE)
        sounds = [chord(labels, 0.5, 100 + k) for k, labels in enumerate((["low", "top"], ["low", "middle"]) * 3)]
        heard[name] = sum(len(bundle(sound, sample_rate=RATE).labels) for sound in sounds)
    assert heard["mixed"] > heard["plain"] and heard["mixed"] >= 10


def test_mixing_labels_needs_a_task_that_may_have_many(tones: Path) -> None:
    with pytest.raises(ConfigError, match="polymix gives a clip several labels, and the task is of kind single"):
        run(job(tones, polymix={}))


@pytest.mark.parametrize("effect", ["mixup", "roll", "crop"])
def test_each_effect_reaches_the_step(tones: Path, effect: str) -> None:
    plain, changed = (run(job(tones, epochs=1, **other)).history[0]["train_loss"] for other in ({}, {effect: {}}))
    assert plain != changed
