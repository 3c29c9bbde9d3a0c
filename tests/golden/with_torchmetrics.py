"""Makes torchmetrics.json: what torchmetrics says of some random scores, for our own figures to be held to.

pip install torchmetrics==1.9.0
python tests/golden/with_torchmetrics.py > tests/golden/torchmetrics.json
"""

import json
import sys
from typing import Any

import numpy as np
import torch
import torchmetrics
from torchmetrics.functional import classification as tm


def single(seed: int, n: int, k: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])  # every class is there: conventions agree
    scores = (rng.dirichlet(np.ones(k), n) + 0.15 * np.eye(k)[y_true]).round(4)
    scores = (scores / scores.sum(1, keepdims=True)).round(6)
    x, y = torch.from_numpy(scores), torch.from_numpy(y_true)
    averages = {f"{a}_f1": tm.multiclass_f1_score(x, y, k, average=a) for a in ("micro", "macro", "weighted")}
    tops = {f"top{t}": tm.multiclass_accuracy(x, y, k, average="micro", top_k=t) for t in (2, 3, 5) if t < k}
    expected = {
        "accuracy": tm.multiclass_accuracy(x, y, k, average="micro"),
        "uar": tm.multiclass_recall(x, y, k, average="macro"),
        "mcc": tm.multiclass_matthews_corrcoef(x, y, k),
        "ece": tm.multiclass_calibration_error(x, y, k, n_bins=15, norm="l1"),
        **averages,
        **tops,
    }
    return {"y_true": y_true.tolist(), "scores": scores.tolist(), "expected": plain(expected)}


def multi(seed: int, n: int, k: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y_true = rng.random((n, k)) < 0.35
    y_true[np.arange(n), rng.integers(0, k, n)] = True  # every clip has a label: conventions agree
    scores = np.clip(rng.random((n, k)) * 0.8 + 0.25 * y_true, 0, 0.9999).round(4)
    x, y = torch.from_numpy(scores), torch.from_numpy(y_true.astype(np.int64))
    averages = {f"{a}_f1": tm.multilabel_f1_score(x, y, k, average=a) for a in ("micro", "macro", "weighted")}
    expected = {
        "hamming": tm.multilabel_hamming_distance(x, y, k, average="micro"),
        "lrap": tm.multilabel_ranking_average_precision(x, y, k),
        "map": tm.multilabel_average_precision(x, y, k, average="macro"),
        "roc_auc": tm.multilabel_auroc(x, y, k, average="macro"),
        "ece": tm.binary_calibration_error(x.flatten(), y.flatten(), n_bins=15, norm="l1"),
        **averages,
    }
    return {"y_true": y_true.astype(int).tolist(), "scores": scores.tolist(), "expected": plain(expected)}


def plain(figures: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: round(float(value), 9) for name, value in figures.items()}


if __name__ == "__main__":
    note = f"Made by tests/golden/with_torchmetrics.py with torchmetrics {torchmetrics.__version__}."
    cases = {"single": [single(0, 60, 4), single(1, 90, 7)], "multi": [multi(2, 40, 4), multi(3, 60, 6)]}
    sys.stdout.write(json.dumps({"note": note, **cases}, separators=(", ", ": ")) + "\n")
