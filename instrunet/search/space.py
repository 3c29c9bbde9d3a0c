"""A search space as data: a dotted field of the experiment, and what it may be.

FIELD: {choice: [A, B]}                    one of them, drawn;  grid: each of them
FIELD: {uniform|loguniform: [LOW, HIGH]}   a number between;    integers: a whole one, both ends included
FIELD: {branches: [{name: A, ...}, ...]}   one group of fields, drawn, whose fields may be drawn in turn;  each: all
"*":   {branches: {LABEL: {FIELD: ...}}}   the same over fields of the whole experiment; a label for each is short, too
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from instrunet.config import canonical_json, fingerprint, set_path
from instrunet.experiment import Experiment

ANYWHERE = "*"
LISTS, RANGES, GROUPS = ("choice", "grid"), ("uniform", "loguniform", "integers"), ("branches", "each")
KINDS = (*LISTS, *RANGES, *GROUPS)
ALL = ("grid", "each")  # of which every one is tried
RECIPE = ("front", "copies")  # the groups that decide what features are computed
TRIES = 50  # to draw what was not drawn yet
Fields = dict[str, Any]
Place = tuple[str, ...]  # fields and, behind those of groups, the label that was chosen


@dataclass
class Drawn:
    """One configuration: dotted fields of the experiment, and the same as a table tells it, groups by their label."""

    fields: Fields = field(default_factory=dict)
    told: Fields = field(default_factory=dict)


class Picker(Protocol):
    """Who decides."""

    def one_of(self, place: Place, n: int) -> int: ...
    def number(self, place: Place, low: float, high: float, *, log: bool) -> float: ...
    def integer(self, place: Place, low: int, high: int) -> int: ...


@dataclass
class Chance:
    """Draws at random, but for the places that are given."""

    rng: np.random.Generator
    given: Mapping[Place, int]

    def one_of(self, place: Place, n: int) -> int:
        return self.given[place] if place in self.given else int(self.rng.integers(n))

    def number(self, place: Place, low: float, high: float, *, log: bool) -> float:
        del place
        value = np.exp(self.rng.uniform(np.log(low), np.log(high))) if log else self.rng.uniform(low, high)
        return float(min(max(value, low), high))

    def integer(self, place: Place, low: int, high: int) -> int:
        del place
        return int(self.rng.integers(low, high, endpoint=True))


def drawn(space: Mapping[str, Any], pick: Picker) -> Drawn:
    found = Drawn()
    for name, said in space.items():
        _draw((name,), name, said, pick, found)
    return found


def configurations(space: Mapping[str, Any], samples: int, seed: int) -> list[Drawn]:
    """All that a study will try: each combination of its grids, `samples` times with other draws; none twice, as the
    same configuration with the same seed ends the same."""
    found: dict[str, Drawn] = {}
    for k, given in enumerate(grids(space)):
        for number in range(samples):
            for attempt in range(TRIES):
                one = drawn(space, Chance(np.random.default_rng([seed, k, number, attempt]), given))
                if (key := canonical_json(one.fields)) not in found:
                    found[key] = one
                    break
    return list(found.values())


def corners(space: Mapping[str, Any]) -> Iterator[Drawn]:
    """Draws in which every value, and both ends of every range, stand once."""
    left: list[dict[Place, int]] = [{}]
    seen: set[tuple[Place, int]] = set()
    while left:
        corner = _Corner(left.pop())
        yield drawn(space, corner)
        for place, n in corner.visited.items():
            above = {p: k for p, k in corner.given.items() if p == place[: len(p)]}
            new = [k for k in range(n) if (place, k) not in seen]
            seen.update((place, k) for k in new)
            left += [above | {place: k} for k in new if k]


def fields_of(space: Mapping[str, Any]) -> set[str]:
    """Every dotted field that a draw may set."""
    return {name for one in corners(space) for name in one.fields}


def changed(experiment: Experiment, fields: Mapping[str, Any]) -> Experiment:
    """The experiment with some dotted fields set: a group before its fields, and its name before all others."""
    tree = experiment.model_dump(mode="json")
    for name in sorted(fields, key=lambda name: (name.count("."), not name.endswith(".name"), name)):
        set_path(tree, name, fields[name])
    return Experiment.parse(tree, "tune.space")


def every_recipe(space: Mapping[str, Any]) -> list[Drawn]:
    """Each combination of what features are made of, whatever will be drawn."""
    own = {name: _as_grid(said) for name, said in space.items() if name.split(".")[0] in RECIPE}
    return configurations(own, 1, 0) if own else [Drawn()]


def recipe_key(experiment: Experiment) -> str:
    """Of what the features of a configuration are made; configurations with the same one share them."""
    return fingerprint(experiment.model_dump(mode="json", include=set(RECIPE)))


def _as_grid(said: Any) -> Any:
    match kind_of(said):
        case "choice":
            return {"grid": said["choice"]}
        case "branches" | "each" as kind:
            named = {label: {name: _as_grid(v) for name, v in g.items()} for label, g in options_of(said[kind])}
            return {"each": named}
    return said


def _draw(place: Place, name: str, said: Any, pick: Picker, found: Drawn) -> None:
    kind = kind_of(said)
    if kind is None:
        found.fields[name] = said
        return
    values = said[kind]
    if kind in GROUPS:
        label, group = (options := options_of(values))[pick.one_of(place, len(options))]
        found.told[name] = label
        for inner, value in group.items():
            _draw((*place, label, inner), inner if name == ANYWHERE else f"{name}.{inner}", value, pick, found)
        return
    if kind in LISTS:
        value = values[pick.one_of(place, len(values))]
    elif kind == "integers":
        value = pick.integer(place, *values)
    else:
        value = pick.number(place, *values, log=kind == "loguniform")
    found.fields[name] = found.told[name] = value


def kind_of(said: Any) -> str | None:
    """How a value is drawn; None: it is one."""
    if isinstance(said, Mapping) and len(said) == 1:
        (kind,) = said
        return kind if kind in KINDS else None
    return None


def options_of(values: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The groups with their labels: as they are given, or the name of each, with a number where it stands twice."""
    if isinstance(values, Mapping):
        return list(values.items())
    names = [str(group.get("name", k)) for k, group in enumerate(values)]
    labels = [f"{name} {names[:k].count(name) + 1}" if names.count(name) > 1 else name for k, name in enumerate(names)]
    return list(zip(labels, values, strict=True))


def grids(space: Mapping[str, Any], above: Place = ()) -> list[dict[Place, int]]:
    """Each combination of all that every one is tried of."""
    combinations: list[dict[Place, int]] = [{}]
    for name, said in space.items():
        kind, place = kind_of(said), (*above, name)
        if kind not in ALL:
            continue
        if kind == "grid":
            ways: list[dict[Place, int]] = [{place: k} for k in range(len(said[kind]))]
        else:
            options = enumerate(options_of(said[kind]))
            ways = [{place: k} | way for k, (label, group) in options for way in grids(group, (*place, label))]
        combinations = [one | way for one in combinations for way in ways]
    return combinations


@dataclass
class _Corner:
    """The first value and the low end of everything, but for the places that are given."""

    given: dict[Place, int]
    visited: dict[Place, int] = field(default_factory=dict)

    def one_of(self, place: Place, n: int) -> int:
        self.visited[place] = n
        return self.given.get(place, 0)

    def number(self, place: Place, low: float, high: float, *, log: bool) -> float:
        del log
        return (low, high)[self.one_of(place, 2)]

    def integer(self, place: Place, low: int, high: int) -> int:
        return (low, high)[self.one_of(place, 2)]
