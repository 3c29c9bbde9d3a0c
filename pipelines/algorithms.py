"""Ray Tune's ways of drawing and stopping, by what a study says; and Optuna's draws in Tune's words."""

import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from instrunet.search import mutations
from instrunet.search.space import Drawn, kind_of
from instrunet.search.spec import SearchSpec
from pipelines.trials import FAILED

DONE = "epochs_done"
TURNS = ("hyperband", "pbt")  # trials pause for one another: all are there at once, and resources say who runs


def scheduler(search: SearchSpec, epochs: int) -> TrialScheduler:
    match search.scheduler:
        case "asha":
            grace = min(search.grace_epochs, epochs)
            return ASHAScheduler(time_attr=DONE, max_t=epochs, grace_period=grace, reduction_factor=search.reduction)
        case "hyperband":
            return HyperBandScheduler(time_attr=DONE, max_t=epochs, reduction_factor=search.reduction)
        case "pbt":
            changes = {name: _mutation(said) for name, said in search.space.items()}
            return PopulationBasedTraining(
                time_attr=DONE,
                perturbation_interval=search.grace_epochs,
                hyperparam_mutations={"one": {"fields": changes}},
                custom_explore_fn=partial(_explored, search.space),
            )
    return FIFOScheduler()


def sampler(search: SearchSpec, ones: Sequence[Drawn], seed: int) -> tuple[Any, dict[str, Any], int]:
    """(search algorithm, what it adds to the parameters, number of samples)"""
    if search.sampler == "tpe":
        searcher = TpeSearch(search, len(ones), seed)
        return tune.search.ConcurrencyLimiter(searcher, search.concurrent), {}, len(ones)
    grid = tune.grid_search([{"fields": one.fields, "told": one.told} for one in ones])
    # Limited, a bracket or a population would be no more than the trials that run at a time: nothing to compare with
    limit = 0 if search.scheduler in TURNS else search.concurrent
    return tune.search.BasicVariantGenerator(max_concurrent=limit), {"one": grid}, 1


class TpeSearch(tune.search.Searcher):
    def __init__(self, search: SearchSpec, samples: int, seed: int) -> None:
        super().__init__(metric=search.metric, mode="max" if search.sign > 0 else "min")
        from instrunet.search.tpe import Tpe  # optuna is an extra

        self.tpe = Tpe(search.space, search.sign, samples, seed)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        one = self.tpe.ask(trial_id)
        return {"one": {"fields": one.fields, "told": one.told}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        known = result and not error and FAILED not in result and self.metric in result
        self.tpe.tell(trial_id, float(result[self.metric]) if known and result else None)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps(self.tpe))

    def restore(self, checkpoint_path: str) -> None:
        self.tpe = pickle.loads(Path(checkpoint_path).read_bytes())


def _mutation(said: Any) -> Any:
    kind = kind_of(said)
    match kind:
        case "uniform":
            return tune.uniform(*said[kind])
        case "loguniform":
            return tune.loguniform(*said[kind])
        case "integers":
            low, high = said[kind]
            return tune.randint(low, high + 1)
    return tune.choice(list(said[kind]))


def _explored(space: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    fields = mutations.within(space, config["one"]["fields"])
    return config | {"one": {"fields": fields, "told": dict(fields)}}
