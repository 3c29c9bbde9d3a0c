"""What there is to tag: a folder, a glob, one file, a list, an inventory, on a disk, in a store or in a pack.

Conventions: files come in the order of their names, which is that of S3's pages, so that two listings can be compared
as they stream. A link to a file is a file, a link to a folder is not followed. Below a folder a file is what is named
like sound; a list means what it names, each once, relative to its own folder. A folder that cannot be listed is a file
that cannot be read: nothing is left out in silence.
"""

import csv
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instrunet.archive.names import is_sound
from instrunet.data import places
from instrunet.data.places import as_text
from instrunet.data.remote import Remote
from instrunet.errors import ConfigError, DataError

LISTS = (".txt", ".csv", ".parquet")
FETCHERS = 16  # threads that look at remote files; each waits for the network nearly all the time
MAGIC = re.compile(r"[*?[]")
# Columns of an inventory, by any of these names
SIZE, DURATION, VERSION = ("n_bytes", "size", "bytes"), ("duration_s", "duration"), ("version", "etag", "mtime")
UNREADABLE = "unreadable"  # the version of what says nothing of itself


class File(NamedTuple):
    name: str  # in its archive
    path: Path | str  # a disk's as text: a million `Path`s take a minute more
    n_bytes: int
    version: str
    digest: str = ""  # of its content, where that is known without reading
    duration_s: float | None = None  # where an inventory says


class Archive(NamedTuple):
    said: str  # as plans have it
    root: str  # what is before the name in an uri
    files: Callable[[], Iterator[File]]


def archive(text: str | Path) -> Archive:
    """What an argument names; nothing is listed yet."""
    folder, pattern = _divided(str(text))
    place = (places.asked(folder) if isinstance(text, str) else text).absolute()
    if pattern:
        return Archive(f"{place}/{pattern}", str(place), lambda: _matching(place, pattern))
    if place.is_file() and place.suffix.lower() in LISTS:
        read = _inventory if place.suffix.lower() == ".parquet" else _list
        return Archive(str(place), str(place.parent), lambda: _named(read(place), place.parent))
    if place.is_file():
        return Archive(str(place), str(place.parent), lambda: iter([_known(place.name, place)]))
    return Archive(str(place), str(place), lambda: _below(place))


def root(said: str) -> str:
    """What is before the names in its uris, of an archive that may be gone."""
    magic = MAGIC.search(said)
    folder = said[: magic.start()].rpartition("/")[0] if magic else said
    return folder.rpartition("/")[0] if folder.lower().endswith(LISTS) else folder


def _divided(text: str) -> tuple[str, str]:
    """A glob is what no file is called; its folder is what comes before the first part with a *, ? or [."""
    magic = MAGIC.search(text)
    if magic is None or places.URL.match(text) is None and Path(text).exists():
        return text, ""
    cut = text.rfind("/", 0, magic.start())
    if cut < 0:
        return ".", text
    return text[:cut] or "/", text[cut + 1 :]


def _matching(place: Path, pattern: str) -> Iterator[File]:
    wanted = re.compile(_regex(pattern), re.DOTALL)
    return (file for file in _below(place) if wanted.fullmatch(file.name))


def _regex(pattern: str) -> str:
    """`**/` is any folders, `*` and `?` stay within a name."""
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    found = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^]]*\]|.", pattern, re.DOTALL):
        if len(token) > 2 and token[0] == "[":
            found += f"[^{token[2:]}" if token[1] == "!" else token
        else:
            found += known.get(token) or re.escape(token)
    return found


def _below(place: Path) -> Iterator[File]:
    if not place.is_dir():
        raise DataError(f"expected a folder of sound at {place}, found nothing")
    if not places.is_remote(place):
        return _walk(str(place), "")
    if isinstance(place, Remote):
        return (_known(name, path) for name, path in place.named_below() if is_sound(path.name))
    found = [(path.relative_to(place).as_posix(), path) for path in place.rglob("*") if is_sound(path.name)]
    return (_known(name, path) for name, path in sorted(found, key=itemgetter(0)))


