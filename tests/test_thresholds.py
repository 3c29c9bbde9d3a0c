"""Thresholds and the limit for answers, each against a search through all cuts."""

import numpy as np
import pytest

from instrunet.errors import ConfigError, DataError
from instrunet.metrics import multi
from instrunet.thresholds import NEVER, ThresholdRule, limit, one_threshold, thresholds

LABELS = list("abcd")


def made(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 4)) < [0.2, 0.4, 0.6, 0.1]
    return truth, (rng.random((n, 4)) * 0.8 + 0.2 * truth).round(2)  # rounded, so that there are equal scores


def cuts(scores: np.ndarray) -> np.ndarray:
    return np.append(np.unique(scores), scores.max() + 0.01)


def figures(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    hits = (truth & found).sum()
    return hits / max(found.sum(), 1), hits / truth.sum(), 2 * hits / (found.sum() + truth.sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("text", ["f1", "precision=0.5", "recall=0.8"])
def test_each_rule_finds_what_a_search_through_all_cuts_finds(seed: int, text: str) -> None:
    truth, scores = made(seed)
    rule = ThresholdRule.parse(text)
    found, notes = thresholds(rule, truth, scores, LABELS)
    assert notes == []
    for k in range(4):
        all_ = [figures(truth[:, k], scores[:, k] >= cut) for cut in cuts(scores[:, k])]
        precision, recall, f1 = figures(truth[:, k], scores[:, k] >= found[k])
        if rule.name == "f1":
            assert f1 == pytest.approx(max(row[2] for row in all_))
        elif rule.name == "precision":
            assert precision >= rule.least
            assert recall == max(row[1] for row in all_ if row[0] >= rule.least)
        else:
            assert recall >= rule.least
            given = (scores[:, k] >= found[k]).sum()
            assert given == min(
                (scores[:, k] >= c).sum()
                for c in cuts(scores[:, k])
                if figures(truth[:, k], scores[:, k] >= c)[1] >= rule.least
            )


def test_a_threshold_lies_between_two_scores() -> None:
    truth, scores = np.array([[1], [1], [0]], bool), np.array([[0.9], [0.6], [0.2]])
    for text in ("f1", "precision=1", "recall=1"):
        found, _ = thresholds(ThresholdRule.parse(text), truth, scores, ["a"])
        assert found.tolist() == pytest.approx([0.4])


def test_what_cannot_be_fitted_is_told() -> None:
    truth, scores = np.array([[1, 0], [0, 0]], bool), np.array([[0.3, 0.6], [0.8, 0.1]])
    found, notes = thresholds(ThresholdRule.parse("precision=0.9"), truth, scores, ["a", "b"])
    assert found.tolist() == [NEVER, 0.5]
    assert notes == [
        "a: no threshold reaches precision 0.9, it will never be given",
        "b: no clip of it to fit a threshold on, it stays 0.5",
    ]


@pytest.mark.parametrize("text", ["f2", "f1=0.5", "precision", "precision=", "precision=0", "recall=0.0", "recall=1.5"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^expected --thresholds f1, precision=P or recall=R .*; got '"):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("seed", range(4))
def test_one_threshold_for_all_has_the_best_micro_f1(seed: int) -> None:
    truth, scores = made(seed)
    best = max(multi.micro_f1(truth, scores >= cut) for cut in cuts(scores))
    assert multi.micro_f1(truth, scores >= one_threshold(truth, scores)) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_answers_as_many_clips_as_the_risk_allows(seed: int) -> None:
    truth, scores = made(seed)
    given, best = scores >= 0.5, scores.max(1)

    def risk(below: float) -> float:
        kept = best >= below
        return float((given & ~truth)[kept].sum() / max(given[kept].sum(), 1))

    allowed = 0.4
    below = limit(truth, given, best, allowed)
    assert risk(below) <= allowed
    assert (best >= below).sum() == max((best >= cut).sum() for cut in cuts(best)[:-1] if risk(cut) <= allowed)


def test_all_are_answered_where_the_risk_allows_it() -> None:
    truth = np.eye(2) > 0
    assert limit(truth, truth, np.array([0.9, 0.6]), 0.0) == 0.0


def test_a_risk_that_no_limit_keeps_is_refused() -> None:
    truth = np.eye(2) > 0
    with pytest.raises(DataError, match=r"^no limit keeps the risk at 0.1: the least is 1.000 on 2 clips; allow"):
        limit(truth, ~truth, np.array([0.9, 0.6]), 0.1)
    with pytest.raises(ConfigError, match=r"^expected --max-risk from 0 to below 1, got 5"):
        limit(truth, truth, np.array([0.9, 0.6]), 5)
