"""Packing an archive into shards on Ray Data: list, fixed parts, an index that accounts for every file."""

import argparse
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from instrunet import __version__
from instrunet.data import packing, packs, parts, places
from instrunet.data.packed import INDEX, SHARDS, SUFFIX, Packed
from instrunet.errors import ConfigError, DataError
from instrunet.experiment import ClusterSpec
from pipelines import cluster
from pipelines.console import bar, note, result
from pipelines.parts import run as run_parts
from pipelines.parts import told

SHOWN = 5  # files that were left out and are named; the index names all


def run(args: argparse.Namespace) -> Path:
    """Pack `args.archive` into `args.out`; goes on where a killed run was, does nothing when done."""
    archive, out = places.asked(args.archive).absolute(), folder_of(args.out)
    check(archive, out, args.shard_mb)
    entries = packs.list_entries(archive)
    _refuse(entries, args.skip_unreadable)
    shard_bytes = round(args.shard_mb * 1e6)
    parts.claim(out, plan_of(archive, entries, shard_bytes))
    if parts.is_done(out):
        note(f"{out} is done: {len(entries)} files were packed before")
        return out
    parts.publish(out / packs.FILES, lambda aside: packs.save_files(entries, shard_bytes, aside))
    n_parts = len(packs.cut(entries, shard_bytes))
    if parts.left(out, SHARDS, n_parts, ".tar"):
        cluster.connect(ClusterSpec(), verbose=args.verbose)
        _pack(archive, out, n_parts, args.skip_unreadable)
    _close(out, n_parts)
    return out


def folder_of(text: str) -> Path:
    """The place of a pack, written to and not looked into."""
    out = places.asked(text)
    if not isinstance(out, Packed) or out.inside or not out.folder:
        raise ConfigError(f"expected a name that ends with {SUFFIX} for a pack, got {text}; say --out NAME{SUFFIX}")
    return out.folder


def check(archive: Path, out: Path, shard_mb: float) -> None:
    if isinstance(archive, Packed):
        raise ConfigError(f"{archive} is packed already; name the folder that it was made of")
    if out.resolve().is_relative_to(archive.resolve()):
        raise ConfigError(
            f"expected a pack outside of the archive, got {out}, which would pack itself; give another out"
        )
    if not shard_mb > 0:
        raise ConfigError(f"expected shards of more than 0 MB, got --shard-mb {shard_mb:g}")


def plan_of(archive: Path, entries: list[packing.Entry], shard_bytes: int) -> dict[str, Any]:
    return {
        "job": "pack",
        "archive": str(archive),
        "listing": packs.listing(entries),
        "shard_bytes": shard_bytes,
        "code": __version__,
    }


class Worker:
    """An actor that makes shards, each with its rows of the index."""

    def __init__(self, out: str, archive: str, skip: bool) -> None:
        self.out, self.archive, self.skip = folder_of(out), places.located(archive), skip
        self.files = places.source(self.out / packs.FILES)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        entries = [packing.Entry(**row) for row in pq.ParquetFile(self.files).read_row_group(number).to_pylist()]

        def write(aside: Path) -> None:
            rows = packing.write_shard(self.archive, number, entries, aside, self.skip)
            # First: a shard that is listed has its rows. Over those that a killed worker left
            path = parts.part_path(self.out, packs.ROWS, number)
            parts.write_aside(path, lambda aside: packs.save_rows(rows, aside))

        parts.publish(parts.part_path(self.out, SHARDS, number, ".tar"), write)
        return {"n_files": len(entries)}


def _refuse(entries: list[packing.Entry], skip: bool) -> None:
    refused = [entry for entry in entries if entry.refused]
    if refused and not skip:
        raise DataError(
            f"{len(refused)} files cannot be packed, the first is {refused[0].name}: {refused[0].refused}; rename them "
            "or leave them out with --skip-unreadable"
        )


def _pack(archive: Path, out: Path, n_parts: int, skip: bool) -> None:
    done = n_parts - len(parts.left(out, SHARDS, n_parts, ".tar"))
    arguments = {"out": str(out), "archive": str(archive), "skip": skip}
    with bar("packing", n_parts, done) as progress:
        for _ in run_parts(out, SHARDS, n_parts, Worker, arguments, ".tar"):
            progress.advance()


def _close(out: Path, n_parts: int) -> None:
    index = packs.close(out, n_parts)
    without = packs.left_out(index)
    for name, why in without[:SHOWN]:
        note(f"not packed: {name}: {why}")
    n_bytes = sum(index["n_bytes"].to_pylist())
    more = f"; {len(without)} that are not: see problem in {out / INDEX}" if without else ""
    result(f"packed {len(index) - len(without)} files, {n_bytes / 1e9:.2f} GB, into {n_parts} shards{more}")
    parts.finish(out)
