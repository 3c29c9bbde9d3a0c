"""Intervals: the figures in them are those of the metrics, they cover the truth, and groups are what is drawn."""

import numpy as np
import pytest

from instrunet.errors import DataError
from instrunet.metrics import intervals, multi, single
from instrunet.metrics.intervals import MULTI, SINGLE, Interval, Judged


def clips(
    seed: int, n_groups: int = 20, per_group: int = 10, spread: float = 0.2
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips of three classes; each group has its own chance to be right, 0.6 on average."""
    rng = np.random.default_rng(seed)
    chance = np.clip(rng.normal(0.6, spread, n_groups), 0, 1).repeat(per_group)
    y_true = rng.integers(0, 3, n_groups * per_group)
    right = rng.random(len(y_true)) < chance
    y_pred = np.where(right, y_true, (y_true + rng.integers(1, 3, len(y_true))) % 3)
    return y_true, y_pred, [f"g{k}" for k in np.arange(n_groups).repeat(per_group)]


def test_the_figures_are_those_of_the_metrics() -> None:
    y_true, y_pred, _ = clips(0)
    y_true[y_true == 2] = 1  # a class that is only predicted
    want = single.evaluate(y_true, np.eye(3)[y_pred], ["a", "b", "c"])
    counts = intervals.counts(Judged(y_true, y_pred, ()), 3).sum(0)[None]
    assert {name: figure(counts)[0] for name, figure in SINGLE.items()} == pytest.approx({n: want[n] for n in SINGLE})


def test_the_figures_of_several_labels_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    y_true, scores = rng.random((40, 5)) < 0.3, rng.random((40, 5))
    want = multi.evaluate(y_true, scores, list("abcde"), np.full(5, 0.5))
    judged = Judged(y_true, scores >= 0.5, [str(k // 4) for k in range(40)])
    counts = intervals.counts(judged, 5).sum(0)[None]
    assert {name: figure(counts)[0] for name, figure in MULTI.items()} == pytest.approx({n: want[n] for n in MULTI})
    found = intervals.of(judged, 5)
    for name in MULTI:
        assert found[name].low < want[name] < found[name].high and found[name].n_groups == 10


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    found = [intervals.of(Judged(*clips(seed)), 3, seed)["accuracy"] for seed in range(200)]
    assert 0.90 <= np.mean([i.low <= 0.6 <= i.high for i in found]) <= 0.98


def test_drawing_clips_would_be_too_narrow() -> None:
    y_true, y_pred, groups = clips(3, spread=0.4)
    by_group = intervals.of(Judged(y_true, y_pred, groups), 3)["accuracy"]
    by_clip = intervals.of(Judged(y_true, y_pred, [str(k) for k in range(len(groups))]), 3)["accuracy"]
    assert by_group.high - by_group.low > 1.5 * (by_clip.high - by_clip.low)


def test_a_difference_on_the_same_clips_is_sharper_than_two_intervals() -> None:
    y_true, a, groups = clips(4, spread=0.3)
    b = a.copy()
    b[::8] = y_true[::8]  # an eighth of the clips made right
    value, gap = intervals.paired(Judged(y_true, a, groups), Judged(y_true, b, groups), 3)["accuracy"]
    assert value == pytest.approx(np.mean(b == y_true) - np.mean(a == y_true)) and 0 < gap.low < value < gap.high
    alone = intervals.of(Judged(y_true, a, groups), 3)["accuracy"]
    assert gap.high - gap.low < 0.7 * (alone.high - alone.low)


def test_a_difference_between_other_clips_is_as_wide_as_both_together() -> None:
    (t, p, g), (u, q, h) = clips(6), clips(7, n_groups=30)
    value, gap = intervals.between(Judged(t, p, g), Judged(u, q, h), 3)["accuracy"]
    assert value == pytest.approx(np.mean(p == t) - np.mean(q == u)) and gap.n_groups == 20
    one, other = intervals.of(Judged(t, p, g), 3)["accuracy"], intervals.of(Judged(u, q, h), 3)["accuracy"]
    assert gap.high - gap.low == pytest.approx(np.hypot(one.high - one.low, other.high - other.low), rel=0.1)


def test_two_independent_differences_hold_the_truth() -> None:
    def gap(seed: int) -> Interval:
        a, b = (Judged(*clips(seed + shift)) for shift in (0, 1000))
        return intervals.between(a, b, 3, seed)["accuracy"][1]

    assert 0.90 <= np.mean([i.low <= 0 <= i.high for i in map(gap, range(100))]) <= 0.99


def test_a_difference_of_several_labels() -> None:
    rng = np.random.default_rng(2)
    t, groups = rng.random((40, 3)) < 0.4, [str(k // 4) for k in range(40)]
    value, gap = intervals.between(Judged(t, t, groups), Judged(t, ~t, groups), 3)["macro_f1"]
    assert (value, gap.low, gap.high) == (1.0, 1.0, 1.0)


def test_one_group_says_nothing() -> None:
    found = intervals.of(Judged(np.array([0, 1]), np.array([0, 1]), ["a", "a"]), 2)
    assert found["accuracy"] == Interval(0.0, 1.0, 1)
    one = Judged(np.array([0, 1]), np.array([0, 1]), ["a", "a"])
    assert intervals.between(one, one, 2)["accuracy"] == (0.0, Interval(-1, 1, 1))


def test_the_seed_decides() -> None:
    y_true, y_pred, groups = clips(5)
    assert intervals.of(Judged(y_true, y_pred, groups), 3, 1) == intervals.of(Judged(y_true, y_pred, groups), 3, 1)


def test_groups_must_be_those_of_the_clips() -> None:
    with pytest.raises(DataError, match="expected a group for each clip, got 1 for 2 clips"):
        intervals.of(Judged(np.array([0, 1]), np.array([0, 1]), ["a"]), 2)
