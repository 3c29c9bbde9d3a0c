"""Windows vote: what is said of a clip is the mean of what is said of its windows, in validation as in service.

Shapes: N windows, C clips, K labels.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def by_clip(clip_ids: Sequence[str], scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """From scores [N, K]: a window of each clip [C], in the order of their first ones, and mean scores [C, K]."""
    clip, names = pd.factorize(np.asarray(clip_ids, object))
    first = np.flatnonzero(~pd.Series(clip).duplicated().to_numpy())
    mean = np.zeros((len(names), scores.shape[1]))
    np.add.at(mean, clip, scores)
    return first, mean / np.bincount(clip, minlength=len(names))[:, None]
