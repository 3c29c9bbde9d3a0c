"""Kills of a tagging at random moments, each gone on with to its end: are its rows those of an undisturbed run?

`make soak`. In turn: SIGKILL to the driver, to an actor, to the raylet, to the driver between the last part and the
books, SIGTERM to the driver, and an actor that is stopped, outlives its driver and wakes when another run has finished.
Then jobs of the same command two at a time, and one tagging whose actors and drivers are killed again and again until
it is done. One file in twenty is bad.
Only processes started here are signalled, by pid.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from archives import RATE, sound, tiny_bundle, write
from conftest import ROOT, environment, make_place

N_FILES, KILLS = int(os.environ.get("N_FILES", 2000)), int(os.environ.get("KILLS", 20))
TWINS = int(os.environ.get("TWINS", 10))
SEED = int(os.environ.get("SEED", 0))
WAYS = ("driver", "actor", "raylet", "before the books", "SIGTERM", "late writer")
LONGEST_S = 25  # from SIGTERM to the end
APART_S = (12.0, 25.0)  # kills of a tagging that is killed again and again: undisturbed it takes a minute
SHORT_S, LONG_S = (4.0, 12.0), (30.0, 90.0)  # files of the others, and of that one


class Tagging:
    def __init__(self, home: Path, name: str, archive: str = "archive") -> None:
        self.home, self.out, self.archive = home, home / name, archive

    def start(self) -> "subprocess.Popen[str]":
        command = f"exec python jobs/tag.py bundle {self.archive} --out {self.out} --unit-s 5"
        calm = environment() | {"RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT)}
        with (self.home / "log").open("a") as log:
            return subprocess.Popen(["bash", "-c", command], cwd=self.home, env=calm, stdout=log, stderr=log, text=True)

    @property
    def n_parts(self) -> int:
        return len(list((self.out / "units").glob("part-*.parquet")))

    def until(self, n_parts: int, job: "subprocess.Popen[str]") -> None:
        while self.n_parts < n_parts and job.poll() is None:
            time.sleep(0.01)

    def rows(self) -> dict[str, Any]:
        """Of every table, sorted; the scores as they are."""
        tables = {}
        for kind, key in (("units", "unit_id"), ("recordings", "uri"), ("intervals", "uri")):
            rows = pq.read_table(self.out / kind).to_pylist()
            tables[kind] = sorted(rows, key=lambda row: (row[key], row.get("start_s", 0), row.get("label", "")))
        return tables

    def is_closed(self) -> bool:
        left = [path for path in self.out.rglob("*") if path.name.endswith(".tmp")]
        ledger = json.loads((self.out / "ledger.json").read_text())
        return bool(ledger["closed"]) and (self.out / "_SUCCESS").is_file() and len(left) <= 2 * KILLS


def below(pid: int) -> dict[int, str]:
    """Every process that comes of this one, and what it is called."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
            parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: dict[int, str] = {}
    fresh = [pid]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        for child in fresh:
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def pick(job: "subprocess.Popen[str]", mark: str, rng: random.Random) -> int | None:
    pids = [pid for pid, name in below(job.pid).items() if mark in name.split(" ")[0]]
    return rng.choice(pids) if pids else None


