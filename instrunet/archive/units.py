"""The work list: every file that is to be heard, cut into units of at most some minutes, gathered into fixed parts.

Conventions: `uri` is the absolute path as text, or an object's URL; a byte of a name that is not UTF-8 stands in it as
\\xNN, and such a file is `unreadable`. Rows stream from the listing to the work list, whatever their number.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from instrunet.archive import listing
from instrunet.archive.listing import Row
from instrunet.audio.io import DecodeError, Header, probe
from instrunet.config import Spec
from instrunet.data import places

WORK_LIST = "work_list.parquet"
Look = Callable[[Path], Header]  # `probe`, or one that does the same elsewhere
FETCHERS = 16  # threads that look at files; each waits for the network, or for a decoder, nearly all the time
LONGEST_S = 1e6  # 12 days: a header that says more says nothing, and could make 10**8 units
# Each part is a task, a file and an entry of the work list's footer, which every worker reads: a larger archive gets
# larger parts.
MOST_PARTS = 10_000
# Seconds of sound: a part takes some 20 ms whatever is in it, and a core is faster with several files at a time.
LEAST_S = 300.0

# `status` is empty where a worker has to find out; a duplicate or unreadable file is known before
SCHEMA = pa.schema(
    [
        ("part", pa.int32()),
        ("unit_id", pa.string()),
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),  # null: to the end, where the header does not say how far that is
        ("status", pa.string()),
        ("error", pa.string()),
        ("n_bytes", pa.int64()),  # of the whole file
    ]
)
_SPOOLED = SCHEMA.remove(0).append(pa.field("share", pa.float64()))  # of the file's bytes


class UnitSpec(Spec):
    unit_s: float = Field(300.0, gt=0)
    part_s: float = Field(1800.0, gt=0)  # of sound in a part at most: what is lost when a worker dies
    part_units: int = Field(128, gt=0)
    embeddings: bool = False  # of each window, beside its scores
    part_bytes: int = Field(1 << 29, gt=0)  # half an hour of 24 bit stereo at 48 kHz, 518 MB, is one part still


class WorkList:
    """A saved work list: row group k is part k, and is read alone."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(places.source(path))
        self.n_parts: int = self._file.num_row_groups

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def part(self, number: int, columns: list[str] | None = None) -> list[Row]:
        rows: list[Row] = self._file.read_row_group(number, columns, use_threads=False).to_pylist()
        return rows

    def table(self) -> pa.Table:
        return self._file.read()


def make(files: Path, path: Path, spec: UnitSpec, bundle: str, look: Look = probe) -> None:
    """Write the work list of a listing. The same listing, spec and bundle give the same rows and the same parts."""
    with TemporaryDirectory(prefix="instrunet-") as folder:
        spool = Path(folder) / "units.parquet"
        listing.write(spool, _units_of(files, spec, bundle, look), _SPOOLED)
        _save(spool, path, spec)


def _units_of(files: Path, spec: UnitSpec, bundle: str, look: Look) -> Iterator[Row]:
    rows = (row for row in listing.rows(files) if row["change"] != "unchanged")
    with ThreadPoolExecutor(FETCHERS) as pool:
        while some := list(islice(rows, 1000)):
            for row, known in zip(some, _looked(pool, some, look), strict=True):
                yield from _units(row, known, spec, bundle)


def _looked(pool: ThreadPoolExecutor, rows: list[Row], look: Look) -> Iterable[tuple[str, str, float | None]]:
    """Where all is known, no thread is asked: that would take longer than all the rest."""
    if all(row["duration_s"] is not None or row["change"] == "deleted" for row in rows):
        return [_known(row, look) for row in rows]
    return pool.map(lambda row: _known(row, look), rows)


def _known(row: Row, look: Look) -> tuple[str, str, float | None]:
    """(status, error, duration_s) as far as they can be told without decoding."""
    if row["change"] == "deleted":
        return "deleted", "", 0.0
    if row["error"]:
        return "unreadable", row["error"], None
    duration_s = row["duration_s"]
    if duration_s is None or not 0 <= duration_s <= LONGEST_S:
        try:
            with places.sound(row["uri"], row["n_bytes"] or None) as local:
                duration_s = look(local).duration_s
        except DecodeError as problem:
            return problem.status, str(problem), None
    status, error = ("duplicate", f"the same bytes as {row['twin']}") if row["twin"] else ("", "")
    return status, error, duration_s if duration_s <= LONGEST_S else None


