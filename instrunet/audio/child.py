"""The process of a decoder: requests come in as lines, sound goes out; `isolated.py` starts it and it ends with that.

A reply is its head, a line of JSON, once the samples that it counts lie in the file that both have open.
"""

import json
import math
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.audio.decoder import shown

Samples = list[NDArray[np.float32]]
Reply = tuple[dict[str, Any], Samples]


def main() -> None:
    _limit(memory_bytes=int(sys.argv[1]))
    file = int(sys.argv[2])
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()
    _send(replies, file, ({"ready": True}, []))
    while True:
        request = json.loads(lines.get())
        _spend(request["busy_s"])
        _send(replies, file, answer(DO[request["do"]], Path(request["path"]), request["arguments"]))


def answer(do: Callable[..., Reply], path: Path, arguments: list[Any]) -> Reply:
    try:
        return do(path, *arguments)
    except io.DecodeError as error:
        return {"status": error.status, "error": str(error)}, []
    except MemoryError:
        why = "needs more memory than a decoder may have; give a range"
    except Exception as error:  # whatever a decoder makes of its bytes costs them a status, and nobody else
        why = f"makes the decoder fail: {type(error).__name__}: {error}"
    return {"status": "corrupt", "error": f"{shown(path)} {why}"}, []


def _read(path: Path, sample_rate: int, start_s: float, stop_s: float | None, listening: bool) -> Reply:
    heard: Samples = []
    rates = [0]

    def listen(rate: int, block: NDArray[np.float32]) -> None:
        heard.append(block)
        rates[0] = rate

    sound = io.read(path, sample_rate, start_s, stop_s, listen if listening else None)
    head = {"damage": sound.damage, "flags": sound.flags, "heard_rate": rates[0]}
    return head | {"samples": [len(sound.wave), sum(map(len, heard))]}, [sound.wave, *heard]


def _probe(path: Path) -> Reply:
    header = io.probe(path)
    return {"header": [header.sample_rate, header.frames, header.channels]}, []


DO: dict[str, Callable[..., Reply]] = {"read": _read, "probe": _probe}


def _limit(memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _spend(busy_s: float) -> None:
    """So many more seconds of a core at most: then SIGXCPU, which nothing that spins in C can miss."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(time.process_time() + busy_s)
    resource.setrlimit(resource.RLIMIT_CPU, (until if most < 0 else min(until, most), most))


def _listen(requests: BinaryIO, lines: "queue.SimpleQueue[bytes]") -> None:
    """In a thread of its own, so that we end with our parent even while we decode: however it ends, the pipe closes."""
    for line in requests:
        lines.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with FFmpeg, which may stall
    os._exit(0)


def _send(replies: int, file: int, reply: Reply) -> None:
    (head, samples), at = reply, 0
    for part in samples:
        rest = np.ascontiguousarray(part).data.cast("B")
        while rest:
            n = os.pwrite(file, rest, at)
            rest, at = rest[n:], at + n
    line = json.dumps(head).encode() + b"\n"
    while line:
        line = line[os.write(replies, line) :]


if __name__ == "__main__":
    main()
