"""Outbox: sends a journal to a store that may be away, in bounded time whatever hangs: a name, a socket, retries."""

import fcntl
import logging
import math
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from pipelines.journal import Journal, Line, clean

T = TypeVar("T")
FREE_S = 0.25  # a call of this length costs nothing; a store that always needs longer runs out of patience
PROBE_S = 2.0
Dead = dict[str, tuple[float, int]]  # place -> when it was found dead, by which outbox
UPLOAD_BYTES_PER_S = 5e6  # a slower upload is left to `sync`

_log = logging.getLogger(__name__)
_calming = threading.RLock()  # the environment is one for all threads: the second to come would put back the first's


class Store(Protocol):
    """Where the lines go."""

    place: str  # its address without a password
    seconds: float  # our patience with it

    def calm(self) -> AbstractContextManager[None]:
        """Around all calls: the settings under which it neither waits long nor chatters."""

    def open(self, journal: Journal, patience: "Patience") -> None: ...

    def push(self, folder: Path, lines: list[Line]) -> None:
        """One line, or some of the kind "metrics"; files are relative to `folder`."""

    def refuses(self, error: Exception, line: Line) -> bool:
        """It is there and will not have this line, so the next one may go."""


class Outbox:
    """Sends what waits; after the first failure nothing more, until it is asked to try `again`.

    `dead` is shared: an outbox does not try a place that another has found dead in the last `quiet_s` seconds.
    """

    def __init__(self, journal: Journal, store: Store, dead: Dead, quiet_s: float) -> None:
        self.journal, self.store, self.patience = journal, store, Patience(store.seconds)
        self._dead, self._quiet_s = dead, quiet_s
        self.down = self._is_open = False
        self._guard: IO[bytes] | None = None
        self._lock = threading.RLock()  # a callback's thread may report metrics while the main thread does the rest
        journal.attach(store.place)

    def note(self, kind: str, **fields: Any) -> None:
        with self._lock:
            self.journal.append(kind, **fields)
            self.send()

    def send(self, again: bool = False) -> None:
        with self._lock:
            if again:
                self.patience.left_s = self.patience.seconds
                self._is_open = self._is_open and not self.down
            if self.journal.waiting() and (again or not self.down):
                self._send_all(again or not self._is_open)

    def release(self) -> None:
        self.down, self._is_open = True, False
        if self._guard:
            self._guard.close()  # and with it the lock
            self._guard = None

    def _send_all(self, retry: bool) -> None:
        at_s, finder = self._dead.get(self.store.place, (-math.inf, 0))
        self.down = finder != id(self) and time.monotonic() - at_s < self._quiet_s
        if self.down:  # its finder has told
            return
        try:
            with self.store.calm():
                self._open()
                for numbers in self.journal.blocks(retry):
                    self._send(numbers)
            self._dead.pop(self.store.place, None)
        except Exception as error:  # whatever it is, the run goes on: the lines are in the journal
            self.down = True
            if not isinstance(error, BlockingIOError):  # the lock's
                self._dead[self.store.place] = time.monotonic(), id(self)
            self._warn("took no more", error)

    def _open(self) -> None:
        if not self._is_open:
            self._guard = self._guard or self.journal.path.open("ab")
            try:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a run and a `sync` would make two runs of it
            except BlockingIOError:
                raise BlockingIOError("another process is pushing this journal") from None
            self.journal.read()
            self.journal.attach(self.store.place)
            self.store.open(self.journal, self.patience)
            self._is_open = True

    def _send(self, numbers: list[int]) -> None:
        lines, folder = [self.journal.lines[n] for n in numbers], self.journal.path.parent
        upload_s = sum(_n_bytes(folder / line["path"]) for line in lines if "path" in line) / UPLOAD_BYTES_PER_S
        try:
            self.patience.call(partial(self.store.push, folder, lines), extra_s=upload_s)
        except Exception as error:
            if not self.store.refuses(error, lines[0]):
                raise
            self._set_aside(numbers, error)
        else:
            self.journal.settle(numbers)

    def _set_aside(self, numbers: list[int], error: Exception) -> None:
        if len(numbers) > 1:  # one bad value must not hold its neighbours back
            for number in numbers:
                self._send([number])
        else:
            self.journal.settle(numbers, refused=True)
            self._warn(f"refused line {numbers[0] + 1}", error)

    def _warn(self, what: str, error: Exception) -> None:
        why = " ".join(clean(f"{type(error).__name__}: {error}").split())[:300]
        n, folder = len(self.journal.waiting()), self.journal.path.parent
        _log.warning("%s %s: %s; %d lines wait for `jobs/sync.py %s`", self.store.place, what, why, n, folder)


class Patience:
    """At most `seconds` of waiting in all: each call gets what the slow ones before it have left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left_s = seconds

    def call(self, work: Callable[[], T], extra_s: float = 0.0) -> T:
        """`extra_s` is what this call may take on top if it succeeds, such as the time of an upload."""
        if self.left_s <= 0:
            raise TimeoutError("it is too slow")
        start, allowed = time.monotonic(), 0.0
        try:
            result = within(self.left_s + extra_s, work)
            allowed = extra_s
        finally:
            over = max(0.0, time.monotonic() - start - allowed)
            self.left_s = min(self.seconds, self.left_s + FREE_S - over)
        return result


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or TimeoutError; then it goes on unheard, in a thread that keeps no process alive.

    A timeout of the client is not enough: it does not bound looking up a name, an answer that drips or retries.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # Not a pool: Python waits for a pool's threads before it exits.
    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:.1f} s") from None


@contextmanager
def calm(environment: dict[str, str], noisy: Iterable[str]) -> Iterator[None]:
    """With these variables, and only errors from these loggers; what the user had set comes back after."""
    with _calming:
        before = {name: os.environ.get(name) for name in environment}
        levels = {logger: logger.level for logger in map(logging.getLogger, noisy)}
        os.environ.update(environment)
        for logger in levels:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({name: value} if value is not None else {})


def probe(url: str) -> None:
    """Raise if nothing answers there in time, or only with errors of its own. A refusal (401, 404) is an answer."""
    try:
        within(PROBE_S, lambda: urllib.request.urlopen(url, timeout=PROBE_S).close())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # its certificate is the client's business
            raise


def _n_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())
