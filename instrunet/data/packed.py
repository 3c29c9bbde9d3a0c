"""Members of a pack as paths: `/data/archive.packed/audio/x.flac`, in a folder or in a store; jobs/pack.py makes one.

NAME.packed/shards/part-00007.tar  some files one behind the other, as any tar tool reads them
NAME.packed/index.parquet          for each file of the archive where its bytes lie; in the order of its names' parts
NAME.packed/_SUCCESS               written last, see parts.py

Nothing is ever unpacked onto a disk, so a name in an index leads nowhere but into its shard.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instrunet.data.listed import Listed
from instrunet.data.readahead import Reader
from instrunet.data.remote import Remote
from instrunet.data.store import FINAL, ObjectError, said
from instrunet.errors import DataError

SUFFIX, SHARDS, INDEX = ".packed", "shards", "index.parquet"
DONE = "_SUCCESS"  # as in parts.py, which stands on this file
EMPTY = "an empty folder"
ODD_NAME = r"(^|/)\.{0,2}(/|$)|\x00"  # "..", ".", "//", and an absolute path

SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # relative to the archive
        ("part", pa.int32()),
        ("offset", pa.int64()),  # of the first byte in shards/part-<part>.tar; null: not packed, and `problem` says why
        ("n_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("version", pa.string()),  # of the original: its time of change in ns, or a store's entity tag
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class Member:
    """A row of an index."""

    name: str
    part: int
    offset: int | None
    n_bytes: int
    sha256: str
    version: str
    problem: str


class Packed(Listed):
    """A pack's folder is what it holds: `NAME.packed` the archive, what follows the names in it."""

    row: int | None = None  # in the index, where a listing told it

    @property
    def folder(self) -> Path | Remote | None:
        """Where the pack lies: a folder of this machine or of a store."""
        parts = self.parts[: self._depth()]
        if not parts:
            return None
        text = str(Listed(*parts))
        return Remote(text) if "://" in text else Path(text).absolute()

    @property
    def inside(self) -> str:
        return "/".join(self.parts[self._depth() :])

    def absolute(self) -> Self:
        return self if "://" in str(self) else type(self)(Path(super().__str__()).absolute())

    def known(self) -> dict[str, Any]:
        member = self.member()
        if member and member.offset is not None:
            return {"type": "file", "size": member.n_bytes, "sha256": member.sha256}
        if not self._pack().holds(self.inside) and not (member and member.problem == EMPTY):
            raise FileNotFoundError(str(self))
        return {"type": "directory", "size": 0}

    def member(self) -> Member | None:
        pack = self._pack()
        row = pack.find(self.inside) if self.row is None else self.row
        return None if row is None else pack.member(row)

    def below(self) -> Iterator[Self]:
        """Files and folders, in the order of the index."""
        pack, told = self._pack(), set()
        top = self.parts[: self._depth()]
        for row in pack.rows_below(self.inside):
            path = type(self)(*top, pack.names[row].as_py())
            for folder in reversed(path.parents[: len(path.parts) - len(self.parts) - 1]):
                if folder not in told:
                    told.add(folder)
                    yield folder
            path.row = row
            yield path

    def chunks(self, n_bytes: int | None = None) -> Iterator[bytes]:
        """All bytes, however many are asked for: an ObjectError if they are not the ones that were packed."""
        member, pack = self.member(), self._pack()
        if member is None or member.offset is None:
            what = member.problem if member else "a folder" if self.is_dir() else "nothing"
            raise ObjectError(f"expected a file at {self}, found {what}")
        digest = hashlib.sha256()
        for chunk in self._read(pack, member.part, member.offset, member.n_bytes):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != member.sha256:
            shard = pack.shard(member.part)
            raise ObjectError(f"{self} is not what was packed: other bytes lie in {shard}; make or fetch it again")

    def _read(self, pack: "Pack", part: int, offset: int, n_bytes: int) -> Iterator[bytes]:
        try:
            yield from READER.read(pack.shard(part), offset, n_bytes)
        except (ObjectError, OSError, *FINAL) as error:
            why = str(error) if isinstance(error, ObjectError) else f"{pack.shard(part)}: {said(error)}"
            raise ObjectError(f"{self} cannot be had: {why}") from None

    def _pack(self) -> "Pack":
        folder = self.folder
        if folder is None:
            raise FileNotFoundError(str(self))
        return _opened(folder)

    def _depth(self) -> int:
        """How many parts lead to the pack; a pack in a pack is files like any other."""
        return next((k for k, part in enumerate(self.parts, 1) if is_pack(part)), 0)


