"""The work list: every sound file below a folder, cut into units of at most some minutes, gathered into fixed parts.

Conventions: a link to a file is a file, a link to a folder is not followed. `uri` is the absolute path as text, or an
object's URL; a byte of a name that is not UTF-8 stands in it as \\xNN, and such a file is `unreadable`.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from instrunet.audio.io import EXTENSIONS, DecodeError, Header, probe
from instrunet.config import Spec, fingerprint
from instrunet.data import places
from instrunet.data.manifest import sha256_of
from instrunet.data.places import as_text, check_name
from instrunet.errors import DataError

WORK_LIST = "work_list.parquet"
Look = Callable[[Path], Header]  # `probe`, or one that does the same elsewhere
FETCHERS = 16  # threads that look at remote files; each waits for the network nearly all the time
LONGEST_S = 1e6  # 12 days: a header that says more says nothing, and could make 10**8 units

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


class UnitSpec(Spec):
    unit_s: float = Field(300.0, gt=0)
    part_s: float = Field(1800.0, gt=0)  # of sound in a part at most: what is lost when a worker dies
    part_units: int = Field(128, gt=0)
    part_bytes: int = Field(1 << 29, gt=0)  # half an hour of 24 bit stereo at 48 kHz, 518 MB, is one part still


def list_files(archive: Path) -> list[Path]:
    """Sound files by their names, in a fixed order. What has no such name is no business of ours."""
    if archive.is_file():
        return [archive]
    if not archive.is_dir():
        raise DataError(f"expected a folder of sound at {archive}, found nothing")
    found = sorted(p for p in archive.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not found:
        raise DataError(f"expected sound files ({' '.join(sorted(EXTENSIONS))}) under {archive}, found none")
    return found


def work_list(
    archive: Path, spec: UnitSpec, bundle: str, look: Look = probe, files: Sequence[Path] | None = None
) -> pa.Table:
    """One row a unit. The same archive, spec and bundle give the same rows and the same parts."""
    files = list_files(archive) if files is None else files
    twins = _duplicates(files)

    def units_of(path: Path) -> list[dict[str, Any]]:
        return list(_units(path, archive, spec, bundle, twins, look))

    with ThreadPoolExecutor(FETCHERS) as pool:
        looked = pool.map(units_of, files) if places.is_remote(archive) else map(units_of, files)
        rows = [row for rows in looked for row in rows]
    return pa.Table.from_pylist(list(_in_parts(rows, spec)), schema=SCHEMA)


def listing(files: Iterable[Path], archive: Path) -> str:
    """Digest of names, sizes and versions. A work list says more, and what it says may hang on a store's mood."""
    return fingerprint([_identity(path, archive).encode(errors="surrogateescape").hex() for path in files])


def save(table: pa.Table, path: Path) -> None:
    """A row group a part, so that a worker reads its part alone."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in by_part(table):
            writer.write_table(batch, row_group_size=max(1, len(batch)))


def load_part(source: Path | IO[bytes], number: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(source).read_row_group(number).to_pylist()
    return rows


def n_parts(table: pa.Table) -> int:
    return int(table.column("part")[-1].as_py()) + 1 if len(table) else 0


def by_part(table: pa.Table) -> Iterator[pa.Table]:
    part = table.column("part").to_numpy()
    bounds = [0, *(k for k in range(1, len(part)) if part[k] != part[k - 1]), len(part)]
    return (table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False))


def _units(
    path: Path, archive: Path, spec: UnitSpec, bundle: str, twins: dict[Path, Path], look: Look
) -> Iterator[dict[str, Any]]:
    status, error, duration_s = _known(path, twins, look)
    for start_s, stop_s in _ranges(duration_s, spec.unit_s):
        yield {
            "unit_id": _unit_id(path, archive, start_s, stop_s, bundle),
            "uri": as_text(path.absolute()),
            "start_s": start_s,
            "stop_s": stop_s,
            "status": status,
            "error": error,
            "n_bytes": _size(path),
        }


def _known(path: Path, twins: dict[Path, Path], look: Look) -> tuple[str, str, float | None]:
    """(status, error, duration_s) as far as they can be told without decoding."""
    try:
        check_name(path.absolute())
        with places.sound(path) as local:
            duration_s = look(local).duration_s
    except DecodeError as problem:
        return problem.status, str(problem), None
    status, error = ("duplicate", f"the same bytes as {twins[path]}") if path in twins else ("", "")
    return status, error, duration_s if duration_s <= LONGEST_S else None


def _ranges(duration_s: float | None, unit_s: float) -> list[tuple[float, float | None]]:
    if duration_s is None:
        return [(0.0, None)]
    n = max(1, math.ceil(duration_s / unit_s - 1e-9))  # what the division's rounding adds is no unit of its own
    inner = [k * unit_s for k in range(1, n)]
    return list(zip([0.0, *inner], [*inner, duration_s], strict=True))


def _unit_id(path: Path, archive: Path, start_s: float, stop_s: float | None, bundle: str) -> str:
    """Identity of a file (name in the archive, size, time of change), the range, and the model that is to hear it."""
    stop = "end" if stop_s is None else f"{stop_s:.6f}"
    identity = f"{_identity(path, archive)}|{start_s:.6f}|{stop}|{bundle}"
    return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:24]


def _identity(path: Path, archive: Path) -> str:
    name = path.relative_to(archive).as_posix() if path != archive else path.name
    try:
        n_bytes, version = places.identity(path)
    except OSError:
        return f"{name}|unreadable"
    return f"{name}|{n_bytes}|{version}"


def _duplicates(files: Sequence[Path]) -> dict[Path, Path]:
    """{file: the earlier file with the same bytes}. Only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in files:
        by_size.setdefault(_size(path), []).append(path)
    twins: dict[Path, Path] = {}
    for same in (group for size, group in by_size.items() if len(group) > 1 and size):
        first: dict[str, Path] = {}
        for path in same:
            content = places.checksum(path) if places.is_remote(path) else sha256_of(path)
            if content and first.setdefault(content, path) != path:
                twins[path] = first[content]
    return twins


def _size(path: Path) -> int:
    """In bytes; 0 for what is no file or will not be read, whatever the reason: the decoder will say it."""
    try:
        readable = path.is_file() and as_text(path) == str(path)
        return places.identity(path)[0] if readable else 0
    except OSError:
        return 0


def _in_parts(rows: list[dict[str, Any]], spec: UnitSpec) -> Iterator[dict[str, Any]]:
    """A small archive gets small parts, so that it too is work for many: a 64th of the whole, a minute at least."""
    lengths = [(row["stop_s"] or row["start_s"]) - row["start_s"] for row in rows]
    part_s = min(spec.part_s, max(60.0, sum(lengths) / 64))
    part, units, seconds, held = 0, 0, 0.0, 0.0
    for row, length, n_bytes in zip(rows, lengths, _shares(rows), strict=True):
        full = seconds + length > part_s or held + n_bytes > spec.part_bytes
        if units and (full or units >= spec.part_units):
            part, units, seconds, held = part + 1, 0, 0.0, 0.0
        units, seconds, held = units + 1, seconds + length, held + n_bytes
        yield row | {"part": part}


def _shares(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Bytes of each row: the units of a file share it evenly."""
    n_units = Counter(row["uri"] for row in rows)
    return [row["n_bytes"] / n_units[row["uri"]] for row in rows]
