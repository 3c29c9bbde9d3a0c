"""A decoder in a process of its own: what crashes it, stalls it or takes all memory costs one file a status.

`Decoder().read` and `.probe` are `io.read` and `io.probe`. Jobs take these: Ray starts a crashed task without end.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.decoder import DecodeError, shown
from instrunet.audio.io import LONGEST, Header, Listener, Sound
from instrunet.errors import JobError

# How a process ends that neither the machine nor anybody else had a part in: it would again
_BY_ITSELF = signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGXCPU
ITS_OWN = tuple(-one for one in _BY_ITSELF)  # as exit codes
BUSY = 1 / 3  # of the wait, that a decoder may be at work itself; the rest is for what else the machine has to do
PATIENT_S, PATIENT = 0.25, 1 / 100  # of the wait if that is more: whoever has waited so long lets others work
KEPT_BYTES = 1 << 24  # of memory for replies; what a longer one took is given back


@dataclass(frozen=True)
class Limits:
    """What a decoder may take. Decoding runs at more than 100 times the speed of the sound on one core."""

    wait_s: float = 30.0
    wait_per_s: float = 0.1  # more for each second of sound that is asked for
    start_s: float = 60.0  # until a new process answers; 0.3 s on a quiet machine
    memory_bytes: int = 2 << 30  # five minutes take 0.09 GB
    tries: int = 2


Aside = Callable[[], AbstractContextManager[None]]


class _Child(NamedTuple):
    process: "subprocess.Popen[bytes]"
    samples: Any  # the file in which it leaves those of a reply


class Decoder:
    """One child process, started anew when it is lost. Threads may share it; they wait for each other.

    It is left `aside` as long as it keeps a caller waiting who has lost patience.
    """

    def __init__(self, limits: Limits | None = None, aside: Aside = nullcontext) -> None:
        self._limits, self._aside = limits or Limits(), aside
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def read(
        self,
        path: Path,
        sample_rate: int,
        start_s: float = 0.0,
        stop_s: float | None = None,
        listen: Listener | None = None,
    ) -> Sound:
        """As `io.read`; who listens is given the range in one piece."""
        request = {"do": "read", "path": str(path), "arguments": [sample_rate, start_s, stop_s, listen is not None]}
        asked_s = (stop_s if stop_s is not None else _longest_s(path)) - start_s
        head, (wave, heard) = self._ask(path, request, max(0.0, asked_s))
        if listen and len(heard):
            listen(head["heard_rate"], heard)
        return Sound(wave, head["damage"], head["flags"])

    def probe(self, path: Path) -> Header:
        """As `io.probe`."""
        head, _ = self._ask(path, {"do": "probe", "path": str(path), "arguments": []}, _longest_s(path))
        return Header(*head["header"])

    def close(self) -> None:
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, path: Path, request: dict[str, Any], asked_s: float) -> tuple[dict[str, Any], list[Any]]:
        wait_s, why = self._limits.wait_s + self._limits.wait_per_s * asked_s, list[str]()
        line = json.dumps(request | {"busy_s": BUSY * wait_s}).encode() + b"\n"
        spun = f"gave no answer within {BUSY * wait_s:.0f} s of a core"
        with self._lock:
            found, code = None, None
            while found is None:
                if len(why) == self._limits.tries or code in ITS_OWN:
                    raise DecodeError("corrupt", f"{shown(path)} is too much for the decoder, which {_told(why)}")
                child = self._child or self._start()
                try:
                    found = _exchange(child, line, wait_s, self._aside)
                except TimeoutError:
                    self._end()
                    why.append(f"gave no answer within {wait_s:.0f} s")
                except (EOFError, OSError):
                    code = self._end()
                    why.append(spun if code == -signal.SIGXCPU else _cause(code))
                except BaseException:  # whoever asks next is not given the answer to this
                    self._end()
                    raise
        head, samples = found
        if "status" in head:
            raise DecodeError(head["status"], head["error"])
        return head, samples

    def _start(self) -> _Child:
        samples = _file()
        command = [sys.executable, "-P", "-m", "instrunet.audio.child"]
        command += [str(self._limits.memory_bytes), str(samples.fileno())]
        path = os.pathsep.join(place for place in sys.path if place)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # mpg123 comments on every odd frame
            bufsize=0,
            env=os.environ | {"PYTHONPATH": path},
            pass_fds=[samples.fileno()],
            process_group=0,  # with what it starts itself
        )
        self._child = child = _Child(process, samples)
        try:
            _exchange(child, b"", self._limits.start_s)
        except (EOFError, OSError):
            raise JobError(
                f"expected a decoder from {' '.join(command)}, which {_cause(self._end())}; run it to see why"
            ) from None
        return child

    def _end(self) -> int | None:
        """No child is ours any more, nor what it started. Its exit code; None where it took our signal to end it."""
        child, self._child = self._child, None
        if child is None:
            return None
        process, code = child.process, None
        with child.samples, _pipe(process.stdout):
            _pipe(process.stdin).close()  # which ends it, unless it holds the interpreter
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(0.5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a disk that hangs keeps its own
                process.wait(0.5)
        return code


def _exchange(
    child: _Child, line: bytes, wait_s: float, aside: Aside = nullcontext
) -> tuple[dict[str, Any], list[Any]]:
    """Send a request; the head of the reply and its samples."""
    _pipe(child.process.stdin).write(line)
    head = json.loads(_line(_pipe(child.process.stdout).fileno(), wait_s, aside))
    samples, at = list[NDArray[np.float32]](), 0
    for n in head.get("samples", ()):
        samples.append(_filled(np.empty(n, np.float32), child.samples.fileno(), at))
        at += samples[-1].nbytes
    if at > KEPT_BYTES:
        child.samples.truncate(0)
    return head, samples


def _line(fd: int, wait_s: float, aside: Aside) -> bytes:
    """What comes from a pipe up to a line's end; TimeoutError after the wait, EOFError when nobody is left to send."""
    content, ready, deadline = b"", select.poll(), time.monotonic() + wait_s
    ready.register(fd, select.POLLIN)

    def comes(within_s: float) -> bool:
        return bool(ready.poll(max(0.0, within_s) * 1000))

    while not content.endswith(b"\n"):
        if not comes(min(max(PATIENT_S, PATIENT * wait_s), deadline - time.monotonic())):
            with aside():
                if not comes(deadline - time.monotonic()):
                    raise TimeoutError
        got = os.read(fd, select.PIPE_BUF)
        if not got:
            raise EOFError
        content += got
    return content


def _filled(samples: NDArray[np.float32], fd: int, at: int) -> NDArray[np.float32]:
    """With what lies in a file from byte `at` on."""
    rest = samples.data.cast("B")
    while rest:
        got = os.preadv(fd, [rest], at)
        if not got:
            raise EOFError
        rest, at = rest[got:], at + got
    return samples


def _file() -> Any:
    """With no name, and in memory where the system has such: 3 MB through a pipe take a process four turns."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("samples"), "r+b", buffering=0)
    return TemporaryFile(buffering=0)


def _pipe(end: Any) -> Any:
    assert end is not None
    return end


def _longest_s(path: Path) -> float:
    """How long a file may sound: at 64 kbit/s, and no longer than may be read at once."""
    try:
        return min(path.stat().st_size / 8000, LONGEST / 48_000)
    except (OSError, ValueError):  # the decoder will say what is wrong with it
        return 0.0


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return "hung up" if code is None else f"ended with exit code {code}"
    return f"died of signal {-code} ({signal.Signals(-code).name})"


def _told(why: list[str]) -> str:
    often = {1: "", 2: " twice"}.get(len(why), f" {len(why)} times")
    return why[0] + often if len(set(why)) == 1 else " and then ".join(why)
