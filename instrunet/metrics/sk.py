"""`sklearn.metrics`, imported at its first use: it takes 0.8 s (with SciPy's statistics), and few processes measure."""

from typing import Any


def __getattr__(name: str) -> Any:
    from sklearn import metrics

    return getattr(metrics, name)
