"""Tagging on 1, 2 and 4 nodes of half a core each: rates relative to one node, on one machine of two cores.

`--files` (240) made-up stereo FLACs and MP3s of 30 s, the network in PyTorch's fp32. Each node is a raylet with its
workers under a bound of half a core (cgroup v1, for which it has to run as root) and an address of its own on
loopback; the head and the driver work outside of any bound. The rate is the steady one: from the second part of each
actor on, before the last of each, by the times at which parts were published. The last line is JSON.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tagging import make_bundle, make_files

from instrunet import runtime
from instrunet.archive import books

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import nodes  # noqa: E402
from conftest import ROOT, run  # noqa: E402

CPUS = 2  # logical ones of a node: an actor takes one, and one of the cluster's is left for Ray Data's own tasks
PERIOD_US = 100_000
CGROUPS = Path("/sys/fs/cgroup")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--files", type=int, default=240)
    args.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    asked = args.parse_args()
    if os.geteuid() != 0 or not (CGROUPS / "cpu" / "cpu.cfs_quota_us").exists():
        print("nodes of half a core need root and cgroup v1 with the controller cpu: not measured")
        return
    with TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        make_files(folder / "archive", asked.files)
        make_bundle(folder / "native", "native", sorted((folder / "archive").iterdir())[:4])
        rates = {n: rate(folder, n) for n in asked.nodes}
    for n, found in rates.items():
        print(f"{n} nodes: {found:.1f} s of sound a second")
    first = rates[asked.nodes[0]]
    print(json.dumps({f"nodes_{n}": round(found / first, 2) for n, found in rates.items()}))


def rate(folder: Path, n: int) -> float:
    out = folder / f"out-{n}"
    with half_cores(n) as bounds, nodes.started(0, CPUS) as cluster:
        for number, bound in enumerate(bounds, start=1):
            cluster.add(number, prefix=f"bash -c 'echo $$ > {bound}/cgroup.procs; exec \"$@\"' --")
        job = f"python {ROOT}/jobs/tag.py native archive --out {out} --runtime {runtime.PLAIN}"
        done = run(job, folder, timeout=1800, **cluster.client)
    assert done.returncode == 0, done.stdout + done.stderr
    return steady(out, actors=max(1, n * CPUS - 1))


@contextmanager
def half_cores(n: int) -> Iterator[list[Path]]:
    bounds = [CGROUPS / "cpu" / f"instrunet-node-{os.getpid()}-{k}" for k in range(n)]
    for bound in bounds:
        bound.mkdir()
        (bound / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (bound / "cpu.cfs_quota_us").write_text(str(PERIOD_US // 2))
    try:
        yield bounds
    finally:
        for bound in bounds:
            while (bound / "cgroup.procs").read_text():  # killed, and about to be gone
                time.sleep(0.1)
            bound.rmdir()


def steady(out: Path, actors: int) -> float:
    """Seconds of sound a second, between two parts."""
    paths = sorted((out / books.UNITS).glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    some = paths[actors : len(paths) - actors]
    tables = [pq.read_table(path, columns=["start_s", "stop_s"]) for path in some[1:]]
    seconds = sum(pc.sum(pc.subtract(table["stop_s"], table["start_s"])).as_py() for table in tables)
    return float(seconds / (some[-1].stat().st_mtime - some[0].stat().st_mtime))


if __name__ == "__main__":
    main()
