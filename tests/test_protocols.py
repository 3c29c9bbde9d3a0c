"""The table of rules and thresholds: each row is what its name says, and the oracle is the only one that looks."""

import numpy as np
import pandas as pd
import pytest
from archives import LABELS, tiny_bundle

from instrunet.bundle import Bundle
from instrunet.metrics import multi, voting
from instrunet.protocols import table
from instrunet.scoring import Scored, judge, truth_of, voted
from instrunet.thresholds import one_threshold

WINDOWS = 3


def scored(bundle: Bundle, seed: int, shift: float = 0.0, n: int = 40, several: bool = True) -> Scored:
    """Logits about the truth; `shift` moves them all, so that another threshold is best."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < 0.4 if several else np.eye(3)[rng.integers(0, 3, n)] > 0
    logits = np.repeat(2 * truth - 1, WINDOWS, axis=0) + rng.normal(shift, 2, (n * WINDOWS, 3))
    ids = [f"clip{k}" for k in range(n) for _ in range(WINDOWS)]
    labels = [[label for label, yes in zip(LABELS, row, strict=True) if yes] for row in truth]
    clips = pd.DataFrame({"labels": labels, "group": [f"group{k % 8}" for k in range(n)]})
    made = logits.astype(np.float32)
    return Scored(voting.by_clip(ids, bundle.activated(made))[1], clips, made, ids)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_each_threshold_comes_from_the_clips_it_says(kind: str) -> None:
    bundle = tiny_bundle(kind)  # type: ignore[arg-type]
    test, val = scored(bundle, 0), scored(bundle, 1, shift=1.5)
    rows = table(bundle, test, tuple(voting.RULES), val)
    assert [(row.rule, row.thresholds) for row in rows] == [
        (rule, said) for rule in voting.RULES for said in ("own", "validation", "oracle")
    ]
    for row in rows:
        truth, scores = truth_of(bundle, test), voted(bundle, test, row.rule)
        if row.thresholds == "validation":
            assert row.threshold == pytest.approx(one_threshold(truth_of(bundle, val), voted(bundle, val, row.rule)))
        elif row.thresholds == "oracle":
            assert row.threshold == pytest.approx(one_threshold(truth, scores))
        else:
            assert row.threshold == 0.5
        assert row.threshold is not None
        assert row.figures["micro_f1"] == pytest.approx(multi.micro_f1(truth, scores >= row.threshold))
        low, high = row.intervals["micro_f1"]
        assert low <= row.figures["micro_f1"] <= high and row.n == 40
    by = {(row.rule, row.thresholds): row for row in rows}
    assert by["mean", "validation"].threshold != by["mean", "oracle"].threshold
    assert all(by[r, "oracle"].figures["micro_f1"] >= by[r, "validation"].figures["micro_f1"] for r in voting.RULES)
    assert {row.rule: row.published for row in rows}["sum_normalised"] == "han2017_s2"


def test_without_validation_clips_there_is_no_such_row() -> None:
    bundle = tiny_bundle("multi")
    assert [row.thresholds for row in table(bundle, scored(bundle, 0), ("mean",))] == ["own", "oracle"]


def test_one_label_a_clip_needs_no_threshold() -> None:
    bundle = tiny_bundle()
    test = scored(bundle, 0, several=False)
    rows = table(bundle, test, ("mean", "vote"), scored(bundle, 1, several=False))
    assert [(row.rule, row.thresholds, row.threshold) for row in rows] == [("mean", "", None), ("vote", "", None)]
    for row in rows:
        metrics = judge(bundle, test, row.rule).metrics()
        assert row.figures == {name: metrics[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        assert row.intervals == {name: metrics["intervals"][name] for name in row.figures}


def test_one_group_has_no_interval() -> None:
    bundle = tiny_bundle()
    test = scored(bundle, 0, several=False)
    test.clips["group"] = "one"
    assert [row.intervals for row in table(bundle, test, ("mean",))] == [{}]


def test_scores_of_other_rules_are_no_probabilities() -> None:
    bundle = tiny_bundle()
    one, mixed = scored(bundle, 0, several=False), scored(bundle, 0)
    assert judge(bundle, one).metrics()["ece"] is not None
    for found in (judge(bundle, one, "max"), judge(bundle, mixed), judge(bundle, mixed, "mean")):
        assert "ece" not in found.metrics()