def disturb(run: Tagging, job: "subprocess.Popen[str]", way: str, n: int, rng: random.Random) -> tuple[int, int | None]:
    """How the job ended, and the pid of an actor that sleeps."""
    run.until(n if way == "before the books" else rng.randrange(0, n - 2), job)
    if way != "before the books":
        time.sleep(rng.uniform(0, 0.3))
    if job.poll() is not None:
        return job.returncode, None
    asleep = None
    mark = {"actor": "ray::", "raylet": "raylet", "late writer": "ray::"}.get(way)
    pid = pick(job, mark, rng) if mark else job.pid
    if way == "late writer" and pid:
        os.kill(pid, signal.SIGSTOP)
        asleep, pid = pid, job.pid
    began = time.monotonic()
    os.kill(pid or job.pid, signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
    code = job.wait(300)
    if way == "SIGTERM":
        took = time.monotonic() - began
        assert code == 143 and took <= LONGEST_S, f"exit {code} after {took:.0f} s"
    return code, asleep


def one(home: Path, number: int, way: str, wanted: dict[str, Any], n_parts: int) -> bool:
    rng = random.Random(SEED * 1000 + number)
    run = Tagging(home, f"tags-{number}")
    job = run.start()
    code, asleep = disturb(run, job, way, n_parts, rng)
    kept = run.n_parts
    tries = 0
    while code != 0 and tries < 3:
        tries, code = tries + 1, run.start().wait(300)
    before = run.rows()
    if asleep:
        try:
            os.kill(asleep, signal.SIGCONT)
            time.sleep(3)
        except ProcessLookupError:
            pass
    good = code == 0 and run.is_closed() and run.rows() == before == wanted
    print(
        f"{number:2d}  {way}: {kept} of {n_parts} parts then, {tries} more runs, {'equal' if good else 'NOT EQUAL'}",
        flush=True,
    )
    return good


def twins(home: Path, number: int, wanted: dict[str, Any]) -> bool:
    """Two jobs on one folder at the same time."""
    run = Tagging(home, f"twins-{number}")
    codes = [job.wait(300) for job in (run.start(), run.start())]
    good = codes == [0, 0] and run.is_closed() and run.rows() == wanted
    print(f"{number:2d}  two at once: exit {codes}, {'equal' if good else 'NOT EQUAL'}", flush=True)
    return good


def again_and_again(home: Path) -> bool:
    make(home, "long", LONG_S)
    wanted, n_parts = undisturbed(home, "long")
    rng, run = random.Random(SEED), Tagging(home, "tags-again", "long")
    killed, code = list[str](), -1
    while code != 0 and len(killed) < 100:
        job, code = run.start(), None
        while code is None:
            try:
                code = job.wait(rng.uniform(*APART_S))
            except subprocess.TimeoutExpired:
                actor = pick(job, "ray::MapWorker", rng) if rng.random() < 0.5 else None
                killed.append(f"{'actor' if actor else 'driver'} at {run.n_parts}")
                os.kill(actor or job.pid, signal.SIGKILL)
    good = code == 0 and run.is_closed() and run.rows() == wanted
    print(f"again and again, of {n_parts} parts: {', '.join(killed)}: {'equal' if good else 'NOT EQUAL'}", flush=True)
    return good


def make(home: Path, archive: str, between_s: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    for k in range(N_FILES):
        path = write(
            home / archive / f"{k % 20:02d}/{k:05d}.wav", sound(float(rng.uniform(*between_s)), 200 + k % 700, RATE)
        )
        if k % 20 == 7:
            path.write_bytes((b"no sound", path.read_bytes()[: len(path.read_bytes()) // 2], b"")[k // 20 % 3])


def undisturbed(home: Path, archive: str) -> tuple[dict[str, Any], int]:
    """What it has to give, and in how many parts."""
    calm = Tagging(home, f"undisturbed-{archive}", archive)
    assert calm.start().wait(900) == 0, (home / "log").read_text()
    rows = calm.rows()
    print(f"undisturbed: {len(rows['recordings'])} files, {len(rows['units'])} units, {calm.n_parts} parts", flush=True)
    return rows, calm.n_parts


def main() -> int:
    with TemporaryDirectory(prefix="soak-") as folder:
        home = make_place(Path(folder) / "instrunet")
        tiny_bundle("multi").save(home / "bundle")
        make(home, "archive", SHORT_S)
        wanted, n_parts = undisturbed(home, "archive")
        good = sum(one(home, k, WAYS[k % len(WAYS)], wanted, n_parts) for k in range(KILLS))
        print(f"{good} of {KILLS} end with the rows of the undisturbed run")
        twice = sum(twins(home, k, wanted) for k in range(TWINS))
        print(f"{twice} of {TWINS} that are two at once end with the same")
        return 0 if again_and_again(home) and (good, twice) == (KILLS, TWINS) else 1


if __name__ == "__main__":
    sys.exit(main())
