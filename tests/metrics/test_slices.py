"""Parts of the clips: which there are, and that their figures are those of scikit-learn on the part."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from instrunet.metrics.intervals import Judged
from instrunet.metrics.slices import FEWEST, slices

RNG = np.random.default_rng(0)
N = 120
TRUTH, SAID = RNG.integers(0, 3, N), RNG.integers(0, 3, N)
GROUPS = [f"g{k % 10}" for k in range(N)]
GENRES = [("pop", "jazz")[k % 2] for k in range(N)]
SECONDS = RNG.uniform(1, 10, N)
TRAITS = [[f"genre={genre}", f"file={k}", "licence=free"] for k, genre in enumerate(GENRES)]


def test_figures_are_those_of_the_part() -> None:
    found = slices(Judged(TRUTH, SAID, GROUPS), 3, "balanced_accuracy", TRAITS, {"length": SECONDS})
    assert [one.by for one in found] == ["genre", "genre", "length", "length", "length"]
    for one in found[:2]:
        rows = np.array([genre == one.value for genre in GENRES])
        assert one.figure == pytest.approx(balanced_accuracy_score(TRUTH[rows], SAID[rows]))
        assert (one.n, one.n_groups) == (60, 5)
        assert one.interval.low <= one.figure <= one.interval.high
    assert found[0].figure <= found[1].figure
    assert sorted(one.n for one in found[2:]) == [40, 40, 40]
    thirds = {one.value.split()[0]: one for one in found[2:]}
    longest = np.sort(SECONDS)[-40:]
    rows = np.isin(SECONDS, longest)
    assert thirds["over"].figure == pytest.approx(balanced_accuracy_score(TRUTH[rows], SAID[rows]))


def test_several_labels_are_told_apart_by_their_number() -> None:
    truth = RNG.random((N, 4)) < 0.4
    said = RNG.random((N, 4)) < 0.4
    found = {one.value: one for one in slices(Judged(truth, said, GROUPS), 4, "micro_f1", [[]] * N, {})}
    assert {one.by for one in found.values()} == {"labels"}
    two = truth.sum(1) == 2
    assert found["2"].figure == pytest.approx(f1_score(truth[two].ravel(), said[two].ravel()))


def test_what_is_no_part_is_left_out() -> None:
    """Names of files, what all share, parts of a few clips, a number that is the same for all."""
    traits = [[f"genre={'rare' if k < FEWEST - 1 else 'pop'}", f"file={k}", "licence=free"] for k in range(N)]
    assert slices(Judged(TRUTH, SAID, GROUPS), 3, "accuracy", traits, {"length": np.full(N, 3.0)}) == []
