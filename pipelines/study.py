"""A study on Ray Tune: its trials side by side, stopped early or not; killed, the same call goes on."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback

from instrunet.data import parts
from instrunet.experiment import ClusterSpec
from instrunet.report import study as page
from instrunet.search.run import Run
from instrunet.search.space import Drawn
from instrunet.search.spec import SearchSpec
from instrunet.training import checkpoints
from instrunet.training.state import BUNDLE_FOLDER, STATE_FILE
from pipelines import algorithms, cluster
from pipelines.console import Bar, note
from pipelines.trials import CHECKPOINTS, FAILED, job_of_trial, trial

EVERY_S = 60.0  # a line on what was spent so far
RAY, CONFIRM = "ray", "confirm"


@dataclass(frozen=True)
class Study:
    """`epochs` are the most that a trial has, `most` is what all of them have together; `ended` is told each trial."""

    home: Path
    search: SearchSpec
    cluster: ClusterSpec
    epochs: int
    seed: int
    most: int
    ended: Callable[[Run], object] = lambda run: None

    @property
    def mode(self) -> str:
        return "max" if self.search.sign > 0 else "min"


def run(study: Study, ones: Sequence[Drawn], name: str, bar: Bar) -> list[Run]:
    """Try all of `ones`, or as many draws of a sampler that looks at what came before."""
    spec, resources = study.cluster, _resources(study)
    cluster.check_fits(spec, spec.workers)
    Watch.now = _Now(study, bar, len(ones))
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # CSV and TensorBoard: curves are in our records
    tuner = _tuner(study, ones, name, _placed(spec.workers, resources), resources)
    grid = tuner.fit()
    found = [grid[k] for k in range(len(grid))]
    return [_run(study, one.config or {}, one.metrics, one.error, Path(one.path).name) for one in found]


class _Now:
    """What is told while trials run."""

    def __init__(self, study: Study, bar: Bar, n_trials: int) -> None:
        self.study, self.bar, self.n_trials, self.last = study, bar, n_trials, time.monotonic()

    def tell(self, trials: list[Any]) -> None:
        ended = sum(one.is_finished() for one in trials)
        self.bar.set(ended, self.n_trials)
        if time.monotonic() - self.last < EVERY_S:
            return
        self.last = time.monotonic()
        spent = sum(float(one.last_result.get("epochs_done", 0)) for one in trials if one.last_result)
        self.bar.line(f"{ended} of {self.n_trials} trials, {spent:.0f} of {self.study.most} epochs{self._best(trials)}")

    def ended(self, one: Any, error: Exception | None) -> None:
        self.study.ended(_run(self.study, one.config, one.last_result, error, one.trial_id))

    def _best(self, trials: list[Any]) -> str:
        search = self.study.search
        known = [one for one in trials if one.last_result and FAILED not in one.last_result]
        scores = {one: one.metric_analysis.get(search.metric, {}).get(self.study.mode) for one in known}
        scored = {one: value for one, value in scores.items() if value is not None}
        if not scored:
            return ""
        best = max(scored, key=lambda one: scored[one] * search.sign)
        return f", best {search.metric} {scored[best]:.3f} with {page.told(best.config['one']['told'])}"


class Watch(tune.Callback):
    """Tune pickles its callbacks with the study and restores them: what is told is this process's."""

    now: _Now | None = None

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        del iteration, trial, result, info
        if Watch.now:
            Watch.now.tell(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, info
        if Watch.now:
            Watch.now.tell(trials)
            Watch.now.ended(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, info
        if Watch.now:
            Watch.now.tell(trials)
            Watch.now.ended(trial, trial.get_pickled_error() or trial.get_error())


def _resources(study: Study) -> dict[str, float]:
    """Of a worker. Where trials take turns they wait for room, so each is given the room that lets so many run."""
    own, n = cluster.of_a_worker(study.cluster), study.search.concurrent * study.cluster.workers
    return own | {"CPU": max(own["CPU"], cluster.room(n))} if study.search.scheduler in algorithms.TURNS else own


def _placed(workers: int, resources: dict[str, float]) -> Any:
    """A trial takes what all of its workers need at once, or waits: none ever holds half of it."""
    group = tune.PlacementGroupFactory([resources] * workers) if workers > 1 else resources
    return tune.with_resources(trial, group)


def _tuner(study: Study, ones: Sequence[Drawn], name: str, trainable: Any, resources: dict[str, float]) -> tune.Tuner:
    folder = study.home / name
    if tune.Tuner.can_restore(str(folder)):
        try:
            tuner = tune.Tuner.restore(str(folder), trainable=trainable, resume_errored=True)
            note("going on with the study that was begun here")
            return tuner
        except (EOFError, ValueError, RuntimeError) as error:  # killed before its first record was whole
            note(f"the study begun here left no record to go on from ({type(error).__name__}); it starts again")
            shutil.rmtree(folder)
    search = study.search
    algorithm, drawn, samples = algorithms.sampler(search, ones, study.seed)
    return tune.Tuner(
        trainable,
        param_space={
            "home": str(study.home),
            "metric": search.metric,
            "sign": search.sign,
            "concurrent": search.concurrent,
            "workers": study.cluster.workers,
            "handed_on": search.scheduler in algorithms.TURNS,
            "resources": resources,
            **drawn,
        },
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=study.mode,
            num_samples=samples,
            scheduler=algorithms.scheduler(search, study.epochs),
            search_alg=algorithm,
            trial_dirname_creator=lambda one: one.trial_id,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(study.home),
            verbose=0,
            callbacks=[Watch(), JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=study.cluster.max_failures),
        ),
    )


def _run(study: Study, config: dict[str, Any], metrics: dict[str, Any] | None, error: Any, name: str) -> Run:
    fields, told = (config["one"][key] for key in ("fields", "told"))
    reason = (metrics or {}).get(FAILED) or (_cause(error) if error else "")
    made = checkpoints.newest(study.home / CHECKPOINTS / name)
    history = parts.read_json(made / STATE_FILE)["progress"]["history"] if made else []
    job = job_of_trial(study.home, fields)
    return Run(
        trial=name,
        fields=fields,
        told=told,
        features=job.features,
        bundle=made / BUNDLE_FOLDER if made else None,
        history=history,
        reason=str(reason),
        stopped=bool(history) and not reason and history[-1]["epoch"] + 1 < job.train.epochs,
    )


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
