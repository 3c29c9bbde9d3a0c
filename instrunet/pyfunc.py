"""A bundle as MLflow loads it (`mlflow.pyfunc.load_model`), which knows this module by name; it needs no MLflow.

Shapes: B sounds, T samples, K labels.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrunet.bundle import Bundle

if TYPE_CHECKING:  # MLflow brings it
    import pandas as pd


class Answers:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, waveforms: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """[B, T] at `params["sample_rate"]` to a row each: labels, scores [K] in the bundle's order, status."""
        import pandas as pd

        rate = int((params or {}).get("sample_rate") or self.bundle.spec.front.sample_rate)
        said = list(self.bundle.each(np.atleast_2d(np.asarray(waveforms, np.float32)), rate))
        scores = [list(one.scores.values()) for one in said]
        return pd.DataFrame(
            {"labels": [one.labels for one in said], "scores": scores, "status": [one.status for one in said]}
        )


def _load_pyfunc(path: str) -> Answers:
    return Answers(Bundle.load(Path(path)))
