"""Features to batches: one permutation of the epoch for all workers, of which each takes its rows.

Shapes: N windows, B rows of one worker's batch, K labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instrunet.augment.specaugment import SpecAugmentSpec, draw
from instrunet.errors import DataError
from instrunet.features.shards import Features


@dataclass(frozen=True)
class Batch:
    features: dict[str, Tensor]  # each [B, F, L], half precision until it is on the device
    targets: Tensor  # [B, K], 0 or 1
    draws: Tensor  # [B, n_draws] random numbers for SpecAugment, or [B, 0]

    def to(self, device: torch.device) -> "Batch":
        features = {name: value.to(device).float() for name, value in self.features.items()}
        return Batch(features, self.targets.to(device), self.draws.to(device))


class Feed:
    """A split in memory. The order of an epoch depends on (seed, epoch) alone, so workers only share it out."""

    def __init__(self, features: Features, labels: tuple[str, ...], split: str) -> None:
        if not len(features):
            raise DataError(f"the {split} split holds no clip that could be decoded; see errors.parquet")
        self.values = {name: torch.from_numpy(array) for name, array in features.values.items()}
        self.targets = targets_of(features.clips["labels"], labels)
        self.clip_ids = features.clips["clip_id"]
        self.n = len(features)

    def n_batches(self, batch_size: int) -> int:
        return -(-self.n // batch_size)

    def epoch(
        self, seed: int, epoch: int, batch_size: int, share: tuple[int, int], augment: SpecAugmentSpec | None
    ) -> Iterator[Batch]:
        """This worker's rows of each shuffled batch; the last is filled up from the start: all workers step alike."""
        rank, world = share
        order = np.random.default_rng([seed, epoch, 1]).permutation(self.n)
        order = np.resize(order, self.n_batches(batch_size) * batch_size)
        draws = draw(augment, seed, epoch, self.n) if augment else np.zeros((self.n, 0), np.float32)
        for at in range(0, len(order), batch_size):
            yield self._take(order[at : at + batch_size][rank::world], draws)

    def rows(self, batch_size: int, share: tuple[int, int]) -> Iterator[tuple[np.ndarray, Batch]]:
        """This worker's part of the split in order, for evaluation: each row once, with its numbers."""
        mine = np.arange(self.n)[share[0] :: share[1]]
        none = np.zeros((self.n, 0), np.float32)
        for at in range(0, len(mine), batch_size):
            index = mine[at : at + batch_size]
            yield index, self._take(index, none)

    def _take(self, index: np.ndarray, draws: np.ndarray) -> Batch:
        rows = torch.from_numpy(index)
        features = {name: value[rows] for name, value in self.values.items()}
        return Batch(features, self.targets[rows], torch.from_numpy(draws[index]))


def targets_of(rows: list[list[str]], labels: tuple[str, ...]) -> Tensor:
    place = {label: k for k, label in enumerate(labels)}
    targets = torch.zeros(len(rows), len(labels))
    for row, names in enumerate(rows):
        for name in names:
            if name not in place:
                raise DataError(f"the label {name!r} is not one of the model's: {', '.join(labels)}")
            targets[row, place[name]] = 1
    return targets


def class_weights(targets: Tensor) -> Tensor:
    """Inverse frequency, with mean 1 over the rows; a class without rows gets 0."""
    counts = targets.sum(0)
    present = counts > 0
    return torch.where(present, counts.sum() / counts.clamp_min(1) / present.sum(), torch.zeros_like(counts))
