"""Calibration figures: cases worked by hand, scikit-learn, and what torchmetrics says of stored scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from instrunet.metrics import calibration, multi, single

THEIRS = json.loads((Path(__file__).parents[1] / "golden" / "torchmetrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", THEIRS["single"], ids=lambda case: f"{len(case['scores'][0])} classes")
def test_one_label_equals_torchmetrics(case: dict[str, Any]) -> None:
    y_true, scores = np.array(case["y_true"]), np.array(case["scores"])
    labels = [str(k) for k in range(scores.shape[1])]
    ours = single.evaluate(y_true, scores, labels)
    ours |= calibration.evaluate(np.eye(len(labels))[y_true] > 0, scores, "single")
    assert {name: ours[name] for name in case["expected"]} == pytest.approx(case["expected"], abs=1e-6)


@pytest.mark.parametrize("case", THEIRS["multi"], ids=lambda case: f"{len(case['scores'][0])} classes")
def test_several_labels_equal_torchmetrics(case: dict[str, Any]) -> None:
    y_true, scores = np.array(case["y_true"]) > 0, np.array(case["scores"])
    n = scores.shape[1]
    ours = multi.evaluate(y_true, scores, [str(k) for k in range(n)], np.full(n, 0.5))
    ours |= calibration.evaluate(y_true, scores, "multi")
    assert {name: ours[name] for name in case["expected"]} == pytest.approx(case["expected"], abs=1e-6)


def test_brier_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    truth = np.eye(4)[y] > 0
    assert calibration.brier(truth, scores, "single") == pytest.approx(sk.brier_score_loss(y, scores, labels=range(4)))
    assert calibration.brier(truth, scores, "multi") == pytest.approx(
        sk.brier_score_loss(truth.ravel(), scores.ravel())
    )


def test_ece_by_hand() -> None:
    """Two bins of five: 0.1 and 0.15 came true half the time, 0.9 and 1.0 always."""
    said, true = np.array([0.1, 0.15, 0.9, 1.0]), np.array([True, False, True, True])
    assert calibration.ece(said, true, bins=5) == pytest.approx(0.5 * abs(0.125 - 0.5) + 0.5 * abs(0.95 - 1))
    low, high = calibration.reliability(said, true, bins=5)
    assert low == pytest.approx({"from": 0.0, "to": 0.2, "n": 2, "said": 0.125, "true": 0.5})
    assert high == pytest.approx({"from": 0.8, "to": 1.0, "n": 2, "said": 0.95, "true": 1.0})


def test_scores_that_are_no_probabilities_have_no_figures() -> None:
    truth = np.eye(2) > 0
    for scores in (np.array([[0.4, 0.5], [0.5, 0.5]]), np.array([[1.2, -0.2], [0.5, 0.5]])):
        assert calibration.evaluate(truth, scores, "single") == {"ece": None, "brier": None, "reliability": []}
    assert calibration.evaluate(truth, np.array([[0.4, 0.5], [0.5, 0.5]]), "multi")["ece"] is not None


def test_risk_and_coverage_by_hand() -> None:
    """Four clips by their best score; of two with one score both are answered or none."""
    decided = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool)
    y_true = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], bool)
    curve = calibration.risk_coverage(y_true, decided, np.array([0.9, 0.6, 0.6, 0.3]))
    assert curve["below"].tolist() == [0.9, 0.6, 0.3]
    assert curve["coverage"].tolist() == [0.25, 0.75, 1.0]
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 3, 2 / 5])
    assert calibration.points(curve, most=2) == [
        {"below": 0.9, "coverage": 0.25, "risk": 0.0},
        {"below": 0.3, "coverage": 1.0, "risk": pytest.approx(0.4)},
    ]


def test_is_plain_json() -> None:
    found = calibration.evaluate(np.eye(2) > 0, np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), "single")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
