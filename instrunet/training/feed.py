"""Features to batches: one permutation of the epoch for all workers, of which each takes its rows.

Shapes: N windows, B rows of one worker's batch, K labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet.augment.specaugment import SpecAugmentSpec, draw
from instrunet.errors import DataError
from instrunet.features.shards import Features, alike
from instrunet.models import SHARE

POOL = 8  # batches that are sorted together: rows of one length meet others still, as a class may have one length


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
        self.frames = features.frames

    def n_batches(self, batch_size: int) -> int:
        return -(-self.n // batch_size)

    def epoch(
        self, seed: int, epoch: int, batch_size: int, share: tuple[int, int], augment: SpecAugmentSpec | None
    ) -> Iterator[Batch]:
        """This worker's rows of each shuffled batch; the last is filled up from the start: all workers step alike."""
        rank, world = share
        order = np.random.default_rng([seed, epoch, 1]).permutation(self.n)
        order = np.resize(order, self.n_batches(batch_size) * batch_size)
        if self.frames is not None:
            order = by_length(order, self.frames, batch_size, seed, epoch)
        draws = draw(augment, seed, epoch, self.n) if augment else np.zeros((self.n, 0), np.float32)
        for at in range(0, len(order), batch_size):
            whole = order[at : at + batch_size]
            yield self._take(whole[rank::world], draws, self._longest(whole))

    def rows(self, batch_size: int, share: tuple[int, int]) -> Iterator[tuple[np.ndarray, Batch]]:
        """This worker's part of the split in order, for evaluation: each row once, with its numbers."""
        mine = np.arange(self.n)[share[0] :: share[1]]
        none = np.zeros((self.n, 0), np.float32)
        for place in alike(len(mine), None if self.frames is None else self.frames[mine], batch_size):
            index = mine[place]
            yield index, self._take(index, none, self._longest(index))

    def _longest(self, index: np.ndarray) -> int | None:
        """Frames of the longest of these windows; None where all have all."""
        return None if self.frames is None else int(self.frames[index].max())

    def _take(self, index: np.ndarray, draws: np.ndarray, n_frames: int | None) -> Batch:
        rows = torch.from_numpy(index)
        features = {name: value[rows][..., :n_frames] for name, value in self.values.items()}
        if self.frames is not None:
            features[SHARE] = torch.from_numpy(self.frames[index] / n_frames)
        return Batch(features, self.targets[rows], torch.from_numpy(draws[index]))


def by_length(
    order: np.ndarray, frames: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Some batches' worth of rows at a time sorted by length, and those batches shuffled: little of one is padding."""
    rng, pools = np.random.default_rng([seed, epoch, 2]), []
    for at in range(0, len(order), POOL * batch_size):
        pool = order[at : at + POOL * batch_size]
        batches = pool[np.argsort(frames[pool], kind="stable")].reshape(-1, batch_size)
        pools.append(rng.permutation(batches).reshape(-1))
    return np.concatenate(pools)


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