def _walk(folder: str, inside: str) -> Iterator[File]:
    found: list[tuple[str, bool, os.DirEntry[str]]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found += [(as_text(entry.name), False, entry)] if is_sound(entry.name) else []
            found += [(f"{as_text(entry.name)}/", True, entry)] if entry.is_dir(follow_symlinks=False) else []
    for _, is_folder, entry in sorted(found, key=itemgetter(0)):
        name = inside + entry.name
        if not is_folder:
            yield _on_disk(name, entry.path, entry.stat)
            continue
        try:
            yield from _walk(entry.path, f"{name}/")
        except PermissionError:
            if not is_sound(entry.name):
                yield File(f"{name}/", entry.path, 0, UNREADABLE)


def _on_disk(name: str, path: str, ask: Callable[[], os.stat_result]) -> File:
    try:
        info = ask()
    except (OSError, ValueError):
        return File(name, path, 0, UNREADABLE)
    return File(name, path, info.st_size if stat.S_ISREG(info.st_mode) else 0, str(info.st_mtime_ns))


def _known(name: str, path: Path) -> File:
    if not places.is_remote(path):
        return _on_disk(name, str(path), path.stat)
    try:
        n_bytes, version = places.identity(path)
        return File(name, path, n_bytes if path.is_file() else 0, version, places.checksum(path))
    except OSError:
        return File(name, path, 0, UNREADABLE)


def _list(path: Path) -> pa.Table:
    """A path a line; of a CSV the column `uri` or `path`, or the first where there is no such head."""
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".txt":
            return pa.table({"uri": pa.array([line for line in file.read().splitlines() if line], pa.string())})
        rows = csv.reader(file)
        head = next(rows, [])
        column = next((head.index(name) for name in ("uri", "path") if name in head), None)
        first = [] if column is not None else head[:1]
        lines = [row[column or 0] for row in rows if len(row) > (column or 0)]
        return pa.table({"uri": pa.array([line for line in first + lines if line], pa.string())})


def _inventory(path: Path) -> pa.Table:
    """`uri`, and where it is so good as to say, size, duration and version: then no file is asked for them."""
    try:
        file = pq.ParquetFile(places.source(path))
        there = file.schema_arrow.names
        if "uri" not in there:
            raise DataError(f"{path} needs a column uri; it has {', '.join(there)}")
        wanted = (("uri", ("uri",)), ("n_bytes", SIZE), ("duration_s", DURATION), ("version", VERSION))
        found = {ours: [name for name in names if name in there] for ours, names in wanted}
        named = {ours: names[0] for ours, names in found.items() if names}
        table = file.read(list(named.values())).rename_columns(list(named))
        types = {"uri": pa.large_string(), "n_bytes": pa.int64(), "duration_s": pa.float64(), "version": pa.string()}
        return table.cast(pa.schema([(name, types[name]) for name in named]))
    except pa.ArrowException as error:
        raise DataError(f"{path} is no Parquet inventory that can be read: {error}") from None


def _named(table: pa.Table, folder: Path) -> Iterator[File]:
    """In order and each once; a hundred bytes a file are held."""
    if table.column("uri").null_count:
        raise DataError("the list has a row without a uri; give every file one")
    table = table.take(pc.sort_indices(table, [("uri", "ascending")]))
    rows = _once(_rows(table))
    if "n_bytes" in table.column_names:
        yield from (_told(row, folder) for row in rows)
        return
    with ThreadPoolExecutor(FETCHERS) as pool:
        while some := list(islice(rows, 10_000)):
            yield from pool.map(lambda row: _asked(row, folder), some)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(10_000):
        columns = batch.to_pydict()
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _once(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    last = None
    for row in rows:
        if row["uri"] != last:
            yield row
        last = row["uri"]


def _path(uri: str, folder: Path) -> Path | str:
    if places.URL.fullmatch(uri):
        try:
            return places.place(uri)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return uri if uri.startswith("/") else folder / uri


def _asked(row: dict[str, Any], folder: Path) -> File:
    path = _path(row["uri"], folder)
    file = _known(row["uri"], path if not isinstance(path, str) else places.located(path))
    return file._replace(duration_s=row.get("duration_s"))


def _told(row: dict[str, Any], folder: Path) -> File:
    """As it stands: to make paths of a million URLs takes longer than all else."""
    uri: str = row["uri"]
    plain = uri.startswith("/") or ("://" in uri and "@" not in uri and "?" not in uri)
    return File(
        uri,
        uri if plain else _path(uri, folder),
        row["n_bytes"] or 0,
        row.get("version") or "",
        "",
        row.get("duration_s"),
    )
