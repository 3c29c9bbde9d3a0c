"""Leaving in time: a run that is told to stop (SIGTERM, a node about to go) keeps the step it is at.

The driver hears SIGTERM, asks in the mailbox, waits until the first worker has written a checkpoint, exits with 143.
A pod or spot node that is told to go is drained by Ray (`RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S`, 30); the first worker
hears of it within 5 s, writes a checkpoint, and trains on until the node is gone and Ray Train starts the group anew.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import ray

from instrunet.errors import JobError
from instrunet.training import checkpoints
from instrunet.training.state import Save

EXIT = 128 + signal.SIGTERM
WAIT_S = 20  # of the 30 that Kubernetes gives between SIGTERM and SIGKILL
ASK_S = 1.0


@contextmanager
def keeping(mailbox: Any, say: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile SIGTERM ends what is done here, has a checkpoint written, and leaves with 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def tell(number: int, frame: Any) -> NoReturn:
        del number, frame
        nonlocal told
        told = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one is not heard
        raise SystemExit(EXIT)

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ray's core passes on another one than the handler raised
        if not told:
            raise
        say(kept(mailbox))
        raise SystemExit(EXIT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def kept(mailbox: Any) -> str:
    """Ask for a checkpoint and wait for it; what to say of it."""
    mailbox.ask.remote()
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        said: str | None = ray.get(mailbox.answer.remote())
        if said is not None:
            return said
        time.sleep(ASK_S)
    return f"told to stop; no worker was at a step within {WAIT_S} s, so the last checkpoint stands"


class Watch:
    """The first worker's, called between steps: has it been told to keep where it is?

    A thread of its own asks, as a step should not wait for an answer.
    """

    def __init__(self, mailbox: Any, home: Path) -> None:
        self.mailbox, self.home = mailbox, home
        self._told = threading.Event()
        threading.Thread(target=self._look, args=(_preemption(),), daemon=True).start()

    def __call__(self, step: int, save: Save) -> None:
        if not self._told.is_set():
            return
        self._told.clear()
        try:
            checkpoints.publish(self.home, step, save, validated=False)
            self.mailbox.reply.remote(f"told to stop: a checkpoint after step {step} is kept")
        except JobError as error:  # of no consequence to the run, which goes on until it is ended
            self.mailbox.reply.remote(f"told to stop: {error}")

    def _look(self, preemption: Any) -> None:
        asked = drained = False
        while not (asked and drained):
            if not asked and ray.get(self.mailbox.asked.remote()):
                asked = True
                self._told.set()
            if not drained and getattr(preemption, "preemption_info", None) is not None:
                drained = True
                self._told.set()
            time.sleep(ASK_S)


def _preemption() -> Any:
    """Where Ray Train notes that a node is drained. Its public `get_preemption_info` is a barrier of all workers, too
    dear for each step, and the first worker alone can save."""
    from ray.train.v2._internal.execution.context import get_train_context

    return getattr(get_train_context(), "preemption_context", None)
