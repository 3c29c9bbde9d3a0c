"""The costs that docs/MODELS.md states are those of the networks; the counter counts what it says."""

import runpy
from typing import Any

import pytest
from conftest import ROOT

from instrunet.features.featurizer import FrontEnd
from instrunet.features.summary import SummarySpec
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.models.sizes import size
from instrunet.models.soundmind import SoundMindSpec


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/models.py"))


def test_the_table_is_that_of_the_networks(script: dict[str, Any]) -> None:
    page = (ROOT / "docs/MODELS.md").read_text(encoding="utf-8")
    written = [line for line in page.splitlines() if line.startswith("| `")]
    assert written == [script["row"](spec) for spec in script["SPECS"]], "python benchmarks/models.py"


def test_convolutions_are_counted() -> None:
    """By hand, on the native grid of 128 x 130: 65, 32, 16 frames after each pool."""
    places = [128 * 130, 64 * 65, 32 * 32, 16 * 16]
    pairs = [(1, 32, 25), (32, 64, 9), (64, 128, 9), (128, 256, 9)]
    blocks = sum(at * i * o * k for at, (i, o, k) in zip(places, pairs, strict=True))
    assert size(Iteration11Spec(picture=PictureSpec()), FrontEnd(), 11).macs == blocks + 256 * 256 + 256 * 11


def test_recurrent_layers_are_counted() -> None:
    """By hand: four gates, two directions, 49 steps; lists of 392, 196, 98 numbers before them."""
    stages = 392 * 32 * 15 + 196 * 96 * 64 * 8 + 98 * 128 * 128 * 8
    excite = 2 * (96 * 6 + 128 * 8 + 256 * 16)
    lstms = 49 * 2 * 4 * (128 * (256 + 128) + 64 * (256 + 64))
    ends = 128 * 256 + 256 * 128 + 128 * 11
    assert size(SoundMindSpec(), FrontEnd(features=(SummarySpec(),)), 11).macs == stages + excite + lstms + ends
