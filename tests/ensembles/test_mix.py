"""Ways to hear several models together: what each does with voices of which the truth is known."""

import numpy as np
import pytest

from instrunet.ensembles import mix
from instrunet.ensembles.mix import METHODS, Voices
from instrunet.errors import ConfigError, DataError


def voices(noise: list[float], kind: str = "single", n: int = 300, seed: int = 0, n_groups: int = 20) -> Voices:
    """Members that know the truth as well as their noise allows; two windows a clip."""
    rng = np.random.default_rng(seed)
    truth = np.eye(4)[rng.integers(4, size=n)] > 0 if kind == "single" else rng.random((n, 4)) < 0.4
    clip = np.repeat(np.arange(n), 2)
    logits = [4 * (truth[clip] - 0.5) + rng.normal(0, sigma, (len(clip), 4)) for sigma in noise]
    groups = [f"g{k % n_groups:02d}" for k in range(n)]
    return Voices(kind, np.stack(logits), clip, truth, groups)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("method", list(METHODS))
def test_together_they_are_better_on_other_clips(method: str, kind: str) -> None:
    """Three equal ones that are wrong about different clips."""
    fitted = METHODS[method](voices([3.0, 3.0, 3.0], kind))
    heard = voices([3.0, 3.0, 3.0], kind, seed=1)
    alone = [mix.figure(one, heard) for one in heard.chances]
    scores = fitted.scores(heard)
    assert scores.shape == heard.truth.shape and np.isfinite(scores).all()
    assert mix.figure(scores, heard) > max(alone) + 0.02
    assert mix.log_loss(scores, heard) < min(mix.log_loss(one, heard) for one in heard.chances)


def test_a_voice_that_knows_nothing_is_not_heard() -> None:
    heard = voices([1.5, 1.5, 50.0])
    assert mix.greedy(heard).weights[2] == 0  # type: ignore[index]
    weights = mix.weighted(heard).weights
    assert weights is not None and weights[2] < 0.02 and weights.sum() == pytest.approx(1)
    assert mix.soft(heard).weights == pytest.approx([1 / 3] * 3)


def test_greedy_takes_a_member_more_than_once() -> None:
    weights = mix.greedy(voices([2.0, 2.6, 2.6])).weights
    assert weights is not None and weights[0] > weights[1:].max()


def test_stacking_unlearns_a_voice_that_is_always_wrong() -> None:
    """It says the next label: averages are led astray by it, a linear layer reads it."""
    right = voices([2.5])
    logits = np.stack([right.logits[0], np.roll(right.logits[0], 1, axis=1)])
    heard = Voices("single", logits, right.clip, right.truth, right.groups)
    assert mix.figure(mix.stacking(heard).scores(heard), heard) > mix.figure(mix.soft(heard).scores(heard), heard) + 0.2


def test_a_label_without_clips_is_never_said() -> None:
    heard = voices([2.0, 2.0])
    heard = heard.of(np.flatnonzero(~heard.truth[:, 3]))
    assert mix.stacking(heard).scores(heard)[:, 3].max() < 1e-3


def test_two_labels() -> None:
    heard = voices([2.0, 2.0])
    rows = np.flatnonzero(heard.truth[:, :2].any(1))
    some = heard.of(rows)
    two = Voices("single", some.logits[..., :2], some.clip, some.truth[:, :2], some.groups)
    assert mix.figure(mix.stacking(two).scores(two), two) > 0.9


def test_out_of_fold_is_not_flattered() -> None:
    """Forty voices of noise: chosen and judged on the same clips one looks right; on other groups it is not."""
    heard = voices([60.0] * 40, n=60)
    flattered = mix.figure(mix.greedy(heard).scores(heard), heard)
    honest = mix.out_of_fold(heard, "greedy")
    assert flattered > honest + 0.05
    with pytest.raises(DataError, match="clips of two groups at least to judge an ensemble by, got one"):
        mix.out_of_fold(voices([1.0, 1.0], n_groups=1), "soft")


def test_what_may_be_asked() -> None:
    assert mix.asked("best") == tuple(METHODS) and mix.asked("greedy") == ("greedy",)
    with pytest.raises(ConfigError, match="unknown --method gredy; expected best, soft"):
        mix.asked("gredy")
