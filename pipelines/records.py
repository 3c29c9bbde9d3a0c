"""Trials in MLflow as they end: each a run under that of the study, written while others train."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from instrunet.experiment import Experiment
from instrunet.search.run import Run
from pipelines.tracking import Tracker

FOLDER = "records"


class Records:
    """A thread of its own: Tune waits for whom it tells, and a store may be slow. `parent` is the study's key."""

    def __init__(self, experiment: Experiment, home: Path, parent: str) -> None:
        self.experiment, self.home, self.parent = experiment, home, parent
        self._pool = ThreadPoolExecutor(1)
        self._begun: dict[str, Future[None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    def add(self, run: Run) -> None:
        if run.trial not in self._begun:
            self._begun[run.trial] = self._pool.submit(self._write, run)

    def finish(self, runs: Sequence[Run]) -> None:
        """All of them, those too that ended before a study was killed; what is there already is not made again."""
        for run in runs:
            self.add(run)
        for one in self._begun.values():
            one.result()

    def _write(self, run: Run) -> None:
        folder = self.home / FOLDER / run.trial
        folder.mkdir(parents=True, exist_ok=True)
        name, spec = f"{self.experiment.name} {run.trial}", self.experiment
        with Tracker(spec.tracking, folder, spec.out, name, parent=self.parent) as tracker:
            tracker.params(run.fields)
            tracker.tags({"status": run.status, **({"reason": run.reason} if run.reason else {})})
            for metrics in run.history:
                tracker.metrics(spec.train.tick(metrics), metrics)
