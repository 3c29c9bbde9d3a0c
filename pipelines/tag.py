"""Tagging an archive on Ray Data: work list, fixed parts, one actor a core, books that close."""

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow.parquet as pq
import torch

from instrunet.archive import books, exports, runs, sources, tagger
from instrunet.archive.units import WORK_LIST, Look, UnitSpec, WorkList
from instrunet.audio.io import Header
from instrunet.audio.isolated import Decoder, Limits
from instrunet.bundle import Bundle
from instrunet.data import parts, places
from instrunet.errors import JobError
from instrunet.experiment import ClusterSpec
from pipelines import cluster
from pipelines.console import bar, note, result
from pipelines.parts import run as run_parts
from pipelines.parts import told


def run(args: argparse.Namespace) -> Path:
    """Tag `args.archive` with `args.bundle` into `args.out`; goes on where a killed run was, does nothing when done."""
    bundle, archive = Bundle.load(args.bundle), sources.archive(args.archive)
    out, args.formats = places.asked(args.out).absolute(), exports.asked(args.format)
    with _headers(Limits(wait_s=args.decode_wait_s)) as look:
        job = runs.Job(archive, bundle.spec, UnitSpec(unit_s=args.unit_s, embeddings=args.embeddings), look)
        if args.since_last:
            return _runs(out, job, bundle, args)
        n_files, work = runs.begin(out, job)
    if work is None:
        note(f"{out} is done: {n_files} files were tagged before")
        exports.write(out, args.formats, bundle.spec, archive.root)
    else:
        _tag(out, work, bundle, args)
    return out


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
    limits = Limits(wait_s=args.decode_wait_s)
    if parts.left(out, books.UNITS, work.n_parts):
        cluster.connect(ClusterSpec(), verbose=args.verbose)
        arguments = {"out": str(out), "bundle": str(args.bundle.absolute()), "limits": limits}
        _make_parts(out, arguments | {"embed": args.embeddings}, work)
    ledger = books.close(out, work, bundle)
    if args.since_last:
        account = runs.account(out, before, ledger["files"]["out"])
        ledger |= {"since_last": account, "closed": ledger["closed"] and account["closed"]}
        parts.write_json(out / books.LEDGER, ledger)
    _check(ledger, out, args.max_bad_fraction)
    exports.write(out, args.formats, bundle.spec, sources.archive(args.archive).root)
    parts.finish(out)


@contextmanager
def _headers(limits: Limits) -> Iterator[Look]:
    """Looks at headers in a child process for each core; threads wait for one that is free."""
    with ExitStack() as stack:
        free: SimpleQueue[Decoder] = SimpleQueue()
        for _ in range(os.cpu_count() or 1):
            free.put(stack.enter_context(Decoder(limits)))

        def look(path: Path) -> Header:
            decoder = free.get()
            try:
                return decoder.probe(path)
            finally:
                free.put(decoder)

        yield look


class Worker:
    """An actor that makes parts: decode, features and network fused, so that only paths and rows cross processes."""

    def __init__(self, out: str, bundle: str, limits: Limits, embed: bool = False) -> None:
        torch.set_num_threads(1)  # one actor a core
        self.out, self.embed = places.located(out), embed
        self.bundle = Bundle.load(Path(bundle))
        self.decoder = Decoder(limits)
        self.work = WorkList(self.out / WORK_LIST)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        rows = tagger.tag_all(self.work.part(number), self.bundle, self.decoder.read, self.embed)
        path, table = parts.part_path(self.out, books.UNITS, number), tagger.table(rows, self.embed)
        parts.publish(path, lambda aside: pq.write_table(table, aside, compression="zstd"))
        return {"units": len(rows), "bad": sum(r["status"] in tagger.BAD for r in rows)}


def _make_parts(out: Path, arguments: dict[str, Any], work: WorkList) -> None:
    done = work.n_parts - len(parts.left(out, books.UNITS, work.n_parts))
    bad = 0
    with bar(f"tagging {len(work)} units", work.n_parts, done) as progress:
        for made in run_parts(out, books.UNITS, work.n_parts, Worker, arguments):
            bad += int(made["bad"])
            progress.advance(note=f"{bad} bad" if bad else "")


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
