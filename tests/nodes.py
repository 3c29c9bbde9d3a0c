"""Ray clusters of several nodes on one machine: a head without work, and nodes with addresses of their own on loopback.

Each node is a raylet with its agents and workers; killed, all of them go at once, as when a machine loses its power.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conftest import environment

STARTED_S, TRIES, STARTED = 600, 3, "Ray runtime started."


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def below(pid: int) -> list[int]:
    """Every process that comes of this one."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    fresh = [pid]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


class Nodes:
    """`client` are the settings by which a job reaches the cluster."""

    def __init__(self, home: Path, cpus: float, more: dict[str, str]) -> None:
        self.home, self.cpus = home, cpus
        token = home / "token"
        token.write_text(secrets.token_hex(32))
        self.settings = more | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": str(home)}
        self.port, self.running = free_port(), {}
        self.client = self.settings | {"RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        self.head = self._start(f"--head --num-cpus=0 --port={self.port} --node-ip-address=127.0.0.1", "head")
        until = time.monotonic() + STARTED_S
        while STARTED not in (home / "head.log").read_text():
            assert time.monotonic() < until and self.head.poll() is None, (home / "head.log").read_text()
            time.sleep(0.2)

    def add(self, number: int, prefix: str = "") -> None:
        """Node 1, 2, ..., which is there on return; `prefix` is what its command runs under: a bound on its cores."""
        at = f"127.0.0.{number + 1}"
        where = f"--address=127.0.0.1:{self.port} --node-ip-address={at} --num-cpus={self.cpus:g}"
        for _ in range(TRIES):  # Ray's own wait is 30 s, too short on a machine with much else to do
            (self.home / f"node{number}.log").unlink(missing_ok=True)
            self.running[number] = self._start(where, f"node{number}", prefix)
            if self._is_there(number):
                return
            self.kill(number)
        raise AssertionError((self.home / f"node{number}.log").read_text())

    def kill(self, number: int) -> None:
        node = self.running.pop(number)
        for pid in [*below(node.pid), node.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def _is_there(self, number: int) -> bool:
        log = self.home / f"node{number}.log"
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until and self.running[number].poll() is None:
            if STARTED in log.read_text():
                return True
            time.sleep(0.2)
        return False

    def stop(self) -> None:
        for number in list(self.running):
            self.kill(number)
        for pid in [*below(self.head.pid), self.head.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.head.wait()

    def _start(self, where: str, name: str, prefix: str = "") -> "subprocess.Popen[bytes]":
        command = (
            f"exec {prefix} ray start --block {where} --dashboard-agent-listen-port={free_port()} "
            f"--metrics-export-port={free_port()} --object-store-memory=300000000 --disable-usage-stats"
        )
        command += " --include-dashboard=false" if "--head" in where else ""
        with (self.home / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.home,
                env=environment() | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def started(n: int, cpus: float, **more: str) -> Iterator[Nodes]:
    """A head and `n` nodes, with `more` in their environment."""
    home = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))  # short: a socket's path has 107 characters
    nodes = Nodes(home, cpus, more)
    try:
        for number in range(1, n + 1):
            nodes.add(number)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(home, ignore_errors=True)
