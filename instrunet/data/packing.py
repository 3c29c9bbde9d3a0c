"""A shard: the tar of some files of an archive, from a folder or from a store.

Its headers say name and size alone, so the same files give the same bytes wherever they lie and whenever they were
written. A file is packed as it was listed, or the job fails.
"""

import hashlib
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from instrunet.data import places
from instrunet.data.remote import CHUNK, Remote
from instrunet.data.store import ObjectError, said
from instrunet.errors import DataError

FETCHERS = 16  # threads that fetch small objects, each of which waits for the network nearly all the time
SMALL = 4 << 20  # bytes: as many of these as there are fetchers are held at once
BLOCK = 512  # of a tar
END = bytes(2 * BLOCK)

Content = Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Entry:
    """What lies in an archive. `problem`: it is no regular file; `refused`: it is one and cannot be packed."""

    name: str
    n_bytes: int = 0
    version: str = ""
    problem: str = ""
    refused: str = ""


def write_shard(archive: Path, part: int, entries: Sequence[Entry], path: Path, skip: bool) -> list[dict[str, Any]]:
    """The tar of a part, and its rows of the index."""
    with path.open("wb") as tar, ThreadPoolExecutor(FETCHERS) as pool:
        rows = [_add(tar, archive, part, entry, content, skip) for entry, content in _contents(archive, entries, pool)]
        tar.write(END)
    return rows


def header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.size = entry.n_bytes
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padded(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK


def _contents(archive: Path, entries: Sequence[Entry], pool: ThreadPoolExecutor) -> Iterator[tuple[Entry, Content]]:
    """Each entry and how to get its bytes; small objects of a store are on their way before they are asked for."""
    waiting: deque[tuple[Entry, Content]] = deque()
    for entry in entries:
        path = archive / entry.name
        if isinstance(archive, Remote) and entry.n_bytes <= SMALL and not (entry.problem or entry.refused):
            waiting.append((entry, pool.submit(_read_whole, path, entry).result))
        else:
            waiting.append((entry, partial(_read, path, entry)))
        if len(waiting) > FETCHERS:
            yield waiting.popleft()
    yield from waiting


def _add(tar: IO[bytes], archive: Path, part: int, entry: Entry, content: Content, skip: bool) -> dict[str, Any]:
    row = {"name": entry.name, "part": part, "version": entry.version, "n_bytes": entry.n_bytes, "sha256": ""}
    none = row | {"offset": None, "problem": entry.problem or entry.refused}
    if none["problem"]:
        return none
    start, digest, n = tar.tell(), hashlib.sha256(), 0
    try:
        offset = start + tar.write(header(entry))
        for chunk in content():
            digest.update(chunk)
            n += tar.write(chunk)
    except _UnreadableError as error:
        if not skip:
            raise DataError(f"{error}; mend it, or leave out what cannot be read with --skip-unreadable") from None
        tar.seek(start)
        tar.truncate()
        return none | {"problem": str(error)}
    assert n == entry.n_bytes
    tar.write(bytes(padded(n) - n))
    return row | {"offset": offset, "sha256": digest.hexdigest(), "problem": ""}


class _UnreadableError(Exception):
    """One file that is there and cannot be read."""


def _read(path: Path, entry: Entry) -> Iterator[bytes]:
    """The bytes that were listed; a file that has changed since fails the job."""
    n, now = 0, (-1, "")
    try:
        chunks = path.chunks(entry.n_bytes) if isinstance(path, Remote) else _from_disk(path, entry.n_bytes)
        for chunk in chunks:
            n += len(chunk)
            yield chunk
        now = places.identity(path)
    except FileNotFoundError:
        pass
    except (ObjectError, OSError) as error:
        raise _UnreadableError(f"{path} cannot be read: {said(error)}") from None
    if n != entry.n_bytes or now != (entry.n_bytes, entry.version):
        raise DataError(
            f"{path} has changed or gone since the archive was listed; when nothing writes to it any more, pack it "
            "into a new folder"
        )


def _read_whole(path: Path, entry: Entry) -> list[bytes]:
    return list(_read(path, entry))


def _from_disk(path: Path, n_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = n_bytes
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
