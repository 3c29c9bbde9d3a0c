"""The calm console: bars and notes on stderr, results on stdout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 60.0
notes = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False, soft_wrap=True, markup=False)


class Bar:
    """One line of progress; where no terminal is looking, a line a minute."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._done, self._began = progress.tasks[task].completed, time.monotonic()
        self._told = self._began

    def advance(self, n: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=note)
        now = time.monotonic()
        if self._progress.disable and now - self._told >= EVERY_S:
            self._told = now
            self.line(self._said((now - self._began) / 60, note))

    def _said(self, minutes: float, note: str) -> str:
        task = self._progress.tasks[self._task]
        total = task.total or 0
        left = minutes * (total - task.completed) / max(task.completed - self._done, 1)
        more = f"; {note}" if note else ""
        return f"{task.description}: {task.completed:.0f} of {total:.0f}, about {left:.0f} min left{more}"

    def set(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._progress.console.print(text, markup=False)


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        yield Bar(progress, progress.add_task(what, total=total, completed=done, note=""))


def note(text: str) -> None:
    notes.print(text, markup=False)


@cache
def note_once(text: str) -> None:
    """What would be said again for each front end, or each bundle, of one job."""
    note(text)


def result(text: str) -> None:
    results.print(text)
