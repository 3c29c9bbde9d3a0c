"""Metrics of a task in which a clip has any number of labels.

Shapes: N clips, K labels.

Conventions, and how others differ:

* A label is predicted where its score reaches its own threshold (>=).
* Macro F1 averages over the classes that are present in `y_true`; scikit-learn's averages over all K.
* Samples F1 is the mean of each clip's own F1. A clip with no true label that is given none counts as 1.0; scikit-learn
  by default counts it as 0.0.
* LRAP is scikit-learn's: a clip with no true label, or with all of them, counts as 1.0.
* Top-1 hit is the share, among the clips that have a true label, whose highest score belongs to a true label.
* Hamming is a loss: the share of the N x K decisions that are wrong.
* An average over nothing is 0.0, and so are the precision of a class never predicted and the recall of one never true.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from instrunet.errors import DataError
from instrunet.metrics.single import Floats, validate_scores

Bools = NDArray[np.bool_]


def validate(y_true: Bools, scores: Floats, labels: Sequence[str], thresholds: Floats) -> None:
    validate_scores(scores, labels)
    if not labels:
        raise DataError("expected at least one label, got none; name every label of the task")
    if y_true.shape != scores.shape:
        raise DataError(
            f"expected y_true of the shape of the scores {scores.shape}, got {y_true.shape}; "
            "a label the model does not know must be mapped or dropped, and the clips must be the same"
        )
    if y_true.dtype != np.bool_:
        raise DataError(
            f"expected y_true as true or false [N, K], got {y_true.dtype}; compare with what counts as true"
        )
    if thresholds.shape != (len(labels),) or not np.isfinite(thresholds).all():
        raise DataError(
            f"expected {len(labels)} finite thresholds, one for each label, got {thresholds.tolist()}; "
            "take them from the bundle that gave the scores"
        )


def evaluate(y_true: Bools, scores: Floats, labels: Sequence[str], thresholds: Floats) -> dict[str, Any]:
    """All figures of a multi-label task, as plain numbers that JSON can hold."""
    validate(y_true, scores, labels, thresholds)
    y_pred = scores >= thresholds
    return {
        "n": len(y_true),
        "micro_f1": micro_f1(y_true, y_pred),
        "macro_f1": macro_f1(y_true, y_pred),
        "samples_f1": samples_f1(y_true, y_pred),
        "lrap": lrap(y_true, scores),
        "hamming": hamming(y_true, y_pred),
        "top1_hit": top1_hit(y_true, scores),
        "per_class": per_class(y_true, y_pred, labels, thresholds),
    }


def micro_f1(y_true: Bools, y_pred: Bools) -> float:
    # Written over the flat decisions, as scikit-learn reads a single column [N, 1] as a binary task.
    return float(sk.f1_score(y_true.ravel(), y_pred.ravel(), zero_division=0))


def macro_f1(y_true: Bools, y_pred: Bools) -> float:
    present = np.flatnonzero(y_true.any(axis=0))
    return float(np.mean(_columns(y_true, y_pred)[2][present])) if len(present) else 0.0


def samples_f1(y_true: Bools, y_pred: Bools) -> float:
    # Written out, as scikit-learn refuses average="samples" for a single column [N, 1].
    total = y_true.sum(axis=1) + y_pred.sum(axis=1)
    hits = (y_true & y_pred).sum(axis=1)
    return float(np.mean(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)))


def lrap(y_true: Bools, scores: Floats) -> float:
    return float(sk.label_ranking_average_precision_score(y_true, scores))


def hamming(y_true: Bools, y_pred: Bools) -> float:
    return float(np.mean(y_true != y_pred))


def top1_hit(y_true: Bools, scores: Floats) -> float:
    labelled = y_true.any(axis=1)
    hits = y_true[np.arange(len(y_true)), scores.argmax(axis=1)]
    return float(np.mean(hits[labelled])) if labelled.any() else 0.0


def per_class(y_true: Bools, y_pred: Bools, labels: Sequence[str], thresholds: Floats) -> dict[str, dict[str, Any]]:
    columns = (*_columns(y_true, y_pred), thresholds)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n), "threshold": float(t)}
        for label, p, r, f, n, t in zip(labels, *columns, strict=True)
    }


def _columns(y_true: Bools, y_pred: Bools) -> tuple[NDArray[Any], ...]:
    """Precision, recall, F1 and n, each [K]."""
    if y_true.shape[1] == 1:  # scikit-learn reads a single column as a binary task and answers for both its values
        return tuple(sk.precision_recall_fscore_support(y_true.ravel(), y_pred.ravel(), labels=[True], zero_division=0))
    return tuple(sk.precision_recall_fscore_support(y_true, y_pred, zero_division=0))
