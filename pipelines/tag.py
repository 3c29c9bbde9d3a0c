"""Tagging an archive on Ray Data: work list, fixed parts, one actor a core or a GPU, books that close."""

import argparse
import os
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow.parquet as pq
import torch

from instrunet import parity, runtime
from instrunet.archive import books, exports, runs, sources, speed, tagger
from instrunet.archive.device import Device
from instrunet.archive.speed import Prices, Speed
from instrunet.archive.units import WORK_LIST, UnitSpec, WorkList
from instrunet.audio.ahead import Decoders, Turn
from instrunet.audio.isolated import Limits
from instrunet.bundle import CALL, Bundle
from instrunet.data import parts, places
from instrunet.errors import ConfigError, JobError
from instrunet.experiment import ClusterSpec
from pipelines import cluster, design
from pipelines.console import bar, note, result
from pipelines.gauges import Gauges
from pipelines.parts import made as make
from pipelines.parts import told


def run(args: argparse.Namespace) -> Path:
    """Tag `args.archive` with `args.bundle` into `args.out`; goes on where a killed run was, does nothing when done."""
    bundle, archive = Bundle.load(args.bundle), sources.archive(args.archive)
    out = places.asked(args.out).absolute()
    args.formats = exports.asked(args.format, out)
    args.prices, args.runtime = Prices.of(args.prices), _runtime(bundle, args, out)
    with Decoders(Limits(wait_s=args.decode_wait_s), os.cpu_count() or 1) as headers:
        units = UnitSpec(unit_s=args.unit_s, embeddings=args.embeddings)
        job = runs.Job(archive, bundle.spec, units, headers.probe, args.runtime)
        if args.since_last:
            return _runs(out, job, bundle, args)
        n_files, work = runs.begin(out, job)
    if work is None:
        note(f"{out} is done: {n_files} files were tagged before")
        exports.write(out, args.formats, bundle.spec, archive.root)
    else:
        _tag(out, work, bundle, args)
    return out


def _runtime(bundle: Bundle, args: argparse.Namespace, out: Path) -> str:
    """Where the network is to run; `auto` stays with what a folder was begun with."""
    torch.set_num_threads(1)  # as in an actor
    plan = runs.begun(out, bundle.fingerprint)
    begun = None if plan is None else str(plan.get("runtime", runtime.PLAIN))
    if design.on_gpus(bundle, args.runtime, begun, args.verbose):
        return design.GPU
    if args.runtime == runtime.AUTO and begun:
        return begun
    if args.runtime == runtime.AUTO:
        chosen = runtime.PLAIN if args.embeddings else "/".join(runtime.fastest(bundle, CALL))
        note(f"the network runs on {chosen}")
        return chosen
    name, precision = runtime.named(args.runtime)
    if args.embeddings and name != "torch":
        raise ConfigError(
            f"--embeddings are torch's alone: {name} gives scores and nothing else; leave one of them out"
        )
    runtime.run_on(bundle, name, precision)  # what is missing is said here and not by an actor
    if doubt := parity.doubt(bundle, name, precision):
        note(f"warning: {doubt}")
    return f"{name}/{precision}"


def _runs(out: Path, job: runs.Job, bundle: Bundle, args: argparse.Namespace) -> Path:
    """A run that was left half-way, and then what has changed since it."""
    home = runs.home(out, bundle.fingerprint)
    while True:
        was_open = runs.is_open(home)
        folder, before, work = runs.begin_next(home, job)
        if work is None:
            note(f"nothing is new, changed or deleted since {folder}")
            return folder
        _tag(folder, work, bundle, args, before)
        if not was_open:
            return folder


def _tag(out: Path, work: WorkList, bundle: Bundle, args: argparse.Namespace, before: Path | None = None) -> None:
    report = _make_parts(out, work, args)
    ledger = books.close(out, work, bundle)
    if args.since_last:
        account = runs.account(out, before, ledger["files"]["out"])
        ledger |= {"since_last": account, "closed": ledger["closed"] and account["closed"]}
        parts.write_json(out / books.LEDGER, ledger)
    if report:
        parts.write_json(out / speed.SPEED, report)
    _check(ledger, out, args.max_bad_fraction)
    if report:
        result(speed.told(report))
    exports.write(out, args.formats, bundle.spec, sources.archive(args.archive).root)
    parts.finish(out)


