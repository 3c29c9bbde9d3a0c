"""Connecting to Ray: the cluster we were started on, or a small one of our own, and quiet either way."""

import logging
import math
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
import ray.data
import torch

from instrunet.errors import ConfigError, JobError
from instrunet.experiment import ClusterSpec
from pipelines.console import note

LOCAL_CPUS = 4  # fewer logical CPUs and a trainer with a data input stalls without a word (docs/LOG.md)
OBJECT_STORE_BYTES = 1 << 30  # we move paths and part numbers, never waveforms
NO_PROGRESS_S = 1800
STARTS = 3  # tries
LONGEST_WORD = 300  # of a node's
NO_NEWS = "worker processes have been started", "killed by `ray.kill`"  # the actors of a job that has failed
LONGEST_TMPDIR = 40  # a socket's path may have 107 characters, of which Ray's session takes the rest


def connect(spec: ClusterSpec, *, verbose: bool) -> None:
    """Ray for the rest of this process: the cluster `RAY_ADDRESS` names (`ray job submit` sets it), or one of our own.

    A job calls it where it first has work to do, so one that finds its work done never starts Ray. Ray shuts itself
    down when the process ends, and its processes end with ours however that ends.
    """
    if ray.is_initialized():
        return
    hush(verbose=verbose)
    answer = signal.getsignal(signal.SIGTERM)
    if not verbose:
        ray._private.worker.print_to_stdstream = _told  # the last line of stdout is ours
    with nullcontext() if verbose else _silence():
        _init(spec, verbose=verbose)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, answer)  # Ray's own ends the process with SIGABRT


def _init(spec: ClusterSpec, *, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.ERROR
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=level, log_to_driver=verbose)
        return
    # A folder of our own, because parts of Ray look in the usual one for "the" cluster of this machine: with a dead one
    # noted there Train's clean-up hangs for 12 s, with a live one it asks the wrong cluster whether we are alive.
    own = Path(tempfile.gettempdir()) / f"instrunet-ray-{os.getuid()}"
    if len(str(own)) < LONGEST_TMPDIR:
        os.environ.setdefault("RAY_TMPDIR", str(own))
    # Train's look-out for nodes that are taken away: a process, 2 s of a core for each training, and this node is ours
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local",  # never one that somebody started on this machine
                num_cpus=_cpus(spec),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=level,
                log_to_driver=verbose,
            )
            return
        except Exception as error:  # Ray's own wait is 30 s, too short on a machine with much else to do
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if not left:
                raise JobError(
                    f"Ray did not start, {STARTS} times within 30 s; the machine has too much to do"
                ) from None


def _told(data: dict[str, Any], ignore_prefix: bool) -> None:
    """What a node has to say of itself, such as of a full disk; what we have done to it ourselves is no news."""
    del ignore_prefix
    for text in data["lines"]:
        if not any(known in text for known in NO_NEWS):
            note(f"Ray: {' '.join(text.split())[:LONGEST_WORD]}")


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing reaches file descriptor 2 meanwhile: Ray's C++ core announces there that it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def of_a_worker(spec: ClusterSpec) -> dict[str, float]:
    return {"CPU": spec.cpus_per_worker} | ({"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {})


def trainings_at_once(spec: ClusterSpec) -> int:
    """How many trainings the cluster has workers for."""
    there = {"CPU": slots(), "GPU": ray.cluster_resources().get("GPU", 0)}
    return max(1, min(int(there[name] // (spec.workers * amount)) for name, amount in of_a_worker(spec).items()))


def check_fits(spec: ClusterSpec, n_workers: int) -> None:
    """Refuse what a Ray of our own can never give, before it is started: it would be waited for without a word.

    A cluster may yet grow.
    """
    if spec.gpus_per_worker > 1 and spec.gpus_per_worker != int(spec.gpus_per_worker):
        given = f"cluster.gpus_per_worker={spec.gpus_per_worker:g}"
        raise ConfigError(f"a worker takes a part of one GPU or whole ones, got {given}")
    if os.environ.get("RAY_ADDRESS"):
        return
    there = ray.cluster_resources() if ray.is_initialized() else _own(spec)
    for name, amount in of_a_worker(spec).items():
        if n_workers * amount > there.get(name, 0):
            raise ConfigError(
                f"{n_workers} x {amount:g} {name} are asked for, this machine's Ray has {there.get(name, 0):g}; lower "
                f"cluster.workers or cluster.{name.lower()}s_per_worker, or run it on a cluster"
            )


def _own(spec: ClusterSpec) -> dict[str, float]:
    return {"CPU": _cpus(spec), "GPU": torch.cuda.device_count()}


def _cpus(spec: ClusterSpec) -> int:
    return spec.num_cpus or max(LOCAL_CPUS, os.cpu_count() or 1)


def hush(*, verbose: bool) -> None:
    """Ray's own bars and log lines, off unless asked for: 273 lines become none."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    if verbose:
        return
    warnings.filterwarnings("ignore", module=r"ray\.")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's newer output prints a banner even when told to be silent
    # Ray's C++ core writes to our stderr whatever level Python's loggers have; it reads this when it starts
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's traceback: its reason is in trials.json


def room(n: int) -> float:
    """CPUs of each of n workers that fill the cluster, as far as they fit on one machine; in Ray's steps."""
    largest: float = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    each = min(float(ray.cluster_resources()["CPU"]) / n, largest)
    return math.floor(each * 1e4) / 1e4


def gpus(spec: ClusterSpec, *, verbose: bool) -> int:
    """Of the cluster, which is connected to; or of the Ray of our own that a job would start, which is not for this."""
    if not os.environ.get("RAY_ADDRESS") and not ray.is_initialized():
        return int(_own(spec)["GPU"])
    connect(spec, verbose=verbose)
    return int(ray.cluster_resources().get("GPU", 0))


def cpus_beside_a_gpu() -> float:
    """CPUs for each GPU where GPUs are: on the node that has fewest."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = math.inf if len(nodes) > 1 else os.cpu_count() or 1  # a local Ray may count more than there are, see `slots`
    return min(float(min(node.get("CPU", 0), most) / node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1)


def slots() -> int:
    """How many one-core actors the cluster carries: its cores, not the logical CPUs a local Ray is given."""
    total = int(ray.cluster_resources().get("CPU", 1))
    return max(1, total - 1 if len(ray.nodes()) > 1 else min(total, os.cpu_count() or 1))
