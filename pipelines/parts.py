"""Parts of a plan on Ray Data: every part that is not there yet goes to an actor, which publishes it itself.

Only part numbers and summaries pass through Ray; sound and features go from disk to disk. What is left after a kill is
the plan minus a listing, so there is nothing of Ray's to restore.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray.data

from instrunet.data.parts import left
from instrunet.errors import InstrunetError, JobError
from pipelines import cluster

CPUS_PER_ACTOR = 0.5  # a pool that reserves every CPU starves Ray Data's own tasks and hangs


class Pool(NamedTuple):
    """So many actors, and what each of them holds."""

    actors: int
    cpus: float = CPUS_PER_ACTOR
    gpus: float = 0
    at_once: int = 1  # parts that one makes in threads


class PartWorker(Protocol):
    """One actor: built once, then called with {"part": k}; publishes part k and returns what to show of it."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]: ...


def run(
    folder: Path, kind: str, n_parts: int, worker: type, arguments: Mapping[str, Any], suffix: str = ".parquet"
) -> Iterator[dict[str, Any]]:
    """Make the missing parts; yields each one's summary as it is done."""
    return made(left(folder, kind, n_parts, suffix), worker, arguments, lambda: Pool(cluster.slots()))


def made(
    todo: list[int], worker: type, arguments: Mapping[str, Any], pool: Callable[[], Pool]
) -> Iterator[dict[str, Any]]:
    """Make these parts with a pool that is asked for where there is something to do."""
    if not todo:
        return
    actors, cpus, gpus, at_once = pool()
    dataset = ray.data.from_items([{"part": k} for k in todo], override_num_blocks=len(todo)).map(
        worker,
        fn_constructor_kwargs=dict(arguments),
        compute=ray.data.ActorPoolStrategy(
            size=min(len(todo), actors),
            max_tasks_in_flight_per_actor=max(2, at_once),  # one that waits there is enough: others may be free sooner
            max_concurrent_calls_per_actor=at_once,
            enable_true_multi_threading=at_once > 1,
        ),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    for summary in dataset.iter_rows():
        if summary["failed"]:
            raise JobError(summary["failed"])
        yield summary


def told(make: Callable[[int], dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """A part's summary, or that the job cannot go on: as a row, for Ray would bury an exception in its own."""
    number = int(row["part"])
    try:
        return {"part": number, "failed": "", **make(number)}
    except (InstrunetError, OSError) as error:
        return {"part": number, "failed": str(error)}
