"""Metrics of a task in which a clip has any number of labels.

Shapes: N clips, K labels.

Conventions, and how others differ:

* A label is predicted where its score reaches its own threshold (>=).
* Macro F1 averages over the classes that are present in `y_true`; scikit-learn's averages over all K.
* Samples F1 is the mean of each clip's own F1. A clip with no true label that is given none counts as 1.0; scikit-learn
  by default counts it as 0.0.
* LRAP is scikit-learn's: a clip with no true label, or with all of them, counts as 1.0.
* Top-1 hit is the share, among the clips that have a true label, whose highest score belongs to a true label; top-3 and
  top-5 hit that one of so many highest does, where K is larger.
* mAP is the mean of the classes' average precisions (the step-wise sum of scikit-learn, no interpolation), ROC-AUC that
  of their areas. A class takes part in the first if some clip has it, in the second if some clip has it not as well;
  `auc_left_out` names those that do not, and where none is left the figure is None. scikit-learn counts an average
  precision of a class without clips as 0, with a warning.
* Hamming is a loss: the share of the N x K decisions that are wrong.
* An average over nothing is 0.0, and so are the precision of a class never predicted and the recall of one never true.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import DataError
from instrunet.metrics import sk
from instrunet.metrics.single import Floats, validate_scores

Bools = NDArray[np.bool_]
TOPS = (1, 3, 5)


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
    precisions, areas = average_precisions(y_true, scores), areas_under_roc(y_true, scores)
    return {
        "n": len(y_true),
        "micro_f1": micro_f1(y_true, y_pred),
        "macro_f1": macro_f1(y_true, y_pred),
        "weighted_f1": weighted_f1(y_true, y_pred),
        "samples_f1": samples_f1(y_true, y_pred),
        "lrap": lrap(y_true, scores),
        "hamming": hamming(y_true, y_pred),
        **{f"top{k}_hit": top_hit(y_true, scores, k) for k in TOPS if k == 1 or k < len(labels)},
        "map": _mean_of(precisions),
        "roc_auc": _mean_of(areas),
        "auc_left_out": [label for label, area in zip(labels, areas, strict=True) if area is None],
        "per_class": {
            label: row | {"average_precision": precision, "roc_auc": area}
            for (label, row), precision, area in zip(
                per_class(y_true, y_pred, labels, thresholds).items(), precisions, areas, strict=True
            )
        },
    }


def micro_f1(y_true: Bools, y_pred: Bools) -> float:
    # Written over the flat decisions, as scikit-learn reads a single column [N, 1] as a binary task.
    return float(sk.f1_score(y_true.ravel(), y_pred.ravel(), zero_division=0))


def macro_f1(y_true: Bools, y_pred: Bools) -> float:
    present = np.flatnonzero(y_true.any(axis=0))
    return float(np.mean(_columns(y_true, y_pred)[2][present])) if len(present) else 0.0


def weighted_f1(y_true: Bools, y_pred: Bools) -> float:
    f1, n = _columns(y_true, y_pred)[2:]
    return float((f1 * n).sum() / n.sum()) if n.sum() else 0.0


def samples_f1(y_true: Bools, y_pred: Bools) -> float:
    return float(np.mean(f1_of_clips(y_true, y_pred)))


def f1_of_clips(y_true: Bools, y_pred: Bools) -> NDArray[np.float64]:
    """[N]; written out, as scikit-learn refuses average="samples" for a single column [N, 1]."""
    total = y_true.sum(axis=1) + y_pred.sum(axis=1)
    hits = (y_true & y_pred).sum(axis=1)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def lrap(y_true: Bools, scores: Floats) -> float:
    return float(np.mean(lrap_of_clips(y_true, scores)))


def lrap_of_clips(y_true: Bools, scores: Floats) -> NDArray[np.float64]:
    """[N]; scikit-learn has the mean alone, and draws of clips need each."""
    total, n_true = np.zeros(len(scores)), y_true.sum(axis=1)
    for k in range(scores.shape[1]):  # label by label: of all pairs of 527 labels memory has no room
        reach = scores >= scores[:, [k]]
        total += y_true[:, k] * (reach & y_true).sum(axis=1) / reach.sum(axis=1)
    return np.where((n_true > 0) & (n_true < scores.shape[1]), total / np.maximum(n_true, 1), 1.0)


def hamming(y_true: Bools, y_pred: Bools) -> float:
    return float(np.mean(y_true != y_pred))


def top_hit(y_true: Bools, scores: Floats, k: int) -> float:
    n_labelled = y_true.any(axis=1).sum()
    return float(among_best(y_true, scores, k).sum() / n_labelled) if n_labelled else 0.0


def among_best(y_true: Bools, scores: Floats, k: int) -> Bools:
    """[N]: whether a true label is among the k highest scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.asarray(np.take_along_axis(y_true, best, axis=1).any(axis=1))


def average_precisions(y_true: Bools, scores: Floats) -> list[float | None]:
    """[K]; None for a class that no clip has."""
    return [
        float(sk.average_precision_score(true, score)) if true.any() else None
        for true, score in zip(y_true.T, scores.T, strict=True)
    ]


def areas_under_roc(y_true: Bools, scores: Floats) -> list[float | None]:
    """[K]; None for a class that no clip has, or that all have."""
    return [
        float(sk.roc_auc_score(true, score)) if true.any() and not true.all() else None
        for true, score in zip(y_true.T, scores.T, strict=True)
    ]


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


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
