"""Which windows of an archive are most worth a label: those that the model is unsure of, and unlike each other.

Of an ensemble, too, those that its members say different things of, each maybe sure: from the embeddings and its heads.
Shapes: W windows, K labels, E numbers of an embedding, M members, N windows that are picked.
"""

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from instrunet.archive import books
from instrunet.bundle import Bundle
from instrunet.data import places
from instrunet.errors import ConfigError, DataError
from instrunet.models.combined import Mixed
from instrunet.models.ensemble import Heads
from instrunet.rule import Rule

Members = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # embeddings [W, E] to scores [M, W, K]
POOL = 20  # unsure windows that are held for each that is picked
FEWEST = 3  # windows of a unit at most: neighbours say nearly the same
_COLUMNS = ["uri", "start_s", "stop_s", "window_start_s", "scores", "embeddings"]


class Window(NamedTuple):
    uri: str
    start_s: float
    stop_s: float
    unsure: float
    scores: NDArray[np.float32]  # [K]
    place: NDArray[np.float32]  # [E], or the scores where no embeddings were kept


def pick(runs: list[Path], n: int, rule: Rule, members: Members | None = None) -> list[Window]:
    """The N windows, the least sure one first. Held is a pool of some times as many, whatever the archive's size."""
    pool: list[tuple[float, int, Window]] = []
    for k, window in enumerate(window for run in runs for window in _windows(run, rule, members)):
        item = (window.unsure, -k, window)
        if len(pool) < n * POOL:
            heapq.heappush(pool, item)
        else:
            heapq.heappushpop(pool, item)
    if not pool:
        raise DataError("expected tags with scores, found none: nothing in the archive was heard")
    found = [window for *_, window in sorted(pool, key=lambda item: item[:2], reverse=True)]
    return [found[k] for k in _spread(found, n)]


def unsureness(scores: NDArray[np.floating[Any]], rule: Rule) -> NDArray[np.float64]:
    """[W, K] to [W], 1 where it could be either: the best two labels are equal, or a score is at its threshold."""
    if rule.spec.kind == "single":
        best = np.sort(scores, axis=-1)[:, ::-1]
        return np.asarray(1 - (best[:, 0] - best[:, 1]), np.float64)
    return np.asarray(1 - np.abs(scores - rule.thresholds).min(-1), np.float64)


def members_of(bundle: Bundle) -> Members:
    """What each member of an ensemble says of embeddings."""
    head = bundle.network.body.head
    if not isinstance(head, Heads | Mixed):
        raise ConfigError(f"--bundle needs an ensemble, whose members may disagree; {bundle.spec.model.name} is none")

    @torch.inference_mode()
    def scores(points: NDArray[np.float32]) -> NDArray[np.float32]:
        split = torch.from_numpy(points).split(head.widths, 1)
        logits = torch.stack([one(part).float() for one, part in zip(head.heads, split, strict=True)])  # [M, W, K]
        logits = logits / head.temperatures[:, None] if isinstance(head, Mixed) else logits
        found: NDArray[np.float32] = (logits.softmax(2) if bundle.spec.kind == "single" else logits.sigmoid()).numpy()
        return found

    return scores


def disagreement(said: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """[M, W, K] to [W], 0 where all say the same: how far a member is from the mean (the half of what differs), or how
    far apart two are on a label."""
    if kind == "single":
        return np.asarray(np.abs(said - said.mean(0)).sum(2).mean(0) / 2, np.float64)
    return np.asarray((said.max(0) - said.min(0)).max(1), np.float64)


def _windows(run: Path, rule: Rule, members: Members | None) -> Iterator[Window]:
    for path in sorted((run / books.UNITS).glob("part-*.parquet")):
        file = pq.ParquetFile(places.source(path))
        there = [name for name in _COLUMNS if name in file.schema_arrow.names]
        if members and "embeddings" not in there:
            raise DataError(f"{run} has no embeddings, by which members are told apart; tag with --embeddings")
        for row in file.read(there).to_pylist():
            if row["scores"]:
                yield from _of_unit(row, rule, members)


def _of_unit(row: dict[str, Any], rule: Rule, members: Members | None) -> Iterator[Window]:
    scores = np.asarray(rule.calibrated(np.array(row["scores"], np.float64)), np.float32)
    places_ = np.array(row.get("embeddings") or row["scores"], np.float32)
    unsure = unsureness(scores, rule)
    if members:  # either is reason enough
        unsure = 1 - (1 - unsure) * (1 - disagreement(members(places_), rule.spec.kind))
    for k in np.argsort(-unsure, kind="stable")[:FEWEST].tolist():
        start_s = float(row["window_start_s"][k])
        stop_s = min(start_s + rule.spec.front.window_s, max(row["stop_s"], start_s))
        yield Window(row["uri"], start_s, stop_s, float(unsure[k]), scores[k], places_[k])


def _spread(pool: list[Window], n: int) -> list[int]:
    """The least sure, then again and again what is farthest from all that are picked, times how unsure it is."""
    points = np.stack([window.place for window in pool])
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-6
    unsure = np.array([window.unsure for window in pool])
    picked, far = [0], np.full(len(pool), np.inf)
    while len(picked) < min(n, len(pool)):
        far = np.minimum(far, np.linalg.norm(points - points[picked[-1]], axis=1))
        far[picked[-1]] = -1.0
        picked.append(int(np.argmax(np.where(far < 0, -1.0, far * unsure))))
    return picked
