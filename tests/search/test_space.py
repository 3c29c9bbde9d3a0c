"""A search space: what is drawn from it, what of it is tried, and what is refused before anything starts."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from instrunet import experiment
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.search.check import check
from instrunet.search.space import changed, configurations, corners, every_recipe, fields_of, recipe_key

MODELS = {
    "branches": [
        {"name": "task8", "dropout": {"uniform": [0.1, 0.3]}, "picture": {"size": 32, "colour": False}},
        {"name": "attentive", "stem": {"choice": [8, 16]}},
    ]
}
STUDIES = sorted((ROOT / "configs/tune").glob("*.yaml"))


def study(space: dict[str, Any], **more: Any) -> Experiment:
    return Experiment.parse({"tune": {"space": space, **more}}, "x.yaml")


def test_ranges_hold_and_a_seed_says_all() -> None:
    space = {
        "train.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "train.epochs": {"integers": [1, 3]},
        "model.dropout": {"uniform": [0.1, 0.2]},
    }
    found = configurations(space, 200, seed=1)
    rates = [one.fields["train.learning_rate"] for one in found]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    assert 70 < sum(rate < 1e-3 for rate in rates) < 130  # half of the decades
    assert Counter(one.fields["train.epochs"] for one in found).keys() == {1, 2, 3}
    assert found[:3] == configurations(space, 3, seed=1)  # a longer study begins as the shorter one
    assert found[:3] != configurations(space, 3, seed=2)


def test_a_branch_brings_its_own_fields_alone() -> None:
    found = configurations({"model": MODELS}, 40, seed=0)
    for one in found:
        spec = changed(Experiment(), one.fields).model
        assert one.told["model"] == spec.name
        own = {"task8": {"model.name", "model.dropout", "model.picture"}, "attentive": {"model.name", "model.stem"}}
        assert set(one.fields) == own[spec.name]
    assert {one.told["model"] for one in found} == {"task8", "attentive"}
    assert sum(one.told["model"] == "attentive" for one in found) == 2  # two values: none is tried twice


def test_a_grid_is_tried_whole_and_once() -> None:
    space = {"train.seed": {"grid": [1, 2, 3]}, "train.optimizer": {"grid": ["adam", "sgd"]}}
    assert len(configurations(space, 5, seed=0)) == 6
    rates = space | {"train.learning_rate": {"uniform": [1e-3, 1e-2]}}
    assert len(configurations(rates, 5, seed=0)) == 30


def test_an_ablation_over_the_whole_experiment() -> None:
    space = {
        "*": {"each": {"all": {}, "no masks": {"train.specaugment": None}, "mixed": {"train.mixup": {"alpha": 0.4}}}}
    }
    made = {one.told["*"]: changed(Experiment(), one.fields).train for one in configurations(space, 1, seed=0)}
    assert made["all"] == Experiment().train
    assert made["no masks"].specaugment is None
    assert made["mixed"].mixup and made["mixed"].mixup.alpha == 0.4


def test_each_holds_grids_of_its_own() -> None:
    space = {"model": {"each": [{"name": "task8", "dropout": {"grid": [0.1, 0.2]}}, {"name": "attentive"}]}}
    found = [one.told for one in configurations(space, 3, seed=0)]
    assert found == [
        {"model": "task8", "model.dropout": 0.1},
        {"model": "task8", "model.dropout": 0.2},
        {"model": "attentive"},
    ]


def test_corners_hold_every_value_and_both_ends() -> None:
    space = {"model": MODELS, "train.learning_rate": {"uniform": [1e-3, 1e-2]}, "train.seed": {"choice": [5, 6, 7]}}
    values: dict[str, set[Any]] = {}
    for one in corners(space):
        for name, value in one.told.items():
            values.setdefault(name, set()).add(value)
    assert values == {
        "model": {"task8", "attentive"},
        "model.dropout": {0.1, 0.3},
        "model.stem": {8, 16},
        "train.learning_rate": {1e-3, 1e-2},
        "train.seed": {5, 6, 7},
    }


def test_the_front_end_is_searched_and_features_are_shared() -> None:
    space = {
        "front.features.0.n_mels": {"choice": [40, 64]},
        "copies": {"choice": [0, 1]},
        "train.learning_rate": {"loguniform": [1e-4, 1e-2]},
    }
    spec = study(space, samples=20)
    check(spec)
    keys = {recipe_key(changed(spec, one.fields)) for one in configurations(space, 20, seed=0)}
    assert len(keys) == 4
    assert {recipe_key(changed(spec, one.fields)) for one in every_recipe(space)} == keys


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "a search needs tune.space"),
        ({"train.learning_rat": {"choice": [1]}}, "unknown field train.learning_rat; did you mean learning_rate?"),
        ({"model": {"branches": [{"name": "task9"}]}}, "unknown model 'task9'; did you mean task8?"),
        (
            {"model": {"branches": [{"name": "attentive", "dropot": {"uniform": [0.1, 0.2]}}]}},
            "unknown field model.dropot; did you mean dropout?",
        ),
        ({"train.epochs": {"choise": [1]}}, r"train\.epochs: expected one of choice, grid"),
        ({"train.epochs": {"choice": 3}}, r"train\.epochs: expected one of choice, grid"),
        ({"train.epochs": {"choice": [3, 0]}}, r"train\.epochs: input should be greater than 0, got 0"),
        ({"train.epochs": {"integers": [1, 2.5]}}, "integers takes two whole numbers"),
        ({"train.epochs": {"integers": [3, 1]}}, r"the lower one first, got \[3, 1\]"),
        ({"train.learning_rate": {"loguniform": [0, 1]}}, "loguniform begins above 0"),
        ({"train.learning_rate": {"uniform": [1]}}, r"uniform takes 2 values \(low, high\)"),
        ({"data.root": {"choice": ["a"]}}, r"data\.root: data, .* cannot be searched"),
        ({"cluster.workers": {"choice": [1]}}, r"cluster\.workers: .* cannot be searched"),
        ({"*": {"branches": {"a": {"split.val": 0.1}}}}, r"split\.val: .* cannot be searched"),
        ({"model": {"branches": [{"name": "task8", "dropout": {"grid": [0.1]}}]}}, "grid cannot stand inside branches"),
        ({"model": {"branches": ["task8"]}}, "holds groups of fields, got 'task8'; for plain values use choice"),
    ],
)
def test_what_is_refused(space: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(study(space))


def test_the_figure_is_one_of_the_task() -> None:
    with pytest.raises(ConfigError, match=r"tune\.metric=val_micro_f1 is not measured in a task of kind single"):
        check(study({"train.seed": {"choice": [1]}}, metric="val_micro_f1"))


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"train.seed": {"grid": [1, 2]}}, "draws each value, got a grid; write choice for grid"),
        ({"front.window_s": {"uniform": [1, 3]}}, "tpe needs a choice of values here"),
        ({"*": {"branches": {"a": {"front.window_s": 2}}}}, "tpe searches front.window_s under its own name alone"),
    ],
)
def test_what_tpe_cannot_know_beforehand(space: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(study(space, sampler="tpe"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_value_of_a_shipped_study_gives_an_experiment(path: Path) -> None:
    """And its first trials, whose values meet each other."""
    spec = experiment.load(path)
    assert spec.tune
    check(spec)
    assert fields_of(spec.tune.space)
    for one in configurations(spec.tune.space, spec.tune.samples, spec.train.seed):
        changed(spec, one.fields)