class Worker:
    """An actor that makes parts: decode, features and network fused, so that only paths and rows cross processes.

    `where` is a runtime, or a device as torch calls it. Parts may be made by several threads at a time: on a core they
    take turns.
    """

    def __init__(
        self,
        out: str,
        bundle: str,
        limits: Limits,
        embed: bool = False,
        where: str = runtime.PLAIN,
        n_decoders: int = 1,
    ) -> None:
        torch.set_num_threads(1)  # one actor a core
        self.out, self.embed = places.located(out), embed
        loaded, name = Bundle.load(Path(bundle)), where.split("/")[0]
        self.on = "" if name in runtime.PRECISIONS else name
        self.bundle = loaded if self.on or where == runtime.PLAIN else loaded.on(*runtime.named(where))
        self._turn = None if self.on else Turn()  # on a core
        self.decoder = Decoders(limits, n_decoders, self._turn)
        self.work = WorkList(self.out / WORK_LIST)
        self._lock = Lock()
        self._device: Device | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        """Threads take turns on a core; one that waits for a decoder which stalls lets another go on with its part."""
        if not self._turn:
            return self._made(number, speed.Clock(self.decoder.threads.n))
        with self._turn.mine():
            torch.set_num_threads(1)  # each thread has a number of its own
            return self._made(number, speed.Clock(now=self._turn.now))

    def _made(self, number: int, clock: speed.Clock) -> dict[str, Any]:
        with self._lock:
            device, units = self._taken(), self.work.part(number)
        rows = tagger.tag_all(units, self.bundle, self.decoder.read, self.embed, clock, device)
        path = parts.part_path(self.out, books.UNITS, number)
        with clock("write"):
            table = tagger.table(rows, self.embed)
            parts.publish(path, lambda aside: pq.write_table(table, aside, compression="zstd"))
        return tagger.counts(units, rows) | clock.seconds | {"windows": device.n_windows if device else 0}

    def _taken(self) -> Device | None:
        """With the first part: what an actor cannot begin with, Ray tells in words of its own."""
        if self.on and not self._device:
            self._device = Device(self.bundle, self.on, self.decoder.threads)
        return self._device

    def tried(self) -> dict[str, float]:
        """Seconds of each stage for an hour of sound, by some units of the work list; nothing is written."""
        units, clock = speed.tried_units(self.work), speed.Clock()
        with self.decoder:
            tagger.tag_all(units[:1], self.bundle, self.decoder.read, self.embed)  # the first call of all is slow
            rows = tagger.tag_all(units, self.bundle, self.decoder.read, self.embed, clock)
        hours = tagger.counts(units, rows)["audio_s"] / 3600
        return {stage: seconds / hours for stage, seconds in clock.seconds.items()} if hours else {}


def _make_parts(out: Path, work: WorkList, args: argparse.Namespace) -> dict[str, Any] | None:
    """What is missing of them, and how it went; None where none was."""
    todo = parts.left(out, books.UNITS, work.n_parts)
    if not todo:
        return None
    arguments: dict[str, Any] = {"out": str(out), "bundle": str(args.bundle.absolute())}
    arguments |= {"limits": Limits(wait_s=args.decode_wait_s), "embed": args.embeddings, "where": args.runtime}
    worth = len(todo) >= speed.WORTH and args.runtime != design.GPU
    tried = Worker(**arguments).tried() if worth else {}
    cluster.connect(ClusterSpec(), verbose=args.verbose)
    pool, cores, arguments["n_decoders"] = design.of(args.runtime, len(todo), tried)
    gauges = Gauges(len(todo))
    found = Speed(work.n_parts, cores, pool.actors, int(pool.gpus) * pool.actors)
    with bar(f"tagging {len(work)} units", work.n_parts, work.n_parts - len(todo)) as progress:
        for made in make(todo, Worker, arguments, lambda: pool):
            progress.advance(note=str(found.add(made)))
            gauges.add(made)
    return found.report(args.prices, tried)


def _check(ledger: dict[str, Any], out: Path, max_bad_fraction: float) -> None:
    files, by_status = ledger["files"], ledger["files"]["by_status"]
    counts = ", ".join(f"{n} {status}" for status, n in by_status.items() if n)
    for text in (ledger["drift"] or {}).get("warnings", ()):
        note(f"warning: {text}")
    leaky = "LEAKY: " if ledger["leaky"] else ""
    unsure = f"; {ledger['no_answer']} without an answer" if ledger["no_answer"] else ""
    result(f"{leaky}tagged {files['in']} files, {ledger['audio_s']['out'] / 3600:.2f} h of sound: {counts}{unsure}")
    if not ledger["closed"]:
        raise JobError(f"the books do not close: see {out / books.LEDGER} for what went in and what came out")
    n_bad = sum(by_status[status] for status in tagger.BAD)
    if n_bad > max_bad_fraction * files["in"]:
        raise JobError(
            f"{n_bad} of {files['in']} files are bad ({counts}), over --max-bad-fraction {max_bad_fraction:g}"
        )
