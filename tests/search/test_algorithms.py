"""Draws that learn from earlier ones, and what a population may change while it learns."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from making import draft, tones_folder

from instrunet.data.parts import read_json
from instrunet.errors import ConfigError
from instrunet.experiment import ClusterSpec, Experiment
from instrunet.search import mutations
from instrunet.search.check import check
from instrunet.search.tpe import Tpe
from instrunet.training.fit import fit
from instrunet.training.job import Job
from instrunet.training.optim import TrainSpec
from instrunet.training.state import STATE_FILE, rescale

SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-1]},
    "model": {
        "branches": [
            {"name": "task8", "dropout": {"uniform": [0.0, 0.5]}},
            {"name": "attentive", "stem": {"integers": [8, 32]}},
        ]
    },
}


def score(one: Any) -> float:
    """Best at a rate of 1e-2 with attentive."""
    import math

    return -abs(math.log10(one.fields["train.learning_rate"]) + 2) - 2 * (one.told["model"] == "task8")


def test_tpe_learns_and_goes_on_from_a_pickle() -> None:
    tpe = Tpe(SPACE, sign=1, samples=60, seed=0)
    scores = []
    for k in range(60):
        one = tpe.ask(f"t{k}")
        assert {"task8": "model.dropout", "attentive": "model.stem"}[one.told["model"]] in one.fields
        scores.append(score(one))
        tpe.tell(f"t{k}", None if k == 5 else scores[-1])
        if k == 30:
            tpe = pickle.loads(pickle.dumps(tpe))
    assert sum(scores[40:]) / 20 > sum(scores[:10]) / 10 + 0.5
    assert max(scores) > -0.2
    tpe.tell("nobody", 1.0)  # of a study that went on: told already


def test_what_may_change_while_it_learns() -> None:
    space = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "train.mixup.alpha": {"choice": [0.1, 0.3]}}
    check(Experiment.parse({"tune": {"space": space, "scheduler": "pbt"}}, "x.yaml"))
    told = r"tune\.space\.train\.epochs: pbt changes values while a network learns, and may change train\.learning_rate"
    with pytest.raises(ConfigError, match=told):
        mutations.check({"train.epochs": {"integers": [1, 3]}})
    with pytest.raises(ConfigError, match="tpe and tune.scheduler=pbt both change values"):
        check(Experiment.parse({"tune": {"space": space, "scheduler": "pbt", "sampler": "tpe"}}, "x.yaml"))
    with pytest.raises(ConfigError, match="hyperband compares trials side by side, tune.sampler=tpe draws one after"):
        check(Experiment.parse({"tune": {"space": space, "scheduler": "hyperband", "sampler": "tpe"}}, "x.yaml"))


def test_a_step_stays_in_its_range() -> None:
    space = {"model.dropout": {"uniform": [0.1, 0.5]}, "train.loss": {"choice": [None]}}
    assert mutations.within(space, {"model.dropout": 0.6, "train.loss": None})["model.dropout"] == 0.5


@pytest.mark.parametrize("schedule", ["plateau", "one_cycle", "cosine"])
def test_a_checkpoint_goes_on_at_another_rate(schedule: str, tmp_path: Path) -> None:
    """As one that had this rate from the start, in all that a schedule remembers."""
    folder = tones_folder(tmp_path / "tones")

    def reached(rate: float, name: str, resume: Path | None = None) -> list[float]:
        seen: list[float] = []
        spec = TrainSpec(epochs=4, batch_size=8, learning_rate=rate, schedule=schedule, on_collapse="ignore")  # type: ignore[arg-type]

        def report(metrics: dict[str, float], save: Any) -> None:
            seen.append(metrics["learning_rate"])
            (tmp_path / name / str(len(seen))).mkdir(parents=True)
            save(tmp_path / name / str(len(seen)))

        fit(Job(draft(folder), spec, folder), report, torch.device("cpu"), resume)
        return seen

    slow = reached(1e-3, "slow")
    begun = tmp_path / "slow/2"
    rescale(begun, 3.0)
    assert reached(3e-3, "quick", begun) == pytest.approx([3 * rate for rate in slow[2:]])
    assert read_json(begun / STATE_FILE)["progress"]["step"] == 6


def test_a_gpu_is_shared_or_whole() -> None:
    """Ray would wait for one and a half without a word."""
    from pipelines import cluster

    with pytest.raises(ConfigError, match=r"a part of one GPU or whole ones, got cluster\.gpus_per_worker=1\.5"):
        cluster.check_fits(ClusterSpec(gpus_per_worker=1.5), 1)
