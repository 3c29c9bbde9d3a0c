"""Which of its two designs a tagging has: fused actors, one a core, or one a GPU with decoders on the cores beside it.

One rule: GPUs, where the cluster has any and the bundle's features have a form in torch. A folder stays with what it
was begun with, as scores differ by rounding, and `--runtime` by another name than `torch` or `auto` decides by itself.
"""

from typing import NamedTuple

from instrunet import runtime
from instrunet.archive import device, speed
from instrunet.bundle import Bundle
from instrunet.errors import ConfigError, JobError
from instrunet.experiment import ClusterSpec
from instrunet.features import IN_TORCH
from pipelines import cluster
from pipelines.parts import CPUS_PER_ACTOR, Pool

GPU = "cuda/fp32"  # as the plan says it, like a runtime
AT_ONCE = 4  # parts of an actor with a GPU: one's last units would keep it waiting, and half an hour may be six units
ON_A_CORE = 2  # parts of an actor there, which take turns: one may be waiting for a decoder that stalls
FREE = ("torch", runtime.AUTO)  # what --runtime may say without deciding


class Design(NamedTuple):
    pool: Pool
    cores: int
    n_decoders: int = 1  # of an actor


def on_gpus(bundle: Bundle, asked: str, begun: str | None, verbose: bool) -> bool:
    """Whether actors take GPUs; `begun` is the runtime of what is gone on with."""
    if asked in FREE and begun:
        return begun == GPU
    if asked not in (*FREE, GPU, GPU.split("/")[0]):
        return False
    able = device.able(bundle.spec.front)
    if asked in FREE:
        return able and cluster.gpus(ClusterSpec(), verbose=verbose) > 0
    if not able:
        raise ConfigError(f"a GPU makes {' and '.join(IN_TORCH)}, this bundle hears by others; leave --runtime out")
    if not begun and not cluster.gpus(ClusterSpec(), verbose=verbose):
        raise ConfigError("--runtime cuda expects GPUs, the cluster has none now; leave it out to tag on cores")
    return True


def of(where: str, n_parts: int, tried: dict[str, float]) -> Design:
    """For so many parts, on the cluster that we are connected to."""
    if where != GPU:
        cores = cluster.slots()
        return Design(Pool(min(n_parts, speed.actors(tried, cores)), at_once=ON_A_CORE), cores, ON_A_CORE)
    n_gpus = cluster.gpus(ClusterSpec(), verbose=False)
    if not n_gpus:
        raise JobError(
            "expected GPUs, as these tags were begun on some and scores differ by rounding, the cluster has none now: "
            "go on where there are, or tag on cores into another --out"
        )
    n, cpus = min(n_parts, n_gpus), cluster.cpus_beside_a_gpu()
    n_decoders = max(1, int(cpus))
    return Design(Pool(n, cpus * CPUS_PER_ACTOR, 1, AT_ONCE), n * n_decoders, n_decoders)
