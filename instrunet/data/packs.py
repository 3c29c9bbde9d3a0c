"""What goes into a pack, cut into shards by bytes, and the index of all of them.

Whatever lies in the archive has a row in the index; what is no regular file has one that says so.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instrunet.config import fingerprint
from instrunet.data import parts, places
from instrunet.data.packed import EMPTY, INDEX, SCHEMA, SHARDS, as_sorted
from instrunet.data.packing import END, Entry, header, padded
from instrunet.data.store import said
from instrunet.errors import DataError, JobError

FILES, ROWS = "files.parquet", "rows"

WORK = pa.schema([(name, pa.string()) for name in ("name", "version", "problem", "refused")]).append(
    pa.field("n_bytes", pa.int64())
)


def list_entries(archive: Path) -> list[Entry]:
    """All that lies in it, in the order of the index: folders are there by what is in them."""
    if not archive.is_dir():
        raise DataError(f"expected a folder to pack at {archive}, found {'a file' if archive.exists() else 'nothing'}")
    found = _stored(archive) if places.is_remote(archive) else _on_disk(archive)
    entries = sorted(found, key=lambda entry: as_sorted(entry.name))
    if not any(not entry.problem for entry in entries):
        raise DataError(f"expected files to pack under {archive}, found none")
    for one, two in zip(entries, entries[1:], strict=False):
        if one.name == two.name:
            raise DataError(f"two files under {archive} would both be called {one.name}; rename one")
    return entries


def listing(entries: Iterable[Entry]) -> str:
    return fingerprint([[entry.name, entry.n_bytes, entry.version, entry.problem] for entry in entries])


def save_files(entries: Sequence[Entry], shard_bytes: int, path: Path) -> None:
    """A row group a shard."""
    with pq.ParquetWriter(path, WORK) as writer:
        for part in cut(entries, shard_bytes):
            rows = [vars(entry) for entry in entries[part]]
            writer.write_table(pa.Table.from_pylist(rows, schema=WORK), row_group_size=max(1, len(rows)))


def cut(entries: Sequence[Entry], shard_bytes: int) -> list[slice]:
    """The entries of each shard, which is no longer than asked unless one file is."""
    starts, held = [0], len(END)
    for k, entry in enumerate(entries):
        span = 0 if entry.problem or entry.refused else len(header(entry)) + padded(entry.n_bytes)
        if k > starts[-1] and held + span > shard_bytes and span:
            starts, held = [*starts, k], len(END)
        held += span
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(entries)], strict=True)]


def save_rows(rows: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def close(out: Path, n_parts: int) -> pa.Table:
    """Write the index, when it accounts for every file of the archive and for every byte of the shards."""
    tables = [pq.read_table(places.source(parts.part_path(out, ROWS, k))) for k in range(n_parts)]
    sizes = {path.name: places.identity(path)[0] for path in (out / SHARDS).glob("part-*.tar")}
    for k, table in enumerate(tables):
        shard = parts.part_path(out, SHARDS, k, ".tar")
        packed = table.filter(pc.is_valid(table["offset"]))
        size = len(END)
        for last in packed.slice(max(0, len(packed) - 1)).to_pylist():
            size += last["offset"] + padded(last["n_bytes"])
        if sizes.get(shard.name) != size:
            raise JobError(
                f"{shard} should have {size} bytes, it has {sizes.get(shard.name)}; remove it and run the same again"
            )
    index = pa.concat_tables(tables)
    listed = pq.read_table(places.source(out / FILES), columns=["name"])
    if index["name"].combine_chunks() != listed["name"].combine_chunks():
        raise JobError(f"the books do not close: {len(listed)} files are listed, {len(index)} are in {out / ROWS}")
    parts.write_aside(out / INDEX, lambda aside: pq.write_table(index, aside, compression="zstd"))
    return index


def left_out(index: pa.Table) -> list[tuple[str, str]]:
    """(name, why) of what has a row and no bytes."""
    rows = index.filter(pc.is_null(index["offset"])).select(["name", "problem"]).to_pylist()
    return [(row["name"], row["problem"]) for row in rows]


def _on_disk(archive: Path) -> Iterator[Entry]:
    """A link to a file is a file, a link to a folder is not followed."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {said(error)}; nothing was packed")

    for here, folders, files in os.walk(archive, onerror=fail):
        for name in folders:
            path = Path(here) / name
            if path.is_symlink():
                yield _named(archive, path, problem="a link to a folder")
        for name in files:
            yield _on_its_own(archive, Path(here) / name)
        if not folders and not files and Path(here) != archive:
            yield _named(archive, Path(here), problem=EMPTY)


def _on_its_own(archive: Path, path: Path) -> Entry:
    try:
        found = path.stat()
    except OSError as error:
        if path.is_symlink():
            return _named(archive, path, problem="a link that leads nowhere")
        raise DataError(f"{path} was listed and cannot be looked at: {said(error)}; run it again") from None
    if not stat.S_ISREG(found.st_mode):
        return _named(archive, path, problem="a device, pipe or socket")
    return _named(archive, path, n_bytes=found.st_size, version=places.identity(path)[1])


def _stored(archive: Path) -> Iterator[Entry]:
    for path in archive.rglob("*"):
        n_bytes, version = places.identity(path)
        why = "" if places.is_as_named(path) else "its name has // or /./ in it, which paths have not"
        yield _named(archive, path, n_bytes=n_bytes, version=version, refused=why)


def _named(archive: Path, path: Path, **known: Any) -> Entry:
    """A name that an index may hold; a file whose name had to be spelt otherwise is refused."""
    raw = path.relative_to(archive).as_posix()
    name = raw.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if name != raw:
        known["refused"] = "its name is not in UTF-8"
    if any(part in ("..", "") for part in name.split("/")) or "\0" in name:
        name, known["refused"] = name.replace("..", "\\x2e\\x2e").replace("\0", "\\x00"), "its name leads elsewhere"
    return Entry(name, **known)
