"""Each interval of each figure is that of resampled copies: the figures of draws, against the metrics on the copies."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from instrunet.metrics import bootstrap, calibration, intervals, multi, ranking, single
from instrunet.metrics.bootstrap import Said
from instrunet.metrics.intervals import Draws

LABELS = list("abcde")
N_DRAWS = 60


def single_clips(seed: int = 0, n: int = 60) -> Said:
    """Scores of one digit, so that there are ties; one class is never true, another in one group only."""
    rng = np.random.default_rng(seed)
    y_true = rng.choice(4, n, p=(0.5, 0.3, 0.15, 0.05))
    raw = rng.integers(0, 8, (n, 5)) + 3.0 * (np.arange(5) == y_true[:, None])
    scores = raw / raw.sum(1, keepdims=True)
    groups = [f"g{k}" for k in rng.integers(0, 12, n)]
    groups = ["g0" if y == 3 else group for y, group in zip(y_true, groups, strict=True)]
    chosen = scores.argmax(1)[:, None] == np.arange(5)
    return Said("single", np.eye(5, dtype=bool)[y_true], scores, chosen, groups, answered=scores.max(1) > 0.35)


def multi_clips(seed: int = 0, n: int = 60) -> Said:
    """As above; some clips have no label, the last class is always true."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 5)) < (0.5, 0.3, 0.1, 0.0, 1.0)
    scores = np.round(np.clip(rng.random((n, 5)) * 0.7 + 0.3 * truth, 0, 1), 1)
    groups = tuple(f"g{k}" for k in rng.integers(0, 12, n))
    return Said("multi", truth, scores, scores >= 0.5, groups, answered=scores.max(1) > 0.6)


def of_copies(said: Said, rows: np.ndarray) -> dict[str, Any]:
    """What the metrics say of clips of which some stand there several times."""
    truth, scores, chosen = said.truth[rows], said.scores[rows], said.chosen[rows]
    if said.kind == "single":
        found = single.evaluate(truth.argmax(1), scores, LABELS)
    else:
        found = multi.evaluate(truth, scores, LABELS, np.full(5, 0.5))
    found |= calibration.evaluate(truth, scores, said.kind)
    assert said.answered is not None
    answered = said.answered[rows]
    given = chosen[answered]
    return found | {"coverage": answered.mean(), "risk": (given & ~truth[answered]).sum() / max(given.sum(), 1)}


@pytest.mark.parametrize("said", [single_clips(), multi_clips()], ids=["single", "multi"])
def test_every_figure_is_that_of_the_copies(said: Said) -> None:
    ours = intervals.draws(said.groups, n=N_DRAWS)
    names = np.unique(said.groups)
    drawn, of_classes = bootstrap.drawn(said, ours)
    for k, times in enumerate(ours.times.astype(int)):
        copies = [np.flatnonzero(np.array(said.groups) == names[g]) for g, n in enumerate(times) for _ in range(n)]
        want = of_copies(said, np.concatenate(copies))
        figures = {name: value for name, value in want.items() if isinstance(value, int | float) and name != "n"}
        assert set(drawn) == set(figures)
        assert {name: values[k] for name, values in drawn.items()} == pytest.approx(figures, abs=1e-12)
        for j, label in enumerate(LABELS):
            row = want["per_class"][label]
            for name, values in of_classes.items():
                if row["n"]:
                    known = np.nan if row[name] is None else row[name]
                    assert values[k, j] == pytest.approx(known, abs=1e-12, nan_ok=True), (name, label)
                else:
                    assert np.isnan(values[k, j])


@pytest.mark.parametrize("said", [single_clips(), multi_clips()], ids=["single", "multi"])
def test_limits_are_the_middle_of_the_draws(said: Said) -> None:
    found = bootstrap.intervals(said, LABELS)
    drawn, of_classes = bootstrap.drawn(said, intervals.draws(said.groups))
    per_class = found.pop("per_class")
    assert set(found) == set(drawn)
    for name, limits in found.items():
        assert limits == pytest.approx(np.nanpercentile(drawn[name], (2.5, 97.5)).tolist())
    assert per_class["b"]["f1"] == pytest.approx(np.nanpercentile(of_classes["f1"][:, 1], (2.5, 97.5)).tolist())


def test_a_class_of_one_group_has_no_interval_and_neither_has_one_without_clips() -> None:
    per_class = bootstrap.intervals(single_clips(), LABELS)["per_class"]
    assert [bool(per_class[label]) for label in LABELS] == [True, True, True, False, False]
    of_several = bootstrap.intervals(multi_clips(), LABELS)["per_class"]
    assert not of_several["d"] and set(of_several["e"]) == {"precision", "recall", "f1", "average_precision"}


def test_one_group_says_nothing() -> None:
    said = single_clips()
    alone = Said(said.kind, said.truth, said.scores, said.chosen, ["a"] * len(said.groups))
    assert bootstrap.intervals(alone, LABELS) == {} == bootstrap.of_belief(alone)


def test_scores_that_are_no_probabilities_have_no_belief() -> None:
    said = multi_clips()
    plain = Said("multi", said.truth, said.scores * 3, said.chosen, said.groups)
    assert not {"ece", "brier"} & set(bootstrap.intervals(plain, LABELS))
    meant = Said("multi", said.truth, said.scores, said.chosen, said.groups, chances=False)
    assert not {"ece", "brier"} & set(bootstrap.intervals(meant, LABELS))


def test_ece_and_brier_alone_are_the_same() -> None:
    said = single_clips()
    whole = bootstrap.intervals(said, LABELS)
    assert bootstrap.of_belief(said) == {name: whole[name] for name in ("ece", "brier")}


def test_rankings_in_small_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    said = multi_clips()
    ours = intervals.draws(said.groups, n=50)
    want = ranking.drawn(said.truth, said.scores, ours)
    monkeypatch.setattr(ranking, "LARGEST", 100)
    for found, wanted in zip(ranking.drawn(said.truth, said.scores, ours), want, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_weights_are_scikit_learns() -> None:
    """The rival has sample weights, too: a clip of weight 3 is one that stands there three times."""
    said = multi_clips(3, 200)
    ours = intervals.draws(said.groups, n=20)
    precisions, areas = ranking.drawn(said.truth, said.scores, ours)
    for k, times in enumerate(ours.times):
        weights = times[ours.number]
        ap = sk.average_precision_score(said.truth[:, 0], said.scores[:, 0], sample_weight=weights)
        auc = sk.roc_auc_score(said.truth[:, 0], said.scores[:, 0], sample_weight=weights)
        assert (precisions[k, 0], areas[k, 0]) == pytest.approx((ap, auc), abs=1e-12)


def test_drawing_no_one_anew_gives_the_figures_themselves() -> None:
    said = multi_clips(1)
    ours = intervals.draws(said.groups)
    plain = Draws(ours.number, np.ones((1, ours.n_groups)))
    drawn, _ = bootstrap.drawn(said, plain)
    want = multi.evaluate(said.truth, said.scores, LABELS, np.full(5, 0.5))
    assert {name: values[0] for name, values in drawn.items() if name in want} == pytest.approx(
        {name: want[name] for name in drawn if name in want}
    )
