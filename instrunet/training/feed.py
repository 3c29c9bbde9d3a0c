"""Features to batches: one order of the epoch for all workers, of which each takes its rows.

Shapes: N windows, B rows of one worker's batch, K labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet.errors import DataError
from instrunet.features import SHARE, mapped
from instrunet.features.featurizer import FrontEnd, alike
from instrunet.features.shards import Features
from instrunet.training import augment
from instrunet.training.optim import TrainSpec

AHEAD = 4  # batches whose pages are asked for before they are needed
POOL = 8  # batches that are sorted together: rows of one length meet others still, as a class may have one length


@dataclass(frozen=True)
class Batch:
    features: dict[str, Tensor]  # each [B, F, L], half precision until it is on the device
    targets: Tensor  # [B, K], 0 or 1
    draws: dict[str, Tensor]  # {effect: [B, n_draws]}, random numbers
    number: int = 0  # in its epoch

    def to(self, device: torch.device) -> "Batch":
        features = {name: value.to(device).float() for name, value in self.features.items()}
        draws = {name: value.to(device) for name, value in self.draws.items()}
        return Batch(features, self.targets.to(device), draws, self.number)


class Feed:
    """A split, held or mapped. The order of an epoch depends on (seed, epoch) alone, so workers only share it out."""

    def __init__(self, features: Features, labels: tuple[str, ...], split: str) -> None:
        if not len(features):
            raise DataError(f"the {split} split holds no clip that could be decoded; see errors.parquet")
        self.files = list(features.values.values())
        self.values = {name: torch.from_numpy(array) for name, array in features.values.items()}
        self.targets = targets_of(features.clips["labels"], labels)
        self.clip_ids, self.uris = features.clips["clip_id"], features.clips["uri"]
        self.n = len(features)
        self.frames = features.frames
        self._clips = features.clips

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """[N], a number for each recording, speaker or player."""
        return np.unique(np.array(self._clips["group"], str), return_inverse=True)[1]

    def n_batches(self, batch_size: int) -> int:
        return -(-self.n // batch_size)

    def epoch(self, spec: TrainSpec, epoch: int, share: tuple[int, int], span: slice = slice(None)) -> Iterator[Batch]:
        """This worker's rows of each shuffled batch; the last is filled up from the start: all workers step alike.

        A `span` of the epoch's batches is made of the same numbers as when all of them are asked for.
        """
        rank, world = share
        rng = np.random.default_rng([spec.seed, epoch, 1])
        order = self._order(spec, rng)
        order = np.resize(order, (self.n_batches(spec.batch_size), spec.batch_size))
        if self.frames is not None:
            order = by_length(order, self.frames, rng)
        draws = augment.draw(spec, epoch, self.n)
        for number in range(len(order))[span]:
            whole, later = order[number], order[number + AHEAD : number + AHEAD + 1, rank::world]
            for file in self.files:
                mapped.expect(file, later.reshape(-1))
            yield self._take(whole[rank::world], draws, number, self._longest(whole))

    def sample(self, spec: TrainSpec, epoch: int, number: int, share: tuple[int, int]) -> Batch:
        """This worker's rows of a batch that is drawn from all of the split; rows repeat where there are too few."""
        rank, world = share
        rng = np.random.default_rng([spec.seed, epoch, number, 2])
        whole = rng.choice(self.n, spec.batch_size, replace=self.n < spec.batch_size)
        draws = augment.draw(spec, epoch, self.n)
        return self._take(whole[rank::world], draws, number, self._longest(whole))

    def rows(self, batch_size: int, share: tuple[int, int]) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """This worker's part of the split in order, for evaluation: each row once, with its numbers."""
        mine = np.arange(self.n)[share[0] :: share[1]]
        for place in alike(len(mine), None if self.frames is None else self.frames[mine], batch_size):
            index = mine[place]
            yield index, self._take(index, {}, 0, self._longest(index))

    def _order(self, spec: TrainSpec, rng: np.random.Generator) -> NDArray[np.int64]:
        if spec.sampling == "shuffled":
            return rng.permutation(self.n)
        return balanced(self.targets, rng, self.groups if spec.sampling == "groups" else None)

    def _longest(self, index: NDArray[np.int64]) -> int | None:
        """Frames of the longest of these windows; None where all have all."""
        return None if self.frames is None else int(self.frames[index].max())

    def _take(
        self, index: NDArray[np.int64], draws: Mapping[str, NDArray[np.float32]], number: int, n_frames: int | None
    ) -> Batch:
        rows = torch.from_numpy(index)
        features = {name: value[rows][..., :n_frames] for name, value in self.values.items()}
        if self.frames is not None and n_frames:
            features[SHARE] = torch.from_numpy(self.frames[index] / n_frames)
        mine = {name: torch.from_numpy(table[index]) for name, table in draws.items()}
        return Batch(features, self.targets[rows], mine, number)


def is_mapped(folder: Path, front: FrontEnd, feed: str, n_neighbours: int) -> bool:
    """Whether features are to be mapped; `auto` lets the workers of this machine take half of what memory is left."""
    if feed != "auto":
        return feed == "map"
    held = sum(mapped.n_bytes(folder, front, split) for split in ("train", "val"))
    return held * n_neighbours > mapped.available() / 2


def by_length(order: NDArray[np.int64], frames: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Batches [n, B], some of them at a time sorted by length, and those shuffled: little of a batch is padding."""
    pools = []
    for at in range(0, len(order), POOL):
        pool = order[at : at + POOL]
        rows = pool.reshape(-1)
        pools.append(rng.permutation(rows[np.argsort(frames[rows], kind="stable")].reshape(pool.shape)))
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


def balanced(targets: Tensor, rng: np.random.Generator, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """As many rows as there are, of each class as many; a row of several labels stands for its rarest one.

    A class that has fewer rows repeats them all before any comes again, one that has more leaves some out. With
    `groups` so do those of a class: a network then learns less of the one recording that most of its clips are from.
    """
    counts = targets.sum(0)
    rarest = torch.where(targets > 0, counts, torch.inf).argmin(1)
    of_row = torch.where(targets.any(1), rarest, -1).numpy()  # rows without any label are a class too
    return _alike(np.arange(len(of_row)), len(of_row), (of_row,) if groups is None else (of_row, groups), rng)


def _alike(
    rows: NDArray[np.int64], n: int, keys: tuple[NDArray[np.int64], ...], rng: np.random.Generator
) -> NDArray[np.int64]:
    """`n` of these rows, every value of the first key as often as any other, and so on within it."""
    if not keys:
        return np.resize(rng.permutation(rows), n)
    own = keys[0][rows]
    slots = rng.permutation(np.resize(rng.permutation(np.unique(own)), n))
    order = np.empty(n, np.int64)
    for value in np.unique(slots):
        mine = slots == value
        order[mine] = _alike(rows[own == value], int(mine.sum()), keys[1:], rng)
    return order
