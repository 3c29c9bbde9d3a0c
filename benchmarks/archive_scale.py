"""The control plane of tagging without any work: a made-up inventory of N files of one unit each becomes a work list,
its parts are made by actors that write rows without hearing anything, the books are closed, and a run that was killed
half-way is resumed.

N_UNITS=1000000 (default) beside a tenth of it: the cost should grow as the number does. Each size is a process of its
own, so that its memory is its own. The last line is JSON: seconds and the driver's peak of memory in MB.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.archive import books, runs, sources, tagger
from instrunet.archive.units import WORK_LIST, UnitSpec, WorkList
from instrunet.bundle import Bundle
from instrunet.data import parts
from instrunet.experiment import ClusterSpec
from pipelines import cluster, tag
from pipelines.parts import run as run_parts
from pipelines.parts import told

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from archives import tiny_bundle  # noqa: E402

N_UNITS, UNIT_S = int(os.environ.get("N_UNITS", 1_000_000)), 300.0


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measured(Path(sys.argv[1]))))
        return
    found = {}
    for n in (N_UNITS // 10, N_UNITS):
        with TemporaryDirectory(dir=os.environ.get("SCALE_DISK")) as folder:
            listed = str(inventory(Path(folder) / "inventory.parquet", n))
            done = subprocess.run([sys.executable, __file__, listed], stdout=subprocess.PIPE, text=True, check=True)
        found[str(n)] = json.loads(done.stdout.splitlines()[-1])
        print(n, found[str(n)], flush=True)
    small, large = found.values()
    found["ratio"] = {name: round(large[name] / small[name], 1) for name in small if name.endswith("_s")}
    print(json.dumps(found))


class Worker:
    """As tagging's, with a row for each unit and nothing heard."""

    def __init__(self, out: str, fingerprint: str) -> None:
        self.out, self.fingerprint = Path(out), fingerprint
        self.work = WorkList(self.out / WORK_LIST)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        more = {"status": "silent", "flags": [], "scores": [], "window_start_s": [], "measures": []}
        rows = [unit | more | {"bundle": self.fingerprint} for unit in self.work.part(number)]
        path = parts.part_path(self.out, books.UNITS, number)
        parts.publish(path, lambda aside: pq.write_table(tagger.table(rows), aside, compression="zstd"))
        return {"units": len(rows), "bad": 0}


def measured(listed: Path) -> dict[str, Any]:
    out, bundle = listed.parent / "out", tiny_bundle()
    job = runs.Job(sources.archive(listed), bundle.spec, UnitSpec(unit_s=UNIT_S), refuse)
    clock = Clock()
    _, work = runs.begin(out, job)
    assert work
    clock("work_list_s")
    listed_mb = peak_mb()
    cluster.connect(ClusterSpec(), verbose=False)
    clock("ray_start_s")
    arguments = {"out": str(out), "fingerprint": bundle.fingerprint}
    half = work.n_parts // 2
    for k, _ in enumerate(run_parts(out, books.UNITS, work.n_parts, Worker, arguments), 1):
        if k == half:
            break
    clock("first_half_s")
    left = resume(out, job)
    clock("resume_s")
    for _ in run_parts(out, books.UNITS, work.n_parts, Worker, arguments):
        pass
    clock("second_half_s")
    close(out, work, bundle)
    clock("books_s")
    assert runs.begin(out, job)[1] is None
    clock("done_again_s")
    return clock.found | {"parts": work.n_parts, "left": left, "listed_mb": listed_mb, "peak_mb": peak_mb()}


def resume(out: Path, job: runs.Job) -> int:
    """What a job does first that finds a folder half done."""
    _, work = runs.begin(out, job)
    assert work
    return len(parts.left(out, books.UNITS, work.n_parts))


def close(out: Path, work: WorkList, bundle: Bundle) -> None:
    ledger = books.close(out, work, bundle)
    tag._check(ledger, out, 1.0)
    parts.finish(out)


def inventory(path: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    pq.write_table(
        pa.table(
            {
                "uri": [f"s3://archive/{k % 1000:03d}/recording-{k:07d}.flac" for k in rng.permutation(n).tolist()],
                "size": np.arange(n) + 10_000_000,
                "duration": np.full(n, UNIT_S),
            }
        ),
        path,
    )
    return path


def refuse(path: Path) -> Any:
    raise AssertionError(f"{path} should not be looked at: the inventory says all")


class Clock:
    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.at = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.found[name], self.at = round(now - self.at, 2), now


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
