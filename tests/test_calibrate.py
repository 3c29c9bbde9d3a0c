"""Calibration brings scores nearer to what is true on clips it has not heard, and never hears those it is told of."""

import numpy as np
import pytest
from making import draft
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression

from instrunet.bundle_spec import BundleSpec
from instrunet.calibrate import Asked, Heard, crossed, decided, fit, isotonic, measured, temperature
from instrunet.decisions import Kind

KINDS: tuple[Kind, ...] = ("single", "multi")


def overconfident(kind: Kind, seed: int, times: float = 3.0, n: int = 600, windows: int = 1) -> Heard:
    """Clips whose labels are drawn by the very scores of z, and a network that says `times` z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.2, (n, 3))
    if kind == "single":
        truth = np.array([rng.multinomial(1, row) for row in softmax(z, axis=1)]) > 0
    else:
        truth = rng.random((n, 3)) < expit(z)
    logits = np.repeat(times * z, windows, axis=0).astype(np.float32)
    ids = np.repeat(np.array([f"clip{k}" for k in range(n)], object), windows)
    return Heard(kind, logits, ids, truth, np.array([f"group{k % 12}" for k in range(n)], object))


@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_that_was_put_in_is_found(kind: Kind) -> None:
    assert temperature(overconfident(kind, 0, times=3.0, n=3000)) == pytest.approx(3.0, rel=0.1)
    assert temperature(overconfident(kind, 0, times=0.5, n=3000)) == pytest.approx(0.5, rel=0.1)


def test_it_is_fitted_to_clips_and_not_to_windows() -> None:
    one, five = overconfident("single", 0), overconfident("single", 0, windows=5)
    assert temperature(one) == pytest.approx(temperature(five), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_other_clips_have_a_lower_error_than_before(kind: Kind, method: str) -> None:
    made = fit(overconfident(kind, 1), method)  # type: ignore[arg-type]
    others = overconfident(kind, 2)
    before, after = (measured(others, scores) for scores in (others.scores(), made.scores(others)))
    assert before.ece > 0.1 > after.ece and after.ece < before.ece / 2
    assert after.brier < before.brier


@pytest.mark.parametrize("kind", KINDS)
def test_clips_without_a_mistake_do_not_prove_that_there_is_none(kind: Kind) -> None:
    truth = np.eye(3)[np.arange(30) % 3] > 0
    ids = np.array([str(k) for k in range(30)], object)
    heard = Heard(kind, np.where(truth, 4, -4).astype(np.float32), ids, truth, ids)
    scores = heard.scores(temperature(heard))  # by the log loss alone it would be as cold as allowed
    n = 30 if kind == "single" else 90
    assert scores[truth].mean() == pytest.approx((n + 1) / (n + 2), abs=1e-3)
    for curve in isotonic(heard):
        assert (min(curve.to), max(curve.to)) == pytest.approx((1 / 64 if kind == "single" else 1 / 32, 31 / 32))


def test_curves_are_those_of_scikit_learn() -> None:
    heard = overconfident("multi", 3)
    scores, bent = heard.scores(), fit(heard, "isotonic").scores(heard)
    for k in range(3):
        model = IsotonicRegression(y_min=1 / 602, y_max=601 / 602).fit(scores[:, k], heard.truth[:, k])
        np.testing.assert_allclose(bent[:, k], model.predict(scores[:, k]), atol=1e-6)
    single = overconfident("single", 3)
    np.testing.assert_allclose(fit(single, "isotonic").scores(single).sum(1), 1)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_clip_is_never_told_by_a_fit_that_heard_its_group(method: str) -> None:
    heard = overconfident("single", 4)
    turned = heard.truth.copy()
    mine = heard.groups == "group5"
    turned[mine] = np.roll(turned[mine], 1, axis=1)
    other = Heard("single", heard.logits, heard.clip_ids, turned, heard.groups)
    a, b = crossed(heard, method), crossed(other, method)  # type: ignore[arg-type]
    assert a is not None and b is not None
    np.testing.assert_array_equal(a[mine], b[mine])
    assert np.abs(a[~mine] - b[~mine]).max() > 0


def test_one_group_cannot_be_crossed() -> None:
    heard = overconfident("single", 5, n=40)
    alone = Heard("single", heard.logits, heard.clip_ids, heard.truth, np.array(["g"] * 40, object))
    assert crossed(alone, "temperature") is None
    made, _ = decided(draft(), alone, Asked(), "corpus", "digest")
    assert made.decisions and made.decisions.fitted and made.decisions.fitted.after is None


def test_all_that_is_decided_stands_in_the_spec() -> None:
    spec, heard = draft(kind="multi"), overconfident("multi", 6)
    made, notes = decided(spec, heard, Asked("temperature", "precision=0.7", 0.25), "corpus", "digest")
    assert notes == [] and made.temperature == pytest.approx(temperature(heard))
    assert len(made.thresholds) == 3 and made.decisions and made.decisions.fitted
    told = made.decisions.fitted
    assert (told.parent, told.corpus, told.manifest) == (spec.fingerprint(), "corpus", "digest")
    assert (told.n_clips, told.n_groups, told.thresholds, told.max_risk) == (600, 12, "precision=0.7", 0.25)
    assert told.after and told.after.ece < told.before.ece
    assert told.risk <= 0.25 and 0 < told.coverage <= 1
    assert BundleSpec.parse(made.model_dump(mode="json"), "test") == made


def test_an_earlier_calibration_leaves_nothing() -> None:
    spec, heard = draft(kind="multi"), overconfident("multi", 7)
    first, _ = decided(spec, heard, Asked("isotonic", "f1", 0.3), "corpus", "digest")
    again, _ = decided(first, heard, Asked(), "corpus", "digest")
    plain, _ = decided(spec, heard, Asked(), "corpus", "digest")
    assert (again.temperature, again.thresholds) == (plain.temperature, ())
    assert again.decisions and again.decisions.isotonic == () and again.decisions.abstain_below == 0


def test_a_calibration_that_does_harm_says_so() -> None:
    rng = np.random.default_rng(8)
    heard = overconfident("multi", 8, times=1.0, n=24)
    heard = Heard("multi", heard.logits, heard.clip_ids, heard.truth, rng.permutation(heard.groups))
    _, notes = decided(draft(kind="multi"), heard, Asked("isotonic"), "corpus", "digest")
    assert [note for note in notes if note.startswith("the ECE of clips left out of the fit rises from 0.")]
