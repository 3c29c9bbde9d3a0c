"""What the tests of the corpora's readers share: silent files, one line of a refusal, a manifest by file name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from instrunet.errors import DataError


def sound(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(round(8000 * seconds)), 8000)
    return path


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_name(frame: pd.DataFrame) -> dict[str, tuple[list[str], str, str]]:
    rows = zip(frame["uri"], frame["labels"], frame["group"], frame["split"], strict=True)
    return {Path(uri).name: (labels, group, part) for uri, labels, group, part in rows}
