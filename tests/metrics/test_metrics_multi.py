"""Multi-label metrics against cases worked by hand and against scikit-learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from instrunet.errors import DataError
from instrunet.metrics import multi

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_multi.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
LABELS = ["cello", "flute"]
HALVES = np.array([0.5, 0.5])


def expected(value: Any, key: str = "") -> Any:
    """Golden values: [a, b] is the fraction a/b, all but the names of classes."""
    if isinstance(value, dict):
        return {k: expected(v, k) for k, v in value.items()}
    return value[0] / value[1] if isinstance(value, list) and key != "auc_left_out" else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    y_true, scores = np.array(case["y_true"], bool), np.array(case["scores"])
    got = multi.evaluate(y_true, scores, case["labels"], np.array(case["thresholds"]))
    want = expected(case["expected"])
    for name, figures in want.pop("per_class").items():
        assert got["per_class"][name] == pytest.approx(figures)
    assert got.pop("auc_left_out") == want.pop("auc_left_out")
    assert list(got.pop("per_class")) == case["labels"]
    assert got == pytest.approx(want)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.random((80, 6)) < 0.4
    y_true[np.arange(80), rng.integers(0, 6, 80)] = True  # with a label on every clip the conventions agree
    scores, thresholds = rng.random((80, 6)), rng.uniform(0.3, 0.7, 6)
    y_pred = scores >= thresholds
    got = multi.evaluate(y_true, scores, list("abcdef"), thresholds)
    for average in ("micro", "macro", "weighted", "samples"):
        assert got[f"{average}_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average=average, zero_division=0))
    assert got["hamming"] == pytest.approx(sk.hamming_loss(y_true, y_pred))
    assert got["lrap"] == pytest.approx(sk.label_ranking_average_precision_score(y_true, scores))
    precision, recall, f1, n = sk.precision_recall_fscore_support(y_true, y_pred, zero_division=0)
    for k, label in enumerate("abcdef"):
        figures = {"precision": precision[k], "recall": recall[k], "f1": f1[k], "n": n[k], "threshold": thresholds[k]}
        figures["average_precision"] = sk.average_precision_score(y_true[:, k], scores[:, k])
        figures["roc_auc"] = sk.roc_auc_score(y_true[:, k], scores[:, k])
        assert got["per_class"][label] == pytest.approx(figures)
    assert got["map"] == pytest.approx(sk.average_precision_score(y_true, scores))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y_true, scores))
    best = np.argsort(-scores, axis=1)
    for k in (1, 3, 5):
        assert got[f"top{k}_hit"] == pytest.approx(np.mean([y[b[:k]].any() for y, b in zip(y_true, best, strict=True)]))


def test_is_plain_json() -> None:
    got = multi.evaluate(np.eye(2, dtype=bool), np.eye(2, dtype=np.float32), LABELS, HALVES.astype(np.float32))
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    ("y_true", "scores", "thresholds", "message"),
    [
        ([[True, False]], [[0.1, np.nan]], HALVES, r"expected finite scores, got NaN or infinity in 1 of 1 clips"),
        (np.zeros((0, 2), bool), np.zeros((0, 2)), HALVES, r"expected at least one clip, got none"),
        ([[True, False]], [[0.1, 0.2], [0.3, 0.4]], HALVES, r"shape of the scores \(2, 2\), got \(1, 2\)"),
        ([[True, False, True]], [[0.1, 0.2]], HALVES, r"got \(1, 3\); a label the model does not know must be mapped"),
        ([[True]], [[0.1]], HALVES, r"scores of shape \(N, 2\), one column for each label, got \(1, 1\)"),
        ([[1, 0]], [[0.1, 0.2]], HALVES, r"y_true as true or false \[N, K\], got int64"),
        ([[True, False]], [[0.1, 0.2]], HALVES[:1], r"expected 2 finite thresholds, one for each label, got \[0.5\]"),
        (
            [[True, False]],
            [[0.1, 0.2]],
            np.array([0.5, np.nan]),
            r"2 finite thresholds.*nan.*take them from the bundle",
        ),
    ],
)
def test_refuses(y_true: Any, scores: Any, thresholds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        multi.evaluate(np.array(y_true), np.array(scores), LABELS, thresholds)


def test_refuses_a_task_without_labels() -> None:
    with pytest.raises(DataError, match="at least one label, got none"):
        multi.evaluate(np.zeros((1, 0), bool), np.zeros((1, 0)), [], np.zeros(0))
