"""Batches: who gets which row when, and what targets, weights and losses are made of them."""

from typing import Any

import numpy as np
import pytest
import torch

from instrunet.augment.specaugment import SpecAugmentSpec, draw
from instrunet.errors import DataError
from instrunet.features.shards import Features
from instrunet.training.feed import Batch, Feed, balanced, targets_of
from instrunet.training.optim import TrainSpec

LABELS = ("a", "b", "c")
WORLDS = [1, 2, 3, 4]
SIZES = [1, 7, 16, 23, 32]  # below, at and between multiples of the batch
BATCH = 8


def feed(n: int) -> Feed:
    """Row k holds the value k, so that a row can be told by its features."""
    values = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None], (n, 2, 3)).copy()
    names = [f"clip {k}" for k in range(n)]
    clips = {"clip_id": names, "uri": names, "labels": [[LABELS[k % 3]] for k in range(n)]}
    return Feed(Features({"logmel": values}, clips), LABELS, "train")


def plan(**other: Any) -> TrainSpec:
    return TrainSpec.model_validate({"batch_size": BATCH, "specaugment": None} | other)


def rows(batch: Batch) -> list[int]:
    return [int(v) for v in batch.features["logmel"][:, 0, 0]]


def batches(n: int, world: int, rank: int, epoch: int = 0, seed: int = 0) -> list[list[int]]:
    return [rows(b) for b in feed(n).epoch(plan(seed=seed), epoch, (rank, world))]


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
        for batch in feed(23).epoch(plan(seed=5, specaugment=spec), 2, (rank, world)):
            np.testing.assert_array_equal(batch.draws["specaugment"].numpy(), table[rows(batch)])
            assert batch.targets.argmax(1).tolist() == [row % 3 for row in rows(batch)]


def test_without_augmentation_there_are_no_draws() -> None:
    assert next(feed(3).epoch(plan(), 0, (0, 1))).draws == {}


def test_a_batch_is_half_precision_until_it_is_on_its_device() -> None:
    batch = next(feed(3).epoch(plan(), 0, (0, 1)))
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
    nothing = Features({"logmel": np.zeros((0, 2, 3), np.float16)}, {"clip_id": [], "uri": [], "labels": []})
    with pytest.raises(DataError, match="the val split holds no clip that could be decoded; see errors.parquet"):
        Feed(nothing, LABELS, "val")


def test_targets() -> None:
    found = targets_of([["b"], ["a", "c"], []], LABELS)
    assert found.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(DataError, match="the label 'flute' is not one of the model's: a, b, c"):
        targets_of([["a"], ["flute"]], LABELS)


def uneven(seed: int, epoch: int, share: tuple[int, int] = (0, 1), sampling: str = "balanced") -> list[list[int]]:
    """Rows of the batches of an epoch of 40, 6 and 2 rows of classes 0, 1 and 2; the first 36 are of one group."""
    y = [0] * 40 + [1] * 6 + [2] * 2
    values = np.broadcast_to(np.arange(48, dtype=np.float16)[:, None, None], (48, 2, 3)).copy()
    names = [str(k) for k in range(48)]
    group = ["long" if k < 36 else "short" if k < 40 else names[k] for k in range(48)]
    clips = {"clip_id": names, "uri": names, "labels": [[LABELS[k]] for k in y], "group": group}
    one = Feed(Features({"logmel": values}, clips), LABELS, "train")
    return [rows(batch) for batch in one.epoch(plan(seed=seed, sampling=sampling), epoch, share)]


def test_balanced_sampling_takes_each_class_alike() -> None:
    taken = [row for batch in uneven(0, 0) for row in batch]
    y = np.digitize(taken, [40, 46])
    assert np.bincount(y).tolist() == [16, 16, 16]
    for low, high, least in ((0, 40, 1), (40, 46, 2), (46, 48, 8)):  # 16 of 40 once; 16 of 6: 2 or 3 times; of 2: 8
        times = [taken.count(row) for row in range(low, high) if row in taken]
        assert min(times) >= least and max(times) - min(times) <= 1


def test_sampling_by_groups_takes_each_recording_of_a_class_alike() -> None:
    taken = [row for batch in uneven(0, 0, sampling="groups") for row in batch]
    assert np.bincount(np.digitize(taken, [36, 40, 46])).tolist() == [8, 8, 16, 16]
    assert sorted(taken.count(row) for row in range(36, 40)) == [2, 2, 2, 2]
    assert max(taken.count(row) for row in range(36)) == 1


@pytest.mark.parametrize("sampling", ["balanced", "groups"])
def test_balanced_sampling_depends_on_seed_and_epoch_alone(sampling: str) -> None:
    whole = uneven(3, 1, sampling=sampling)
    assert whole == uneven(3, 1, sampling=sampling)
    assert whole not in (uneven(3, 2, sampling=sampling), uneven(4, 1, sampling=sampling))
    three = [uneven(3, 1, (rank, 3), sampling) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(row for mine in three for row in mine[step])


def test_a_row_of_several_labels_stands_for_its_rarest() -> None:
    targets = torch.tensor([[1.0, 0, 0]] * 6 + [[1.0, 1, 0]] * 2 + [[0.0, 0, 0]])
    order = balanced(targets, np.random.default_rng(0))
    assert np.bincount(np.digitize(order, [6, 8])).tolist() == [3, 3, 3]
