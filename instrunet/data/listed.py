"""Paths that no call of the system opens, with the calls of pathlib that this project makes: `Remote` and `Packed`."""

import fnmatch
import re
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import PurePosixPath
from typing import IO, Any, Self


class Listed(PurePosixPath):
    """What a subclass has to say: `known`, `below` and `chunks`."""

    def __str__(self) -> str:
        return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*):/", r"\1://", super().__str__())

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is no file of this machine; instrunet.data.places.sound makes one")

    def relative_to(self, *other: Any) -> PurePosixPath:  # type: ignore[override]
        return PurePosixPath(*super().relative_to(*other).parts)

    def absolute(self) -> Self:
        return self

    def resolve(self) -> Self:
        return self.absolute()

    def known(self) -> dict[str, Any]:
        """Its `type` (file or directory) and `size` at least; FileNotFoundError where nothing is."""
        raise NotImplementedError

    def below(self) -> Iterator[Self]:
        """What lies under it, however deep."""
        raise NotImplementedError

    def chunks(self, n_bytes: int | None = None) -> Iterator[bytes]:
        """Its bytes; how many there are need not be asked for where it is known."""
        raise NotImplementedError

    def exists(self) -> bool:
        try:
            return bool(self.known())
        except (FileNotFoundError, PermissionError):
            return False

    def is_file(self) -> bool:
        return self.exists() and self.known()["type"] == "file"

    def is_dir(self) -> bool:
        return self.exists() and self.known()["type"] == "directory"

    def rglob(self, pattern: str) -> Iterator[Self]:
        return (path for path in self.below() if fnmatch.fnmatchcase(path.name, pattern))

    def glob(self, pattern: str) -> Iterator[Self]:
        wanted = PurePosixPath(pattern).parts
        for path in self.below():
            parts = path.relative_to(self).parts
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                yield path

    def iterdir(self) -> Iterator[Self]:
        names = {path.relative_to(self).parts[0]: None for path in self.below()}
        return (self / name for name in names)

    def read_bytes(self) -> bytes:
        return b"".join(self.chunks())

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "r", *, encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """For reading alone: tables and notes, held whole."""
        assert mode in ("r", "rb")
        content = BytesIO(self.read_bytes())
        return content if mode == "rb" else TextIOWrapper(content, encoding=encoding or "utf-8", newline=newline)
