"""metrics.json is what its schema says: what a judgement gives passes, and a planted change does not.

Reports of whole evaluations, of comparisons and of calibrated bundles are held to it where they are made
(tests/pipelines).
"""

import json
from dataclasses import asdict, fields
from typing import Any, Literal

import numpy as np
import pytest
from reports import SCHEMA, problems

from instrunet.metrics.slices import slices
from instrunet.report import build
from instrunet.report.evaluation import Evaluation
from instrunet.scoring import Judgement

LABELS = ("bell", "drum", "horn", "reed")


def tree_of(kind: Literal["single", "multi"], n_groups: int = 8, answered: bool = True) -> dict[str, Any]:
    """Of 40 clips that answer at random; a class has none."""
    rng = np.random.default_rng(0)
    truth = np.eye(4, dtype=bool)[rng.integers(0, 3, 40)]
    scores = rng.dirichlet(np.ones(4), 40)
    groups = tuple(f"g{k % n_groups}" for k in range(40))
    told = Judgement(kind, LABELS, truth, scores, np.full(4, 0.4, np.float32), groups)
    if answered:
        told = Judgement(kind, LABELS, truth, scores, told.thresholds, groups, answered=scores.max(1) > 0.5)
    said = {f.name: "" for f in fields(Evaluation) if f.type is str or f.type == "str"}
    evaluation = Evaluation(
        **said,
        kind=kind,
        labels=LABELS,
        metrics=told.metrics(),
        n_parameters=1,
        n_clips=40,
        n_groups=n_groups,
        leaky=False,
        history=[{"epoch": 1, "train_loss": float("nan")}],
        slices=slices(told.judged, 4, "macro_f1", [[f"genre={k % 2}"] for k in range(40)], {}),
    )
    assert evaluation.slices and asdict(evaluation)
    tree: dict[str, Any] = json.loads(build.summary(evaluation))
    return tree


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("n_groups", [1, 8])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_what_is_said_is_in_the_schema(kind: Literal["single", "multi"], n_groups: int, answered: bool) -> None:
    tree = tree_of(kind, n_groups, answered)
    assert problems(tree) == []
    assert bool(tree["metrics"]["intervals"]) == (n_groups > 1)
    assert tree["schema"] == build.SCHEMA == SCHEMA["properties"]["schema"]["const"]


def test_a_planted_change_is_seen() -> None:
    for change, complaint in (
        ({"schema": 1}, "$.schema: 2 was expected"),
        ({"more": 1}, "$: Additional properties are not allowed ('more' was unexpected)"),
        ({"kind": "multi"}, "$.metrics: 'samples_f1' is a required property"),
        ({"slices": [{"by": "genre"}]}, "$.slices[0]: 'figure' is a required property"),
    ):
        assert complaint in problems(tree_of("single") | change)
    broken = tree_of("single")
    broken["metrics"]["intervals"]["accuracy"] = [0.5]
    assert problems(broken) == ["$.metrics.intervals.accuracy: [0.5] is too short"]
    del broken["belief"]
    assert "$: 'belief' is a required property" in problems(broken)
