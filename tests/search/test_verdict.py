"""What a study says of its trials: the choice, noise, optimism, seeds and importance, on bundles that were trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import FRONT, LABELS, SMALL, clip, draft, features_folder, tone_clips

from instrunet.errors import JobError
from instrunet.experiment import Experiment
from instrunet.metrics.intervals import Interval
from instrunet.search import verdict
from instrunet.search.run import Run
from instrunet.search.summary import choose, ranked, summary
from instrunet.training.fit import Metrics, fit
from instrunet.training.job import Job
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER, Save

METRIC = "val_balanced_accuracy"
SPACE = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    clips = tone_clips(folder / "sound", 24, 18, [[label] for label in LABELS], 0.5)
    tested = [clip(Path(row["uri"]), row["labels"], "test") | {"clip_id": f"t{row['clip_id']}"} for row in clips[24:33]]
    return features_folder(folder, [*clips, *tested])


def trained(features: Path, name: str, epochs: int, **train: Any) -> Run:
    last: list[tuple[Metrics, Save]] = []
    spec = TrainSpec(epochs=epochs, batch_size=8, specaugment=None, monitor=METRIC, on_collapse="ignore", **train)
    progress = fit(
        Job(draft(features, model=SMALL, front=FRONT), spec, features),
        lambda m, save: last.append((m, save)),
        torch.device("cpu"),
    )
    folder = features / f"{name}-checkpoint"
    folder.mkdir()
    last[-1][1](folder)
    fields = {"train.learning_rate": train.get("learning_rate", 1e-3)}
    return Run(name, fields, fields, features, folder / BUNDLE_FOLDER, progress.history, stopped=epochs < 6)


@pytest.fixture(scope="module")
def runs(features: Path) -> list[Run]:
    good = [trained(features, f"good{k}", 6, learning_rate=3e-3 + k * 1e-5) for k in range(2)]
    bad = trained(features, "bad", 1, learning_rate=1e-7)
    failed = Run("failed", {}, {"train.learning_rate": 9.0}, features, reason="ValueError: no")
    return [bad, good[0], failed, good[1]]


def test_the_best_is_of_the_epoch_whose_weights_are_kept(runs: list[Run]) -> None:
    best = ranked(runs, METRIC, 1)[0]
    assert best.trial.startswith("good")
    assert best.score(METRIC) == max(row[METRIC] for row in best.history)
    assert ranked(runs, "val_loss", -1)[-1].trial == "bad"
    assert ranked(runs, METRIC, 1) == ranked(runs[::-1], METRIC, 1)  # whatever order they come in
    with pytest.raises(JobError, match="all 1 trials failed; trials.json says why; the first: ValueError: no"):
        ranked(runs[2:3], METRIC, 1)


def test_a_study_as_data(runs: list[Run]) -> None:
    experiment = Experiment.parse({"tune": {"space": SPACE, "metric": METRIC}}, "x.yaml")
    made, table = summary(choose(runs, {}, METRIC, 1), experiment, most=24)
    rows = {row["trial"]: row for row in table}
    assert (made["n_trials"], made["n_failed"], made["n_stopped"]) == (4, 1, 1)
    assert made["epochs_spent"] == 13 and made["epochs_most"] == 24
    assert rows["failed"]["reason"] == "ValueError: no" and table[-1]["trial"] == "failed"
    low, high = rows["bad"]["behind"][1:]
    assert rows["bad"]["score"] < 0.6 and low > 0 and not rows["bad"]["within_noise"], (low, high)
    assert made["n_within_noise"] == 1  # the other good one
    best = made["best"]
    gap = best["validation"]["value"] - best["test"]["value"]
    assert best["optimism"]["value"] == pytest.approx(gap)
    assert best["test"]["n_groups"] == 9
    json.dumps([made, table], allow_nan=False)


def test_other_seeds_decide_by_their_mean(runs: list[Run]) -> None:
    bad, first, failed, second = runs
    choice = choose(runs, {first.trial: [bad, failed], second.trial: [second]}, METRIC, 1)
    assert choice.best is second and choice.first is second
    experiment = Experiment.parse({"tune": {"space": SPACE, "metric": METRIC}}, "x.yaml")
    seeds = summary(choice, experiment, most=24)[0]["confirmed"]
    assert [one["scores"] for one in seeds] == [[bad.score(METRIC)], [second.score(METRIC)]]


def test_without_a_test_split_nothing_is_claimed(runs: list[Run], tmp_path: Path) -> None:
    folder = tmp_path / "tones"
    features_folder(folder, tone_clips(folder / "sound", 3, 9, [[label] for label in LABELS], 0.5))
    moved = [Run(**(vars(run) | {"features": folder})) for run in runs]
    experiment = Experiment.parse({"tune": {"space": SPACE, "metric": METRIC}}, "x.yaml")
    best = summary(choose(moved, {}, METRIC, 1), experiment, most=24)[0]["best"]
    assert best["test"] is None and best["optimism"] is None


def test_what_mattered_is_found() -> None:
    rng = np.random.default_rng(0)
    told = [{"rate": float(r), "model": m, "of_b": 1.0 if m == "b" else None} for r in rng.random(30) for m in "ab"]
    scores = [one["rate"] + 0.1 * (one["model"] == "b") for one in told]  # type: ignore[operator]
    found = verdict.importance(told, scores)
    assert next(iter(found)) == "rate" and found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert verdict.importance(told[:3], scores[:3]) == {} == verdict.importance(told, [0.5] * 60)


def test_one_group_has_no_limits() -> None:
    assert verdict.limits(Interval(-1, 1, 1)) is None
