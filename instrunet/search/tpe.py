"""Draws that look at what the earlier ones gave: Optuna's tree-structured Parzen estimator over our space."""

from collections.abc import Mapping
from typing import Any

import optuna

from instrunet.search.space import Drawn, Place, drawn

MOST_AT_RANDOM = 10  # first draws, of which it learns


class Tpe:
    """`ask` under a trial's name, `tell` what came of it; pickled with what it has learnt."""

    def __init__(self, space: Mapping[str, Any], sign: int, samples: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        first = max(2, min(MOST_AT_RANDOM, samples // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)
        self.space = dict(space)
        self.study = optuna.create_study(sampler=sampler, direction="maximize" if sign > 0 else "minimize")
        self.numbers: dict[str, int] = {}

    def ask(self, name: str) -> Drawn:
        trial = self.study.ask()
        self.numbers[name] = trial.number
        return drawn(self.space, _Asked(trial))

    def tell(self, name: str, score: float | None) -> None:
        """None: it failed, which says nothing of its values' score."""
        number = self.numbers.pop(name, None)
        if number is not None:
            state = optuna.trial.TrialState.FAIL if score is None else optuna.trial.TrialState.COMPLETE
            self.study.tell(number, score, state=state)


class _Asked:
    """What draws from a place of the space, in Optuna's words."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def one_of(self, place: Place, n: int) -> int:
        return int(self.trial.suggest_categorical("/".join(place), list(range(n))))

    def number(self, place: Place, low: float, high: float, *, log: bool) -> float:
        return float(self.trial.suggest_float("/".join(place), low, high, log=log))

    def integer(self, place: Place, low: int, high: int) -> int:
        return int(self.trial.suggest_int("/".join(place), low, high))
