"""mixup and polymix: weights, partners, labels, and polymix held to the features of the true sum of the sounds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from instrunet.augment.batch import MixupSpec, PolymixSpec, batch_generator, mixup, polymix
from instrunet.config import Spec
from instrunet.errors import ConfigError
from instrunet.features.featurizer import Featurizer, FrontEnd
from instrunet.features.hpss import HpssSpec
from instrunet.features.logmel import LogMelSpec

RATE, DB = 22_050, 10 / np.log(10)


def rng(batch: int = 0) -> np.random.Generator:
    return batch_generator(0, 0, batch)


def one_hot(classes: list[int], k: int = 4) -> Tensor:
    return torch.eye(k)[classes]


def flat(values: list[float]) -> dict[str, Tensor]:
    """A batch of constant pictures [B, 2, 3]."""
    return {"logmel": torch.tensor(values)[:, None, None].expand(-1, 2, 3)}


def test_mixup_blends_features_and_targets_by_the_same_weight() -> None:
    features, targets = mixup(flat([0.0, 1, 2, 3]), torch.eye(4), MixupSpec(alpha=1), rng())
    for row in range(4):
        assert (targets[row] > 0).sum() == 2 and targets[row].sum() == pytest.approx(1)
        expected = float((targets[row] * torch.arange(4.0)).sum())
        assert features["logmel"][row].flatten().tolist() == pytest.approx([expected] * 6)


def test_mixup_weights_follow_alpha_and_per() -> None:
    targets = torch.eye(400)
    for alpha, far in ((0.2, 0.29), (1.0, 0.25)):  # E|w - 1/2| of Beta(alpha, alpha): 0.376, 0.25
        own = mixup({}, targets, MixupSpec(alpha=alpha), rng())[1].diagonal()
        assert (own - 0.5).abs().mean() > far - 0.03 and len(set(own.tolist())) > 300
    own = mixup({}, targets, MixupSpec(alpha=1, per="batch"), rng())[1].diagonal()
    assert len(set(own.tolist())) == 1


@pytest.mark.parametrize("n", [2, 3, 8])
def test_nobody_is_mixed_with_itself(n: int) -> None:
    for batch in range(20):
        own = mixup({}, torch.eye(n), MixupSpec(alpha=50), rng(batch))[1].diagonal()
        assert own.max() < 0.9


@pytest.mark.parametrize("spec", [MixupSpec(), PolymixSpec(p=1)])
def test_one_row_alone_is_left_as_it_is(spec: Spec) -> None:
    mix = mixup if isinstance(spec, MixupSpec) else polymix
    features, targets = mix(flat([2.0]), one_hot([1]), spec, rng())  # type: ignore[arg-type]
    assert torch.equal(targets, one_hot([1])) and torch.equal(features["logmel"], flat([2.0])["logmel"])


@pytest.mark.parametrize("spec", [MixupSpec(), PolymixSpec(p=1)])
def test_the_same_batch_is_mixed_alike_and_others_otherwise(spec: Spec) -> None:
    mix = mixup if isinstance(spec, MixupSpec) else polymix
    batch = {"logmel": torch.randn(16, 4, 5, generator=torch.Generator().manual_seed(0))}
    targets = one_hot([k % 4 for k in range(16)])
    outs = [
        mix(batch, targets, spec, batch_generator(*key))
        for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3))
    ]  # type: ignore[arg-type]
    assert torch.equal(outs[0][0]["logmel"], outs[1][0]["logmel"]) and torch.equal(outs[0][1], outs[1][1])
    for other in outs[2:]:
        assert not torch.equal(outs[0][0]["logmel"], other[0]["logmel"])


def test_polymix_adds_powers_and_unites_labels() -> None:
    spec = PolymixSpec(p=1, partners=1, level_db=(-6, -6))
    features, targets = polymix(flat([0.0, 2.0]), one_hot([0, 2]), spec, rng())
    g = 10**-0.6
    expected = [np.log((1 + g * np.e**2) / (1 + g)), np.log((np.e**2 + g) / (1 + g))]
    for row in range(2):
        assert targets[row].tolist() == [1, 0, 1, 0]
        assert features["logmel"][row].flatten().tolist() == pytest.approx([expected[row]] * 6, rel=1e-5)


def test_polymix_takes_partners_of_other_classes_only() -> None:
    targets = one_hot([0, 0, 0, 0, 1])
    _, mixed = polymix(flat([0.0] * 5), targets, PolymixSpec(p=1, partners=3), rng())
    assert mixed[:4].tolist() == [[1, 1, 0, 0]] * 4 and mixed[4].tolist() == [1, 1, 0, 0]
    alike = one_hot([2] * 6)
    features, mixed = polymix(flat([1.0, 2, 3, 4, 5, 6]), alike, PolymixSpec(p=1), rng())
    assert torch.equal(mixed, alike) and torch.equal(features["logmel"], flat([1.0, 2, 3, 4, 5, 6])["logmel"])


def test_polymix_draws_every_number_of_partners_and_p_of_the_rows() -> None:
    n = 600
    _, mixed = polymix(flat([0.0] * n), torch.eye(n), PolymixSpec(p=0.6, partners=3), rng())
    share = [float((mixed.sum(1) == 1 + k).float().mean()) for k in range(4)]
    assert share == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.05)  # 3 standard errors: 0.06 and 0.049


def test_polymix_leaves_the_others_to_the_last_bit() -> None:
    batch = {"logmel": torch.randn(64, 8, 9, generator=torch.Generator().manual_seed(0))}
    targets = one_hot([k % 4 for k in range(64)])
    features, mixed = polymix(batch, targets, PolymixSpec(p=0.5), rng())
    alone = mixed.sum(1) == 1
    assert 10 < alone.sum() < 54 and torch.equal(features["logmel"][alone], batch["logmel"][alone])


def test_polymix_of_silence_is_silence() -> None:
    floor = float(np.log(1e-5))
    features, _ = polymix(flat([floor] * 4), torch.eye(4), PolymixSpec(p=1), rng())
    torch.testing.assert_close(features["logmel"], flat([floor] * 4)["logmel"])


def test_polymix_refuses_features_whose_powers_do_not_add() -> None:
    with pytest.raises(ConfigError, match="polymix works on logmel, hpss; got chroma, cqt: leave it out of"):
        polymix({"cqt": torch.ones(2, 3, 4), "chroma": torch.ones(2, 3, 4)}, torch.eye(2), PolymixSpec(), rng())
    with pytest.raises(ConfigError, match="level_db needs -60 <= low <= high <= 60; got 3 and -3"):
        PolymixSpec.parse({"level_db": [3, -3]}, "x")


def note(hz: float, decay: float, noise: float, seed: int) -> np.ndarray:
    """A sound with harmonics, an end and a breath: peak 1."""
    t = np.arange(3 * RATE) / RATE
    rows = [np.sin(2 * np.pi * hz * k * t + k) / k for k in range(1, 12) if hz * k < RATE / 2]
    wave = sum(rows) * np.exp(-decay * t) + noise * np.random.default_rng(seed).standard_normal(len(t))
    return (wave / np.abs(wave).max()).astype(np.float32)


NOTES = [note(220, 0.5, 0.05, 0), note(587, 2, 0.02, 1), note(1318, 1, 0.1, 2), note(147, 0.2, 0.01, 3)]


@pytest.mark.parametrize(("level", "offset_db"), [("none", 0), ("rms", 0), ("peak", -1.7)])
def test_polymix_is_what_the_sum_of_the_sounds_looks_like(level: str, offset_db: float) -> None:
    """Partner 3 dB below. Medians of the difference: log-mel 0.22 dB (95th percentile 1.9), hpss 0.59 dB (4.5).

    With `peak` the mixture is 1.7 dB too loud: peaks of two sounds add up to more than their powers do.
    """
    front = FrontEnd(features=(LogMelSpec(), HpssSpec()), level=level)  # type: ignore[arg-type]
    featurizer = Featurizer(front)
    singles = featurizer.fast(np.concatenate(NOTES))
    batch = {name: torch.from_numpy(value) for name, value in singles.features.items()}
    spec = PolymixSpec(p=1, partners=1, level_db=(-3, -3))
    features, targets = polymix(batch, torch.eye(4), spec, rng())
    levelled = [wave / (10 * np.sqrt(np.mean(wave**2))) if level == "rms" else wave for wave in NOTES]
    g, sums = 10**-0.3, []
    for row in range(4):
        other = next(k for k in torch.nonzero(targets[row]).flatten().tolist() if k != row)
        sums.append((levelled[row] + np.sqrt(g) * levelled[other]) / np.sqrt(1 + g))
    true = featurizer.fast(np.concatenate(sums).astype(np.float32)).features
    for name, median_db in (("logmel", 0.3), ("hpss", 0.7)):
        differ = (true[name] - features[name].numpy()) * DB
        assert np.median(differ) == pytest.approx(offset_db, abs=0.1)
        if not offset_db:
            assert np.median(np.abs(differ)) < median_db


def test_the_longer_of_two_windows_says_how_long_a_mixture_is() -> None:
    share = torch.tensor([0.25, 0.5, 1.0, 0.75])
    features = {"logmel": torch.zeros(4, 2, 8), "share": share}
    targets = torch.eye(4)
    mixed, _ = mixup(features, targets, MixupSpec(alpha=1.0), batch_generator(0, 0, 0))
    assert (mixed["share"] >= share).all() and mixed["share"].sum() > share.sum()
    summed, united = polymix(features, targets, PolymixSpec(p=1.0, partners=1), batch_generator(0, 0, 0))
    want = (united * share).amax(1)
    assert torch.equal(summed["share"], want)
