"""Batches: who gets which row when, and what targets, weights and losses are made of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from instrunet.augment.specaugment import SpecAugmentSpec, draw
from instrunet.errors import DataError
from instrunet.features.shards import Features
from instrunet.losses import LOSSES
from instrunet.training.feed import Batch, Feed, class_weights, targets_of

LABELS = ("a", "b", "c")
WORLDS = [1, 2, 3, 4]
SIZES = [1, 7, 16, 23, 32]  # below, at and between multiples of the batch
BATCH = 8


def feed(n: int) -> Feed:
    """Row k holds the value k, so that a row can be told by its features."""
    values = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None], (n, 2, 3)).copy()
    clips = {"clip_id": [f"clip {k}" for k in range(n)], "labels": [[LABELS[k % 3]] for k in range(n)]}
    return Feed(Features({"logmel": values}, clips), LABELS, "train")


def rows(batch: Batch) -> list[int]:
    return [int(v) for v in batch.features["logmel"][:, 0, 0]]


def batches(n: int, world: int, rank: int, epoch: int = 0, seed: int = 0) -> list[list[int]]:
    return [rows(b) for b in feed(n).epoch(seed, epoch, BATCH, (rank, world), None)]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_each_row_once_an_epoch_and_the_last_batch_filled_from_the_start(n: int, world: int) -> None:
    whole = [row for batch in batches(n, 1, 0) for row in batch]
    assert sorted(whole[:n]) == list(range(n))
    assert len(whole) == -(-n // BATCH) * BATCH
    assert whole[n:] == [whole[k % n] for k in range(len(whole) - n)]
    shared = [row for rank in range(world) for batch in batches(n, world, rank) for row in batch]
    assert sorted(shared) == sorted(whole)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", WORLDS)
def test_all_workers_step_alike_and_together_are_the_one_workers_batch(n: int, world: int) -> None:
    each = [batches(n, world, rank) for rank in range(world)]
    assert {len(mine) for mine in each} == {-(-n // BATCH)} == {feed(n).n_batches(BATCH)}
    for step, whole in enumerate(batches(n, 1, 0)):
        union = [row for mine in each for row in mine[step]]
        assert sorted(union) == sorted(whole)
        assert max(len(mine[step]) for mine in each) - min(len(mine[step]) for mine in each) <= 1
        assert min(len(mine[step]) for mine in each) >= 1


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [batches(23, 1, 0, epoch, seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2]
    assert orders[0] == batches(23, 1, 0)


@pytest.mark.parametrize("world", WORLDS)
def test_draws_and_targets_travel_with_their_row(world: int) -> None:
    spec = SpecAugmentSpec()
    table = draw(spec, 5, 2, 23)
    for rank in range(world):
        for batch in feed(23).epoch(5, 2, BATCH, (rank, world), spec):
            np.testing.assert_array_equal(batch.draws.numpy(), table[rows(batch)])
            assert batch.targets.argmax(1).tolist() == [row % 3 for row in rows(batch)]


def test_without_augmentation_there_are_no_draws() -> None:
    assert next(feed(3).epoch(0, 0, BATCH, (0, 1), None)).draws.shape == (BATCH, 0)


def test_a_batch_is_half_precision_until_it_is_on_its_device() -> None:
    batch = next(feed(3).epoch(0, 0, BATCH, (0, 1), None))
    assert batch.features["logmel"].dtype == torch.float16
    moved = batch.to(torch.device("cpu"))
    assert moved.features["logmel"].dtype == torch.float32 and rows(moved) == rows(batch)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", [*WORLDS, 40])
def test_for_evaluation_each_row_once_with_its_number(n: int, world: int) -> None:
    seen = []
    for rank in range(world):
        for index, batch in feed(n).rows(BATCH, (rank, world)):
            assert rows(batch) == index.tolist() and len(index) <= BATCH
            seen += index.tolist()
    assert sorted(seen) == list(range(n))


def test_an_empty_split_is_refused() -> None:
    nothing = Features({"logmel": np.zeros((0, 2, 3), np.float16)}, {"clip_id": [], "labels": []})
    with pytest.raises(DataError, match="the val split holds no clip that could be decoded; see errors.parquet"):
        Feed(nothing, LABELS, "val")


def test_targets() -> None:
    found = targets_of([["b"], ["a", "c"], []], LABELS)
    assert found.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(DataError, match="the label 'flute' is not one of the model's: a, b, c"):
        targets_of([["a"], ["flute"]], LABELS)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    y = np.array([0] * 7 + [1] * 2 + [2] * 11)
    found = class_weights(torch.eye(3)[y])
    want = compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-6)
    assert float(found[y].mean()) == pytest.approx(1.0)


def test_a_class_without_rows_weighs_nothing_and_moves_no_other() -> None:
    y = torch.tensor([0, 0, 2])
    assert class_weights(torch.eye(3)[y])[1] == 0
    torch.testing.assert_close(class_weights(torch.eye(3)[y])[[0, 2]], class_weights(torch.eye(2)[y // 2]))


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_single_loss_is_scikit_learns(weights: list[float] | None) -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(20, 3)), np.concatenate([np.arange(3), rng.integers(0, 3, 17)])
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = LOSSES["single"](
        torch.tensor(logits), torch.eye(3)[y], None if not weights else torch.tensor(weights).double()
    )
    of_rows = None if not weights else np.array(weights)[y]
    assert float(found) == pytest.approx(log_loss(y, scores, sample_weight=of_rows), rel=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_multi_loss_is_the_mean_over_labels(weights: list[float] | None) -> None:
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=(20, 3)), rng.integers(0, 2, (20, 3))
    each = [log_loss(y[:, k], 1 / (1 + np.exp(-logits[:, k])), labels=[0, 1]) for k in range(3)]
    found = LOSSES["multi"](
        torch.tensor(logits), torch.tensor(y).double(), None if not weights else torch.tensor(weights).double()
    )
    assert float(found) == pytest.approx(np.mean(np.array(each) * (weights or 1.0)), rel=1e-6)
