"""Objects of a store as paths."""

from collections.abc import Callable, Iterator
from typing import Any, Self

from instrunet.data.listed import Listed
from instrunet.data.store import FINAL, listed, request, said
from instrunet.errors import DataError

CHUNK = 16 << 20  # bytes of one request: what a broken connection costs
KEPT = ("type", "size", "ETag", "etag", "LastModified", "mtime", "created")  # of what a listing says


class Remote(Listed):
    """`s3://bucket/key`."""

    info: dict[str, Any] | None = None  # as a listing told it

    def known(self) -> dict[str, Any]:
        """Size, type and version; asked for where no listing told."""
        known: dict[str, Any] = self.info or request(str(self), "info")
        return known

    def chunks(self, n_bytes: int | None = None) -> Iterator[bytes]:
        return self.ranged(0, int(self.known()["size"] or 0) if n_bytes is None else n_bytes)

    def ranged(self, start: int, n_bytes: int) -> Iterator[bytes]:
        """The object's bytes, a request for each `CHUNK`; what comes short is asked for again."""
        for at in range(start, start + n_bytes, CHUNK):
            n = min(CHUNK, start + n_bytes - at)
            yield request(str(self), "cat_file", start=at, end=at + n, n_bytes=n, check=_whole(n))

    def below(self) -> Iterator[Self]:
        return (path for _, path in self.named_below())

    def named_below(self) -> Iterator[tuple[str, Self]]:
        """Every object under this name, and what it is called there, in the order of these names; a `folder/` that a
        tool left as an object is none."""
        above = len(str(self).split("://", 1)[1]) + 1
        try:
            for info in listed(str(self)):
                key = str(info["name"]).split("://", 1)[-1].lstrip("/")
                path = type(self)(f"{self.parts[0]}//{key}")
                if info.get("type") != "directory" and not key.endswith("/") and self in path.parents:
                    path.info = {name: info[name] for name in KEPT if name in info} | {"key": key}
                    yield key[above:], path
        except FINAL as error:
            raise DataError(f"{self} cannot be listed: {said(error)}") from None


def _whole(n: int) -> Callable[[bytes], bytes]:
    def check(body: bytes) -> bytes:
        if len(body) != n:
            raise OSError(f"{len(body)} bytes came, {n} were expected")
        return body

    return check
