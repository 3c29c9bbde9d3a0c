"""Ranges of shards: small ones of a store that follow each other come in one request, as many as lie within 16 MB."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instrunet.data.remote import CHUNK, Remote
from instrunet.data.store import ObjectError

FIRST = 1 << 18  # bytes; doubled as long as one range follows the other, so that a single file costs itself alone
LARGE = CHUNK // 8  # what is asked for by itself: a request less for 16 MB would not be felt
BLOCKS, STREAMS = 4, 32  # 64 MB at most; threads that look at many files at once come out of order


@dataclass
class _Stream:
    """Somebody who reads on: up to where, and how much to fetch at once."""

    shard: Remote
    stop: int
    ahead: int = FIRST


class Reader:
    """One for a process; its threads wait for each other while small ranges come from a store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[Path | Remote, int] = {}
        self._blocks: deque[tuple[Remote, int, bytes]] = deque(maxlen=BLOCKS)
        self._streams: deque[_Stream] = deque(maxlen=STREAMS)

    def read(self, shard: Path | Remote, start: int, n_bytes: int) -> Iterator[bytes]:
        """An ObjectError where the shard is too short."""
        if not isinstance(shard, Remote):
            yield from _from_disk(shard, start, n_bytes)
            return
        with self._lock:
            size = self._size(shard)
        if start + n_bytes > size:
            raise ObjectError(f"{shard} has {size} bytes, {start + n_bytes} are needed; make or fetch it again")
        if n_bytes > LARGE:
            yield from shard.ranged(start, n_bytes)
            return
        with self._lock:
            yield self._small(shard, start, n_bytes, size)

    def _size(self, shard: Remote) -> int:
        """Asked for once: a job reads thousands of ranges, and one too far costs all the tries of a request."""
        if shard not in self._sizes:
            self._sizes[shard] = int(shard.known()["size"])
        return self._sizes[shard]

    def _small(self, shard: Remote, start: int, n_bytes: int, size: int) -> bytes:
        for of, at, block in self._blocks:
            if of == shard and at <= start and start + n_bytes <= at + len(block):
                return block[start - at : start - at + n_bytes]
        at, stop = self._wanted(shard, start, start + n_bytes, size)
        block = b"".join(shard.ranged(at, stop - at))
        if stop - at > n_bytes:
            self._blocks.append((shard, at, block))
        return block[start - at : start - at + n_bytes]

    def _wanted(self, shard: Remote, start: int, stop: int, size: int) -> tuple[int, int]:
        """The range itself; a longer one where it follows what somebody has read, or lies across the end of it."""
        for stream in self._streams:
            if stream.shard == shard and start - stream.ahead <= stream.stop < stop:
                stream.ahead = min(2 * stream.ahead, CHUNK)
                at = min(start, stream.stop)
                stream.stop = min(max(stop, at + stream.ahead), size)
                return at, stream.stop
        self._streams.append(_Stream(shard, stop))
        return start, stop


def _from_disk(shard: Path, start: int, n_bytes: int) -> Iterator[bytes]:
    with shard.open("rb") as file:
        file.seek(start)
        left = n_bytes
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise ObjectError(f"{shard} ends {left} bytes too early; make or fetch it again")
            left -= len(chunk)
            yield chunk
