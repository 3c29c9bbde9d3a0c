"""Metrics of a task in which each clip has exactly one label.

Shapes: N clips, K labels.

Conventions, and how others differ:

* The prediction is the label with the highest score; among equal scores the first label wins.
* Balanced accuracy and macro F1 average over the classes that are present in `y_true`. scikit-learn's macro F1 also
  takes in classes that were only predicted, each with F1 0, so on a subset of the classes it comes out lower.
* UAR, as speech calls it, is balanced accuracy; micro F1 is accuracy. Both stand under both names.
* Top-k is the share of clips whose true label is among the k highest scores, for each k of 2, 3, 5 below K; of equal
  scores the first label ranks higher, with scikit-learn's the last.
* Precision of a class that is never predicted, and recall of a class with no clips, is 0.0. The latter has n = 0.
* MCC is 0.0 where it is undefined: one class only in the truth or in the predictions.
* Log loss is the mean of -ln p(true label), with p no less than 2.2e-16 (36.04 at most for a clip); it is None when the
  scores are not probabilities (rows that sum to 1).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import DataError
from instrunet.metrics import sk

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

# Half-precision probabilities of 100 labels sum to 1 within about 1e-3; logits do not by far.
SUM_TOLERANCE = 2e-3
TOPS = (2, 3, 5)


def validate(y_true: Ints, scores: Floats, labels: Sequence[str]) -> None:
    validate_scores(scores, labels)
    if len(labels) < 2:
        raise DataError(f"expected at least two labels to tell apart, got {list(labels)}; name every label of the task")
    if y_true.ndim != 1 or not np.issubdtype(y_true.dtype, np.integer):
        raise DataError(
            f"expected y_true as label indices [N] of an integer type, got {y_true.dtype} of shape {y_true.shape}; "
            "pass one index into `labels` for each clip"
        )
    if len(y_true) != len(scores):
        raise DataError(f"expected as many y_true as scores, got {len(y_true)} and {len(scores)}; pass the same clips")
    unknown = sorted({int(i) for i in y_true if not 0 <= i < len(labels)})
    if unknown:
        raise DataError(
            f"expected label indices from 0 to {len(labels) - 1}, got {unknown[:5]}; "
            "the corpus holds labels the model does not know: map or drop those clips"
        )


def validate_scores(scores: Floats, labels: Sequence[str]) -> None:
    """The checks that both kinds of task share: scores [N, K], one column a label, all finite."""
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        raise DataError(f"expected each label once, got {twice} more than once; rename or merge them")
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise DataError(
            f"expected scores of shape (N, {len(labels)}), one column for each label, got {scores.shape}; "
            "pass the labels of the model that gave the scores"
        )
    if not len(scores):
        raise DataError("expected at least one clip, got none; check the split and the filter of the manifest")
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise DataError(
            f"expected finite scores, got NaN or infinity in {len(bad)} of {len(scores)} clips, first at row {bad[0]}; "
            "check those clips for silence and the training for divergence"
        )


def evaluate(y_true: Ints, scores: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """All figures of a single-label task, as plain numbers that JSON can hold."""
    validate(y_true, scores, labels)
    y_pred = scores.argmax(axis=1)
    right, balanced = accuracy(y_true, y_pred), balanced_accuracy(y_true, y_pred)
    return {
        "n": len(y_true),
        "accuracy": right,
        "balanced_accuracy": balanced,
        "uar": balanced,
        "micro_f1": right,
        "macro_f1": macro_f1(y_true, y_pred),
        "weighted_f1": weighted_f1(y_true, y_pred),
        "mcc": mcc(y_true, y_pred),
        "log_loss": log_loss(y_true, scores),
        **{f"top{k}": top_k(y_true, scores, k) for k in TOPS if k < len(labels)},
        "per_class": per_class(y_true, y_pred, labels),
        "confusion": confusion(y_true, y_pred, len(labels)),
    }


def accuracy(y_true: Ints, y_pred: Ints) -> float:
    return float(np.mean(y_true == y_pred))


def balanced_accuracy(y_true: Ints, y_pred: Ints) -> float:
    # As balanced_accuracy_score, without its warning when a class that is absent from y_true was predicted.
    return float(sk.recall_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0))


def macro_f1(y_true: Ints, y_pred: Ints) -> float:
    return float(sk.f1_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0))


def weighted_f1(y_true: Ints, y_pred: Ints) -> float:
    return float(sk.f1_score(y_true, y_pred, labels=np.unique(y_true), average="weighted", zero_division=0))


def mcc(y_true: Ints, y_pred: Ints) -> float:
    # scikit-learn warns when it meets a single class; the value is 0 by convention then.
    if len(np.unique(y_true)) < 2 or len(np.unique(y_pred)) < 2:
        return 0.0
    return float(sk.matthews_corrcoef(y_true, y_pred))


def top_k(y_true: Ints, scores: Floats, k: int) -> float:
    return float(among_best(y_true, scores, k).mean())


def among_best(y_true: Ints, scores: Floats, k: int) -> NDArray[np.bool_]:
    """[N]"""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.asarray((best == y_true[:, None]).any(axis=1))


def log_loss(y_true: Ints, scores: Floats) -> float | None:
    losses = log_losses(y_true, scores)
    return None if losses is None else float(losses.mean())


def log_losses(y_true: Ints, scores: Floats) -> NDArray[np.float64] | None:
    """[N]; rows are scaled to sum to 1 in float64."""
    total = scores.sum(axis=1, dtype=np.float64)
    if (scores < 0).any() or (abs(total - 1) > SUM_TOLERANCE).any():
        return None
    right = scores[np.arange(len(scores)), y_true] / total
    return np.asarray(-np.log(np.maximum(right, np.finfo(np.float64).eps)))


def per_class(y_true: Ints, y_pred: Ints, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    columns = sk.precision_recall_fscore_support(y_true, y_pred, labels=np.arange(len(labels)), zero_division=0)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    }


def confusion(y_true: Ints, y_pred: Ints, n_labels: int) -> list[list[int]]:
    """Counts [K, K]: rows are the true labels, columns the predicted ones."""
    counts: list[list[int]] = sk.confusion_matrix(y_true, y_pred, labels=np.arange(n_labels)).tolist()
    return counts
