"""Rules of aggregation against cases worked by hand, clip by clip."""

import numpy as np
import pytest

from instrunet.errors import ConfigError
from instrunet.metrics import voting
from instrunet.metrics.voting import by_clip

# Clip a has four windows, b one; they do not stand together
IDS = ["a", "b", "a", "a", "a"]
SCORES = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]])
A = SCORES[[0, 2, 3, 4]]
ROWS = {
    "mean": [[0.3, 0.5, 0.2], [0.2, 0.3, 0.5]],
    "sum_normalised": [[0.6, 1.0, 0.4], [0.4, 0.6, 1.0]],
    "max": [[0.6, 0.8, 0.5], [0.2, 0.3, 0.5]],
    "vote": [[(2 + 0.3) / 5, (2 + 0.5) / 5, 0.2 / 5], [0.2 / 2, 0.3 / 2, (1 + 0.5) / 2]],
    "max_mean": [[(0.6 + 0.0) / 2, (0.8 + 0.5) / 2, (0.1 + 0.5) / 2], [0.2, 0.3, 0.5]],
}


@pytest.mark.parametrize("rule", voting.RULES)
def test_each_rule_by_hand(rule: str) -> None:
    first, found = by_clip(IDS, SCORES, rule)
    assert first.tolist() == [0, 1]
    np.testing.assert_allclose(found, ROWS[rule], atol=1e-12)


def test_every_rule_has_a_case() -> None:
    assert set(ROWS) == set(voting.RULES)


def test_with_thresholds_a_window_votes_for_all_that_reach_theirs() -> None:
    thresholds = np.array([0.5, 0.25, 0.9], np.float32)
    _, found = by_clip(IDS, SCORES, "vote", thresholds)
    votes = (thresholds <= A).sum(0)
    assert votes.tolist() == [2, 4, 0]
    np.testing.assert_allclose(found[0], (votes + A.mean(0)) / 5)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_half_of_the_votes_is_a_half_and_the_mean_decides_a_draw(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = rng.random((200 * n, 3))
    ids = np.repeat(np.arange(200), n)
    halves = np.full(3, 0.5, np.float32)
    found = by_clip(ids, scores, "vote", halves)[1] >= 0.5
    votes = (scores >= 0.5).reshape(200, n, 3).sum(1)
    mean = scores.reshape(200, n, 3).mean(1)
    np.testing.assert_array_equal(found, (votes > n / 2) | ((votes == n / 2) & (mean >= 0.5)))


def test_stretches_do_not_cross_clips() -> None:
    scores = np.array([[0.1], [0.2], [0.3], [0.4], [0.9], [0.5]])
    _, found = by_clip(list("aaaabb"), scores, "max_mean")
    np.testing.assert_allclose(found[:, 0], [(0.3 + 0.4) / 2, 0.9])


def test_published_names_are_rules() -> None:
    assert voting.asked("mean, han2017_s2,sum_normalised") == ("mean", "sum_normalised")
    assert set(voting.PUBLISHED.values()) <= set(voting.RULES)


def test_an_unknown_rule_is_told_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"got 'sum_normalized'; did you mean sum_normalised\?$"):
        voting.asked("mean,sum_normalized")
