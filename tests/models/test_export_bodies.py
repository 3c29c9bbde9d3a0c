"""Each kind of picture network as ONNX; tests/test_export.py has `task8`, `iteration11` and the rest of the promise."""

from pathlib import Path

import pytest
from making import draft
from test_bodies import FRONT, SPECS, settled

from instrunet import export
from instrunet.bundle import Bundle


@pytest.mark.parametrize(
    "name", ["multiscale se colour", "harmonics_resnet", "soundmind_time", "attentive rich", "backbone"]
)
def test_scores_are_the_bundles(name: str, tmp_path: Path) -> None:
    """`to_onnx` compares 1, 2 and 5 windows; an LSTM and a GRU are among them."""
    bundle = Bundle(draft(model=SPECS[name], front=FRONT), settled(SPECS[name]))
    path, difference = export.to_onnx(bundle, tmp_path)
    assert path.is_file() and difference < 1e-5