def is_pack(part: str) -> bool:
    return part.endswith(SUFFIX) and part != SUFFIX


def leads_into(path: PurePosixPath) -> bool:
    return any(map(is_pack, path.parts))


class Pack:
    """An index in memory: 100 MB for 800,000 files."""

    def __init__(self, folder: Path | Remote, table: pa.Table) -> None:
        self.folder, self.table = folder, table
        self.names = table["name"]

    def shard(self, part: int) -> Any:
        return self.folder / SHARDS / f"part-{part:05d}.tar"

    def member(self, row: int) -> Member:
        return Member(**{name: self.table[name][row].as_py() for name in SCHEMA.names})

    def find(self, name: str) -> int | None:
        row = self._first(name)
        return row if row < len(self.names) and self.names[row].as_py() == name else None

    def holds(self, folder: str) -> bool:
        return not folder or len(self.rows_below(folder)) > 0

    def rows_below(self, folder: str) -> range:
        return range(self._first(f"{folder}/"), self._first(f"{folder}/", after=True)) if folder else self._all

    @property
    def _all(self) -> range:
        return range(len(self.names))

    def _first(self, name: str, after: bool = False) -> int:
        """The first row that is not before `name`, or that comes after all that begin with it."""
        key = as_sorted(name)
        return bisect_left(
            self._all,
            True,
            key=lambda row: (
                (found := as_sorted(self.names[row].as_py())) >= key and not (after and found.startswith(key))
            ),
        )


def as_sorted(name: str) -> str:
    """As paths are sorted, part by part: `a/b` before `a.wav`."""
    return name.replace("/", "\0")


@cache
def _opened(folder: Path | Remote) -> Pack:
    """Once a process."""
    if not (folder / DONE).is_file():
        there = f"one that is not finished (it has no {DONE})" if (folder / "plan.json").is_file() else "none"
        raise DataError(
            f"expected a pack at {folder}, found {there}; the same jobs/pack.py again goes on, and a folder that is "
            f"no pack must not be named *{SUFFIX}"
        )
    path = folder / INDEX
    try:
        table = pq.read_table(BytesIO(path.read_bytes()) if isinstance(path, Remote) else path)
        table = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{path} is no index of a pack that can be read: {error}; pack the archive again") from None
    _check(table, path)
    return Pack(folder, table)


def _check(table: pa.Table, path: Any) -> None:
    """Whoever wrote it: no name may lead out of the pack, and every one is found."""
    names = table["name"]
    odd = table.filter(pc.fill_null(pc.match_substring_regex(names, ODD_NAME), True))
    if len(odd):
        raise DataError(f"{path} names {odd['name'][0].as_py()!r}, which leads out of the pack; do not use this pack")
    keys = pc.replace_substring(names, "/", "\0").combine_chunks()
    packed = table.filter(pc.is_valid(table["offset"]))
    least = [pc.min(packed[column]).as_py() or 0 for column in ("part", "offset", "n_bytes")]
    if pc.all(pc.less(keys[:-1], keys[1:])).as_py() not in (True, None) or min(least) < 0:
        raise DataError(
            f"{path} is no index that jobs/pack.py wrote: its rows are out of order; pack the archive again"
        )


READER = Reader()
