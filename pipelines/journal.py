"""Journal: what was tracked, line by line on disk, how much of it the store has, and no secret in any line."""

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

Line = dict[str, Any]
NAME = "tracking.jsonl"
BLOCK = 20  # lines of metrics that go in one request
_SECRET_KEY = re.compile(r"token|secret|password|credential", re.IGNORECASE)
_SECRET_ARGUMENT = re.compile(r"([\w-]*(?:token|secret|password|credential|signature)[\w-]*=)[^&\s]+", re.IGNORECASE)
_SECRET_URL = re.compile(r"(?<=://)(?:[^\s/]+@|[^\s/:@]+:(?!\d+(?:/|$))\S+@)")  # the second: a password with a slash


class Journal:
    """RUN_DIR/tracking.jsonl and RUN_DIR/tracking.state.json.

    The state is {place, run_id, done, left}: the store at `place` was offered `done` lines and refused those `left`.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path, self.state_path = run_dir / NAME, run_dir / "tracking.state.json"
        self.lines: list[Line] = []
        self.header: Line = {}  # the last line of the kind "run"
        self.params: dict[str, str] = {}
        self.points: set[tuple[str, int]] = set()  # (key, step) of each metric
        self.status = ""
        self.state: dict[str, Any] = {"place": "", "run_id": None, "done": 0, "left": []}
        self._offset = 0
        self.read()

    def begin(self, run: Line) -> str:
        """The run's key. Its line holds all that `sync` needs; a run that goes on elsewhere gets another such line."""
        key = str(self.header.get("key") or uuid.uuid4().hex)
        if not (run | {"key": key}).items() <= self.header.items():
            self.append("run", key=key, **run)
        if self.status not in ("", "RUNNING"):
            self.append("status", status="RUNNING")
        return key

    def append(self, kind: str, **fields: Any) -> None:
        line = {"kind": kind, "time": int(time.time() * 1000), **fields}
        with self.path.open("ab", buffering=0) as file:
            # A line that a crash tore is ended first; a line is one write, so writers never mix.
            torn = b"\n" if file.tell() > self._offset else b""
            file.write(torn + json.dumps(line, allow_nan=False).encode() + b"\n")
            os.fsync(file.fileno())
        self.read()

    def read(self) -> None:
        """Take in the lines written since, by whomever: a line's number is its place in the file."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole + newline)
            for text in whole.split(b"\n") if newline else ():
                self._take(_parsed(text))

    def attach(self, place: str) -> None:
        """Go on where the state says, if it speaks of this store; another store starts with the first line."""
        with suppress(FileNotFoundError, ValueError):
            state = json.loads(self.state_path.read_text(encoding="utf-8"))
            if state["place"] == place:
                self.state = state
        self.state["place"] = place

    def settle(self, numbers: list[int], refused: bool = False) -> None:
        """The store has these lines now, or has refused them: then they are offered again next time."""
        left = set(self.state["left"]) - set(numbers) | (set(numbers) if refused else set())
        self.save(done=max(self.state["done"], *(n + 1 for n in numbers)), left=sorted(left))

    def save(self, **changes: Any) -> None:
        self.state |= changes
        aside = self.state_path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.state), encoding="utf-8")
        aside.replace(self.state_path)

    def waiting(self) -> list[int]:
        return [*self.state["left"], *range(self.state["done"], len(self.lines))]

    def blocks(self, retry: bool) -> Iterator[list[int]]:
        """What waits, with the refused lines on `retry`: neighbouring lines of metrics together, all else alone."""
        waiting = self.waiting()[0 if retry else len(self.state["left"]) :]
        for kind, group in groupby(waiting, key=lambda n: str(self.lines[n]["kind"])):
            numbers, size = list(group), BLOCK if kind == "metrics" else 1
            yield from (numbers[start : start + size] for start in range(0, len(numbers), size))

    def relative(self, path: Path) -> str:
        """As it stands in the journal: a run's folder may be moved before its lines are pushed."""
        path, folder = path.resolve(), self.path.parent.resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def _take(self, line: Line) -> None:
        self.lines.append(line)
        match line:
            case {"kind": "run"}:
                self.header = line
            case {"kind": "status", "status": status}:
                self.status = status
            case {"kind": "params", "values": values}:
                self.params |= values
            case {"kind": "metrics", "step": step, "values": values}:
                self.points |= {(key, step) for key in values}


def flatten(tree: Any, longest: int, key: str = "") -> Iterator[tuple[str, str]]:
    """{"a": {"b": 1}} -> ("a.b", "1"). Groups in a list count on (a.0.b), a list of plain values is one JSON text."""
    if _SECRET_KEY.search(key):
        yield key, "***"
    elif isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from flatten(value, longest, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple) and any(isinstance(value, Mapping) for value in tree):
        yield from flatten({str(n): value for n, value in enumerate(tree)}, longest, key)
    elif key:
        yield key, clean(tree if isinstance(tree, str) else json.dumps(tree, default=str))[:longest]


def clean(text: str) -> str:
    """Without user:password in URLs and secret=value, and such that it can be written as UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    return _SECRET_ARGUMENT.sub(r"\1***", _SECRET_URL.sub("***@", text))


def _parsed(text: bytes) -> Line:
    with suppress(ValueError):
        line = json.loads(text)
        if isinstance(line, dict) and "kind" in line:
            return line
    return {"kind": "torn"}
