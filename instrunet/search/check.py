"""A search space that is wrong is refused before anything starts: its form, its fields and all that they may be."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.search import mutations
from instrunet.search.space import (
    ALL,
    ANYWHERE,
    GROUPS,
    KINDS,
    LISTS,
    RANGES,
    RECIPE,
    Drawn,
    changed,
    corners,
    fields_of,
    grids,
    kind_of,
    options_of,
)
from instrunet.search.spec import SearchSpec
from instrunet.training.validate import SCORES

# They decide what is compared, or where it is written
FIXED = ("data", "split", "task", "audit", "name", "out", "cluster", "tracking", "tune", "max_bad_fraction")


def check(experiment: Experiment) -> None:
    """Every field of the space exists and takes the values it may be given, before any trial is started."""
    search = experiment.tune
    if search is None or not search.space:
        raise ConfigError(f"a search needs tune.space: {{FIELD: {{{'|'.join(RANGES + LISTS)}: [...]}}}}")
    _check_metric(experiment, search)
    _check_form(search.space)
    for name in sorted(fields_of(search.space)):
        if name.split(".")[0] in FIXED:
            raise ConfigError(
                f"tune.space.{name}: {', '.join(FIXED)} cannot be searched, as scores would not be of the same clips; "
                "run one study for each"
            )
    for corner in corners(search.space):
        one = changed(experiment, corner.fields)
        if _heard(one) != _heard(experiment):
            raise ConfigError(
                f"tune.space.{_of_heard(corner)}: what trials begin with cannot be searched, as the bundle says what "
                "it has heard; run one study for each"
            )
    if search.scheduler == "pbt":
        mutations.check(search.space)
        if search.sampler == "tpe":
            raise ConfigError("tune.sampler=tpe and tune.scheduler=pbt both change values; choose one of them")
    if search.sampler == "tpe":
        _check_tpe(search.space)
        if search.scheduler == "hyperband":
            raise ConfigError(
                "tune.scheduler=hyperband compares trials side by side, tune.sampler=tpe draws one after another; "
                "choose tune.scheduler=asha with it"
            )


def _check_metric(experiment: Experiment, search: SearchSpec) -> None:
    kind = experiment.the_task.kind
    measured = ("val_loss", *(f"val_{name}" for name in SCORES[kind]))
    if search.metric not in measured:
        raise ConfigError(
            f"tune.metric={search.metric} is not measured in a task of kind {kind}; expected {', '.join(measured)}"
        )


def _check_tpe(space: Mapping[str, Any]) -> None:
    """It draws each value when earlier trials have ended; features are made before the first begins."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("tune.sampler=tpe needs optuna, which is not installed; run: pip install instrunet[tpe]")
    if len(grids(space)) > 1:
        raise ConfigError("tune.sampler=tpe draws each value, got a grid; write choice for grid, branches for each")
    for name in sorted(fields_of({k: v for k, v in space.items() if k.split(".")[0] not in RECIPE})):
        if name.split(".")[0] in RECIPE:
            raise ConfigError(f"tune.space: tpe searches {name} under its own name alone, not inside {ANYWHERE}")
    for name, said in space.items():
        if name.split(".")[0] in RECIPE and kind_of(said) in RANGES:
            raise ConfigError(f"tune.space.{name}: features are made beforehand, so tpe needs a choice of values here")


def _check_form(space: Mapping[str, Any], above: str = "tune.space", drawn_above: bool = False) -> None:
    for name, said in space.items():
        where, kind = f"{above}.{name}", kind_of(said)
        if kind is None:
            if above == "tune.space":
                raise ConfigError(f"{where}: expected one of {', '.join(KINDS)} with a list, got {said}")
            continue
        _check_values(where, said, kind)
        if kind in ALL and drawn_above:
            raise ConfigError(f"{where}: {kind} cannot stand inside branches, of which one is drawn; write each there")
        for label, group in options_of(said[kind]) if kind in GROUPS else ():
            _check_form(group, f"{where}.{label}", drawn_above or kind == "branches")


def _check_values(where: str, said: Any, kind: str) -> None:
    values = said[kind]
    if not isinstance(values, list | Mapping if kind in GROUPS else list) or not values:
        raise ConfigError(f"{where}: expected one of {', '.join(KINDS)} with a list, got {said}")
    if kind in RANGES:
        _check_range(where, kind, values)
    for group in (values.values() if isinstance(values, Mapping) else values) if kind in GROUPS else ():
        if not isinstance(group, Mapping):
            raise ConfigError(f"{where}: {kind} holds groups of fields, got {group!r}; for plain values use choice")


def _check_range(where: str, kind: str, values: list[Any]) -> None:
    if len(values) != 2:
        raise ConfigError(f"{where}: {kind} takes 2 values (low, high), got {values}")
    number = int if kind == "integers" else int | float
    if not all(isinstance(v, number) and not isinstance(v, bool) for v in values) or values[0] > values[1]:
        what = "whole numbers" if kind == "integers" else "numbers"
        raise ConfigError(f"{where}: {kind} takes two {what}, the lower one first, got {values}")
    if kind == "loguniform" and values[0] <= 0:
        raise ConfigError(f"{where}: loguniform begins above 0, got {values}; use uniform")


def _heard(experiment: Experiment) -> tuple[Any, ...]:
    return experiment.begins_with(), experiment.domain and experiment.domain.target


def _of_heard(corner: Drawn) -> str:
    roots = ("train.init_from", "distill", "domain")
    return next((name for name in corner.fields if name.startswith(roots)), ANYWHERE)
