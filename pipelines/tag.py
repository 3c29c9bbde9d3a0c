"""Tagging an archive on Ray Data: work list, fixed parts, one actor a core, books that close."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from instrunet import __version__
from instrunet.archive import books, exports, retag, tagger, units
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
    bundle = Bundle.load(args.bundle)
    spec = units.UnitSpec(unit_s=args.unit_s)
    archive, out = (places.asked(text).absolute() for text in (args.archive, args.out))
    formats = exports.asked(args.format)
    limits = Limits(wait_s=args.decode_wait_s)
    files = units.list_files(archive)
    claim(out, archive, units.listing(files, archive), bundle, spec)
    if parts.is_done(out):
        note(f"{out} is done: {len(files)} files were tagged before")
        exports.write(out, formats, bundle.spec, str(archive))
        return out
    retag.keep_spec(out, bundle.spec)
    with Decoder(limits) as decoder:
        work = _work_list(out, lambda: units.work_list(archive, spec, bundle.fingerprint, decoder.probe, files))
    n_parts = units.n_parts(work)
    if parts.left(out, books.UNITS, n_parts):
        cluster.connect(ClusterSpec(), verbose=args.verbose)
        _tag(out, args.bundle.absolute(), limits, n_parts, len(work))
    _check(books.close(out, work, bundle), out, args.max_bad_fraction)
    exports.write(out, formats, bundle.spec, str(archive))
    parts.finish(out)
    return out


def claim(out: Path, archive: Path, listing: str, bundle: Bundle, spec: units.UnitSpec) -> None:
    plan = {
        "job": "tag",
        "archive": str(archive),  # the work list names its files by their place
        "bundle": bundle.fingerprint,
        "listing": listing,
        "units": spec.model_dump(mode="json"),
        "code": __version__,
    }
    parts.claim(out, plan)


def _work_list(out: Path, make: Callable[[], pa.Table]) -> pa.Table:
    """The first that was published: making it again may find a store in another mood, and parts must not move."""
    path = out / units.WORK_LIST
    if not path.exists():
        work = make()
        parts.publish(path, lambda aside: units.save(work, aside))
    return units.load(path)


class Worker:
    """An actor that makes parts: decode, features and network fused, so that only paths and rows cross processes."""

    def __init__(self, out: str, bundle: str, limits: Limits) -> None:
        torch.set_num_threads(1)  # one actor a core
        self.out = places.located(out)
        self.bundle = Bundle.load(Path(bundle))
        self.decoder = Decoder(limits)
        self.work_list = places.source(self.out / units.WORK_LIST)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        rows = tagger.tag_all(units.load_part(self.work_list, number), self.bundle, self.decoder.read)
        path = parts.part_path(self.out, books.UNITS, number)
        parts.publish(path, lambda aside: pq.write_table(tagger.table(rows), aside, compression="zstd"))
        return {"units": len(rows), "bad": sum(r["status"] in tagger.BAD for r in rows)}


def _tag(out: Path, bundle: Path, limits: Limits, n_parts: int, n_units: int) -> None:
    done = n_parts - len(parts.left(out, books.UNITS, n_parts))
    arguments, bad = {"out": str(out), "bundle": str(bundle), "limits": limits}, 0
    with bar(f"tagging {n_units} units", n_parts, done) as progress:
        for made in run_parts(out, books.UNITS, n_parts, Worker, arguments):
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
