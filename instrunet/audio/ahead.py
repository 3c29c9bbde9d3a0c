"""Several sounds at a time: what is made ahead of its turn, and decoders with a thread each to make it in."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from pathlib import Path
from queue import Empty, LifoQueue
from threading import Lock, get_ident
from typing import Any, NamedTuple, Self, TypeVar

from instrunet.audio.io import Header, Sound
from instrunet.audio.isolated import Decoder, Limits

Item = TypeVar("Item")
Made = TypeVar("Made")


class Threads(NamedTuple):
    """So many, which all share who work `ahead` in a process."""

    n: int
    pool: ThreadPoolExecutor


def ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: Threads | None = None, n: int = 1
) -> Iterator[Made]:
    """`make` of each, in order; the next `n`, or one a thread, are made while the caller works on this one."""
    coming: deque[Future[Made]] = deque()
    with nullcontext(threads.pool) if threads else ThreadPoolExecutor(1) as pool:
        try:
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) > (threads.n if threads else n):
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:  # nothing is still at work when its caller puts away what it works with
            for left in coming:
                left.cancel()
            wait(coming)


class Turn:
    """One thread works at a time; who waits for something else lends his turn to the next."""

    def __init__(self) -> None:
        self._lock, self._whose, self._since = Lock(), 0, 0.0
        self._held_s, self._lent_s = 0.0, defaultdict[int, float](float)

    def now(self) -> float:
        """In seconds; for a thread it stands still while another has the turn that it has lent."""
        return time.perf_counter() - self._lent_s[get_ident()]

    @contextmanager
    def mine(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Of a thread that has none, nothing is lent."""
        if self._whose != get_ident():
            yield
            return
        held_s = self._give()
        try:
            yield
        finally:
            self._take()
            self._lent_s[get_ident()] += self._held_s - held_s

    def _take(self) -> None:
        self._lock.acquire()
        self._whose, self._since = get_ident(), time.perf_counter()

    def _give(self) -> float:
        """For how long it was anybody's."""
        self._held_s += time.perf_counter() - self._since
        held_s, self._whose = self._held_s, 0
        self._lock.release()
        return held_s


class Decoders:
    """So many children, each with a thread: `read` and `probe` are those of one that is free, the last one used first.

    `turn` is lent out by a caller who waits for a child that stalls, or for one that is free.
    """

    def __init__(self, limits: Limits, n: int, turn: Turn | None = None) -> None:
        self.threads = Threads(n, ThreadPoolExecutor(n))
        self._aside = turn.lent if turn else nullcontext
        self._each = [Decoder(limits, self._aside) for _ in range(n)]
        self._free: LifoQueue[Decoder] = LifoQueue()
        for decoder in self._each:
            self._free.put(decoder)

    def read(self, *of: Any) -> Sound:
        with self._one() as decoder:
            return decoder.read(*of)

    def probe(self, path: Path) -> Header:
        with self._one() as decoder:
            return decoder.probe(path)

    def close(self) -> None:
        for decoder in self._each:
            decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _one(self) -> Iterator[Decoder]:
        try:
            decoder = self._free.get_nowait()
        except Empty:
            with self._aside():
                decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)
