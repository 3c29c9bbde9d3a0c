"""A trial of several workers: its own process is the first, the others are tasks on the rest of its placement group."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from instrunet.errors import InstrunetError
from instrunet.training.fit import Metrics, Report, fit
from instrunet.training.job import Job, config_of, job_of
from instrunet.training.state import Save


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit_all(job: Job, report: Report, begun: Path | None, n: int, resources: dict[str, float]) -> None:
    """`fit` on n workers; what breaks one of them breaks all, and is worth another try unless it has a name of ours."""
    if n == 1:
        fit(job, report, device(), begun)
        return
    address = f"tcp://{ray.util.get_node_ip_address()}:{_free_port()}"
    others = [_begin(job, begun, k, n, address, resources) for k in range(1, n)]
    try:
        with _group(0, n, address):
            fit(job, report, device(), begun)
        ray.get(others)
    except InstrunetError:
        raise
    except Exception as error:
        raise OSError(f"a trial of {n} workers broke off: {' '.join(str(error).split())[:300]}") from None
    finally:
        for one in others:
            ray.cancel(one, force=True)


def _begin(job: Job, begun: Path | None, rank: int, n: int, address: str, resources: dict[str, float]) -> Any:
    group = get_current_placement_group()
    assert group, "Tune has placed the workers of a trial together"
    placed = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
    options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0), "max_retries": 0}
    task = _rank.options(scheduling_strategy=placed, **options)
    return task.remote(config_of(job), str(begun) if begun else None, rank, n, address)


@ray.remote
def _rank(config: dict[str, Any], begun: str | None, rank: int, n: int, address: str) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // n))
    with _group(rank, n, address):
        fit(job_of(config), _silent, device(), Path(begun) if begun else None)


def _silent(metrics: Metrics, save: Save) -> None:
    """The first reports and saves."""


@contextmanager
def _group(rank: int, n: int, address: str) -> Iterator[None]:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", address, rank=rank, world_size=n)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