def _units(row: Row, known: tuple[str, str, float | None], spec: UnitSpec, bundle: str) -> Iterator[Row]:
    status, error, duration_s = known
    ranges = _ranges(duration_s, spec.unit_s)
    for start_s, stop_s in ranges:
        yield {
            "unit_id": _unit_id(row, start_s, stop_s, bundle),
            "uri": row["uri"],
            "start_s": start_s,
            "stop_s": stop_s,
            "status": status,
            "error": error,
            "n_bytes": row["n_bytes"],
            "share": row["n_bytes"] / len(ranges),
        }


def _ranges(duration_s: float | None, unit_s: float) -> list[tuple[float, float | None]]:
    if duration_s is None:
        return [(0.0, None)]
    n = max(1, math.ceil(duration_s / unit_s - 1e-9))  # what the division's rounding adds is no unit of its own
    inner = [k * unit_s for k in range(1, n)]
    return list(zip([0.0, *inner], [*inner, duration_s], strict=True))


def _unit_id(row: Row, start_s: float, stop_s: float | None, bundle: str) -> str:
    """Identity of a file (name in the archive, size, version), the range, and the model that is to hear it."""
    stop = "end" if stop_s is None else f"{stop_s:.6f}"
    identity = f"{row['name']}|{row['n_bytes']}|{row['version']}|{start_s:.6f}|{stop}|{bundle}"
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _save(spool: Path, path: Path, spec: UnitSpec) -> None:
    """A row group a part, so that a worker reads its part alone."""
    sizes = pq.read_table(spool, columns=["start_s", "stop_s", "share"])
    start_s, stop_s, shares = (sizes.column(k).to_numpy() for k in range(3))
    lengths = np.where(np.isnan(stop_s), 0.0, stop_s - start_s)
    bounds = bounds_of(lengths, shares, spec)
    batches = pq.ParquetFile(spool).iter_batches(listing.BATCH)
    lean = {"use_dictionary": False, "write_statistics": False}  # of a few rows: a third of the time
    with pq.ParquetWriter(path, SCHEMA, **lean) as writer:
        for number, rows in enumerate(_cut(batches, np.diff(bounds).tolist())):
            part = pa.array(np.full(len(rows), number, np.int32))
            table = rows.drop_columns(["share"]).add_column(0, "part", part)
            writer.write_table(table, row_group_size=max(1, len(rows)))


def bounds_of(lengths: Any, shares: Any, spec: UnitSpec) -> list[int]:
    """Where parts begin, and the end. A small archive gets small parts, so that it too is work for many: a 64th of the
    whole, of `LEAST_S` at least; a large one gets larger ones, so that there are not too many."""
    seconds, n_bytes = float(lengths.sum()), float(shares.sum())
    over = max(seconds / spec.part_s, n_bytes / spec.part_bytes, len(lengths) / spec.part_units) / MOST_PARTS
    more = max(1.0, over)
    part_s, part_bytes = spec.part_s * more, spec.part_bytes * more
    part_s = min(part_s, max(LEAST_S, seconds / 64))
    bounds, units, held_s, held = [0], 0, 0.0, 0.0
    for k, (length, share) in enumerate(zip(lengths.tolist(), shares.tolist(), strict=True)):
        full = held_s + length > part_s or held + share > part_bytes
        if units and (full or units >= spec.part_units * more):
            bounds.append(k)
            units, held_s, held = 0, 0.0, 0.0
        units, held_s, held = units + 1, held_s + length, held + share
    return [*bounds, len(lengths)] if len(lengths) else [0]


def _cut(batches: Iterator[pa.RecordBatch], lengths: list[int]) -> Iterator[pa.Table]:
    """Rows of batches as tables of these lengths."""
    held = _SPOOLED.empty_table()
    for length in lengths:
        while len(held) < length:
            held = pa.concat_tables([held, pa.Table.from_batches([next(batches)])])
        yield held.slice(0, length)
        held = held.slice(length)
