"""Objects of a store as paths, with the calls of pathlib that this project makes."""

import fnmatch
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import PurePosixPath
from typing import IO, Any

from instrunet.data.store import FINAL, request, said
from instrunet.errors import DataError

CHUNK = 16 << 20  # bytes of one request: what a broken connection costs


class Remote(PurePosixPath):
    """`s3://bucket/key`. No call of the system takes it for a path of this machine."""

    info: dict[str, Any] | None = None  # as a listing told it

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is no file of this machine; instrunet.data.places.sound makes one")

    def relative_to(self, *other: Any) -> PurePosixPath:  # type: ignore[override]
        return PurePosixPath(*super().relative_to(*other).parts)

    def absolute(self) -> "Remote":
        return self

    resolve = absolute

    def exists(self) -> bool:
        try:
            return bool(self.known())
        except (FileNotFoundError, PermissionError):
            return False

    def is_file(self) -> bool:
        return self.exists() and self.known()["type"] == "file"

    def is_dir(self) -> bool:
        return self.exists() and self.known()["type"] == "directory"

    def known(self) -> dict[str, Any]:
        """Size, type and version; asked for where no listing told."""
        known: dict[str, Any] = self.info or request(str(self), "info")
        return known

    def rglob(self, pattern: str) -> Iterator["Remote"]:
        return (path for path in self._below() if fnmatch.fnmatchcase(path.name, pattern))

    def glob(self, pattern: str) -> Iterator["Remote"]:
        wanted = PurePosixPath(pattern).parts
        for path in self._below():
            parts = path.relative_to(self).parts
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                yield path

    def iterdir(self) -> Iterator["Remote"]:
        names = {path.relative_to(self).parts[0]: None for path in self._below()}
        return (self / name for name in names)

    def chunks(self, n_bytes: int) -> Iterator[bytes]:
        """The object's bytes, a request for each `CHUNK`; what comes short is asked for again."""
        for start in range(0, n_bytes, CHUNK):
            n = min(CHUNK, n_bytes - start)
            yield request(str(self), "cat_file", start=start, end=start + n, n_bytes=n, check=_whole(n))

    def read_bytes(self) -> bytes:
        return b"".join(self.chunks(int(self.known()["size"])))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "r", *, encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """For reading alone: tables and notes, held whole."""
        assert mode in ("r", "rb")
        content = BytesIO(self.read_bytes())
        return content if mode == "rb" else TextIOWrapper(content, encoding=encoding or "utf-8", newline=newline)

    def _below(self) -> list["Remote"]:
        """Every object under this name; a `folder/` that a tool left as an object is none."""
        try:
            listed = request(str(self), "find", detail=True)
        except FINAL as error:
            raise DataError(f"{self} cannot be listed: {said(error)}") from None
        found = []
        for name, info in listed.items():
            key = name.split("://", 1)[-1].lstrip("/")
            path = Remote(f"{self.parts[0]}//{key}")
            if info.get("type") != "directory" and not key.endswith("/") and self in path.parents:
                path.info = info | {"key": key}
                found.append(path)
        return found


def _whole(n: int) -> Callable[[bytes], bytes]:
    def check(body: bytes) -> bytes:
        if len(body) != n:
            raise OSError(f"{len(body)} bytes came, {n} were expected")
        return body

    return check
