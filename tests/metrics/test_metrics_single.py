"""Single-label metrics against cases worked by hand and against scikit-learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from instrunet.errors import DataError
from instrunet.metrics import single

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_single.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
LABELS = ["cello", "flute", "voice"]


def expected(value: Any, key: str = "") -> Any:
    """Golden values: [a, b] is the fraction a/b, all but the counts of the confusion matrix."""
    if isinstance(value, dict):
        return {k: expected(v, k) for k, v in value.items()}
    return value[0] / value[1] if isinstance(value, list) and key != "confusion" else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    got = single.evaluate(np.array(case["y_true"]), np.array(case["scores"]), case["labels"])
    want = expected(case["expected"])
    for name, figures in want.pop("per_class").items():
        assert got["per_class"][name] == pytest.approx(figures)
    assert got.pop("confusion") == want.pop("confusion")
    assert list(got.pop("per_class")) == case["labels"]
    assert got == pytest.approx(want)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(7), rng.integers(0, 7, 93)])
    scores = rng.dirichlet(np.ones(7), 100) + 0.3 * np.eye(7)[y_true]
    scores /= scores.sum(axis=1, keepdims=True)
    y_pred = scores.argmax(axis=1)
    got = single.evaluate(y_true, scores, list("abcdefg"))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y_true, y_pred))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="macro"))
    assert got["weighted_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="weighted"))
    assert got["mcc"] == pytest.approx(sk.matthews_corrcoef(y_true, y_pred))
    assert got["micro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="micro"))
    assert got["uar"] == got["balanced_accuracy"]
    for k in (2, 3, 5):
        assert got[f"top{k}"] == pytest.approx(sk.top_k_accuracy_score(y_true, scores, k=k))
    assert got["log_loss"] == pytest.approx(sk.log_loss(y_true, scores))
    assert got["confusion"] == sk.confusion_matrix(y_true, y_pred).tolist()


def test_half_precision_probabilities_have_a_log_loss() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(100), 50).astype(np.float16)
    assert single.evaluate(np.arange(50), scores, [str(k) for k in range(100)])["log_loss"] > 0


def test_is_plain_json() -> None:
    got = single.evaluate(np.array([0, 1], np.int32), np.eye(3, dtype=np.float32)[:2], LABELS)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    ("y_true", "scores", "labels", "message"),
    [
        (
            [0],
            [[0.1, np.nan, 0.2]],
            LABELS,
            r"expected finite scores, got NaN or infinity in 1 of 1 clips, first at row 0",
        ),
        ([0], [[0.1, np.inf, 0.2]], LABELS, r"expected finite scores"),
        ([], np.zeros((0, 3)), LABELS, r"expected at least one clip, got none; check the split"),
        ([0, 1], [[0.1, 0.2, 0.7]], LABELS, r"as many y_true as scores, got 2 and 1; pass the same clips"),
        ([0], [[0.1, 0.2]], LABELS, r"scores of shape \(N, 3\), one column for each label, got \(1, 2\)"),
        ([0], [0.1, 0.2, 0.7], LABELS, r"scores of shape \(N, 3\).*got \(3,\)"),
        ([3], [[0.1, 0.2, 0.7]], LABELS, r"label indices from 0 to 2, got \[3\]; .*map or drop"),
        ([-1], [[0.1, 0.2, 0.7]], LABELS, r"label indices from 0 to 2, got \[-1\]"),
        ([0.0], [[0.1, 0.2, 0.7]], LABELS, r"label indices \[N\] of an integer type, got float64"),
        ([[0]], [[0.1, 0.2, 0.7]], LABELS, r"label indices \[N\].*of shape \(1, 1\)"),
        ([0], [[0.1, 0.9]], ["a", "a"], r"each label once, got \['a'\] more than once"),
        ([0], [[1.0]], ["a"], r"at least two labels to tell apart, got \['a'\]"),
    ],
)
def test_refuses(y_true: Any, scores: Any, labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        single.evaluate(np.array(y_true) if len(y_true) else np.zeros(0, int), np.array(scores), labels)
