"""The files of an archive at one time, as `files.parquet`: what changed since another time, and what has a twin.

Nothing here holds a million rows: they stream through in batches. Held are 16 bytes and a name of each file that
shares its size with another.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.archive.sources import Archive, File
from instrunet.audio.io import EXTENSIONS, DecodeError
from instrunet.data import places
from instrunet.data.manifest import sha256_of
from instrunet.data.places import as_text, check_name
from instrunet.errors import DataError

FILES = "files.parquet"
BATCH = 20_000
SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # in its archive, by which it is known again
        ("uri", pa.string()),
        ("n_bytes", pa.int64()),
        ("version", pa.string()),
        ("digest", pa.string()),  # of its bytes; empty where no other file has as many
        ("twin", pa.string()),  # the file with the same bytes that is tagged in its place
        ("change", pa.string()),
        ("duration_s", pa.float64()),  # as an inventory says
        ("error", pa.string()),  # why it cannot be opened by its name
    ]
)
CHANGES = ("new", "changed", "again", "unchanged", "deleted")
TO_HEAR = ("new", "changed", "again")  # again: it could not be had, or what was tagged in its place is gone
Row = dict[str, Any]


class Scan(NamedTuple):
    path: Path  # of the listing as it was found
    n_files: int
    digest: str  # of names, sizes and versions


class Tally:
    """The files of an archive as they go by: how many, and a digest of their names, sizes and versions."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.n_files, self._sum = archive, 0, hashlib.sha256()

    def files(self) -> Iterator[File]:
        for file in self.archive.files():
            self._sum.update(f"{file.name}|{file.n_bytes}|{file.version}\n".encode(errors="surrogateescape"))
            self.n_files += 1
            yield file

    def digest(self) -> str:
        if not self.n_files:
            said = f"({' '.join(sorted(EXTENSIONS))}) under {self.archive.said}"
            raise DataError(f"expected sound files {said}, found none")
        return self._sum.hexdigest()[:32]


def scan(archive: Archive, path: Path, last: Path | None = None) -> Scan:
    """List into `path`, beside the listing `last`."""
    tally, before = Tally(archive), rows(last) if last else iter(())
    write(path, _compared(tally.files(), (row for row in before if row["change"] != "deleted")))
    return Scan(path, tally.n_files, tally.digest())


def again(archive: Archive, path: Path) -> Scan:
    """Of the listing that `path` holds already: what it would say now, at a third of the cost of writing it."""
    tally = Tally(archive)
    deque(tally.files(), maxlen=0)
    return Scan(path, tally.n_files, tally.digest())


def finish(found: Scan, path: Path, unheard: Iterable[str] = ()) -> None:
    """Add to a listing what only other rows tell: twins, and files that must be heard again."""
    write(path, _with_twins(found.path, set(unheard)))


def rows(path: Path) -> Iterator[Row]:
    for batch in pq.ParquetFile(places.source(path)).iter_batches(BATCH):
        columns = batch.to_pydict()
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def write(path: Path, rows: Iterable[Row], schema: pa.Schema = SCHEMA) -> None:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    n = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            for name, values in columns.items():
                values.append(row[name])
            n += 1
            if n % BATCH == 0:
                writer.write_table(pa.table(columns, schema))
                columns = {name: [] for name in schema.names}
        writer.write_table(pa.table(columns, schema))


def count(path: Path) -> dict[str, int]:
    found: Counter[str] = Counter()
    for batch in pq.ParquetFile(places.source(path)).iter_batches(BATCH, columns=["change"]):
        found.update(batch.column(0).to_pylist())
    return {change: found[change] for change in CHANGES}


def _compared(files: Iterable[File], before: Iterator[Row]) -> Iterator[Row]:
    """Two listings in the same order, side by side."""
    old = next(before, None)
    for file in files:
        row = _row(file)
        while old and old["name"] < row["name"]:
            yield old | {"change": "deleted", "twin": "", "error": ""}
            old = next(before, None)
        if old and old["name"] == row["name"]:
            same = (old["n_bytes"], old["version"]) == (row["n_bytes"], row["version"])
            if same:
                row |= {"digest": row["digest"] or old["digest"], "twin": old["twin"]}
            yield row | {"change": "unchanged" if same else "changed"}
            old = next(before, None)
        else:
            yield row
    while old:
        yield old | {"change": "deleted", "twin": "", "error": ""}
        old = next(before, None)


def _row(file: File) -> Row:
    return {
        "name": as_text(file.name),
        "uri": as_text(file.path),
        "n_bytes": file.n_bytes,
        "version": file.version,
        "digest": file.digest,
        "twin": "",
        "change": "new",
        "duration_s": file.duration_s,
        "error": _misnamed(file.path),
    }


def _misnamed(path: Path | str) -> str:
    try:
        check_name(path)
    except DecodeError as error:
        return str(error)
    return ""


def _with_twins(path: Path, unheard: set[str]) -> Iterator[Row]:
    """Only files of equal size are read. A file that was tagged before comes before others, whatever their names."""
    gone = {row["uri"] for row in rows(path) if row["change"] in ("changed", "deleted")}
    sizes = _shared_sizes(path, gone | unheard)
    first: dict[bytes, str] = {}
    read: dict[str, str] = {}
    for row in rows(path):
        if row["n_bytes"] in sizes and _stays(row, gone, unheard) and not row["twin"]:
            read[row["uri"]] = row["digest"] or _digest(row)
            first.setdefault(_key(read[row["uri"]] or row["uri"]), row["uri"])
    for row in rows(path):
        if row["change"] == "deleted":
            yield row
        elif _stays(row, gone, unheard):
            yield row | {"digest": read.get(row["uri"], row["digest"])}
        else:
            change = "again" if row["change"] == "unchanged" else row["change"]
            shared = row["n_bytes"] in sizes and not row["error"]
            digest = (row["digest"] or _digest(row)) if shared else row["digest"]
            original = first.setdefault(_key(digest), row["uri"]) if digest and shared else row["uri"]
            yield row | {"change": change, "digest": digest, "twin": original if original != row["uri"] else ""}


def _stays(row: Row, gone: set[str], unheard: set[str]) -> bool:
    """As it was: it, and what was tagged in its place."""
    return row["change"] == "unchanged" and row["twin"] not in gone and row["uri"] not in unheard


def _shared_sizes(path: Path, of_interest: set[str]) -> set[int]:
    """Sizes that several files have, of which one at least is to be heard."""
    every, heard = [], []
    for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=["n_bytes", "change", "uri", "twin", "error"]):
        columns = batch.to_pydict()
        for size, change, uri, twin, error in zip(*columns.values(), strict=True):
            if change != "deleted" and size and not error:
                every.append(size)
                if change != "unchanged" or uri in of_interest or twin in of_interest:
                    heard.append(size)
    values, counts = np.unique(np.array(every, np.int64), return_counts=True)
    return set(np.intersect1d(values[counts > 1], np.array(heard, np.int64)).tolist())


def _digest(row: Row) -> str:
    """Empty where it cannot be read, whatever the reason: the decoder will say it."""
    return "" if row["error"] or places.is_remote(places.located(row["uri"])) else sha256_of(Path(row["uri"]))


def _key(digest: str) -> bytes:
    return hashlib.blake2b(digest.encode(), digest_size=16).digest()
