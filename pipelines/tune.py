"""A search on Ray Tune: trials are the same `fit` as training, on the same features; the best bundle is kept."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from instrunet import experiment as experiments
from instrunet.config import set_path
from instrunet.data import parts, places
from instrunet.errors import ConfigError, JobError
from instrunet.experiment import Experiment, SearchSpec
from instrunet.training.fit import Metrics, fit
from instrunet.training.job import Job
from instrunet.training.state import BUNDLE_FOLDER, Save
from pipelines import cluster, lineage
from pipelines.console import bar, note, result
from pipelines.tracking import Tracker
from pipelines.train import BUNDLE, config_of, job_for, job_of, run_folder

# What a field of `tune.space` may say, and how many values it takes (None: any number).
DRAWS: dict[str, tuple[Callable[..., Any], int | None]] = {
    "choice": (lambda *values: tune.choice(list(values)), None),
    "grid": (lambda *values: tune.grid_search(list(values)), None),
    "uniform": (tune.uniform, 2),
    "loguniform": (tune.loguniform, 2),
    "integers": (lambda low, high: tune.randint(low, high + 1), 2),
}
FIXED = ("front", "data", "split", "copies", "task")  # these would need other features for every trial
TRIALS = "trials.json"


def run(experiment: Experiment, verbose: bool = False) -> Path:
    """Run the study an experiment describes; the folder holds trials.json and the best bundle."""
    search = experiment.tune
    if search is None or not search.space:
        raise ConfigError("a search needs tune.space: {FIELD: {choice|uniform|loguniform|integers|grid: [...]}}")
    check_space(experiment, search)
    places.need_disk(experiment.out, "a search")
    experiment = lineage.located(experiment)
    job = job_for(experiment, verbose)
    draft = job.draft
    home = run_folder(experiment, draft, "tune")
    if parts.is_done(home):
        note(f"{home} is searched already; remove it to search again")
        return home
    cluster.connect(experiment.cluster, verbose=verbose)
    with Tracker(experiment.tracking, home, experiment.out, experiment.name) as tracker:
        tracker.params(experiment.model_dump(mode="json"))
        tracker.tags(lineage.tags(draft.trained))
        trials = _search(experiment, search, home, job)
        best = _keep(trials, search, experiment.train.keep, home)
        tracker.metrics(0, {f"best_{search.metric}": best["score"], "n_trials": len(trials)})
        tracker.artifacts(home / TRIALS, "study")
        tracker.model(home / BUNDLE)
    parts.finish(home)
    leaky = "LEAKY: " if draft.trained.leaky else ""
    result(f"{leaky}{len(trials)} trials, best {search.metric} {best['score']:.3f} with {best['changed']}")
    return home


def check_space(experiment: Experiment, search: SearchSpec) -> None:
    """Every field of the space exists and takes the values it may be given, before any trial is started."""
    for field, draw in search.space.items():
        if field.split(".")[0] in FIXED:
            raise ConfigError(f"tune.space.{field}: {', '.join(FIXED)} cannot be searched yet; run one study for each")
        (name, values), *more = draw.items()
        if more or name not in DRAWS or not isinstance(values, list) or not values:
            raise ConfigError(f"tune.space.{field}: expected one of {', '.join(DRAWS)} with a list, got {draw}")
        n_values = DRAWS[name][1]
        if n_values is not None and len(values) != n_values:
            raise ConfigError(f"tune.space.{field}: {name} takes {n_values} values (low, high), got {values}")
        for value in values:
            if _heard(changed(experiment, {field: value})) != _heard(experiment):
                raise ConfigError(
                    f"tune.space.{field}: what trials begin with cannot be searched, as the bundle says what it has "
                    "heard; run one study for each"
                )


def _heard(experiment: Experiment) -> tuple[Any, ...]:
    return experiment.begins_with(), experiment.domain and experiment.domain.target


def changed(experiment: Experiment, fields: dict[str, Any]) -> Experiment:
    """The experiment with some dotted fields set."""
    tree = experiment.model_dump(mode="json")
    for field, value in sorted(fields.items(), key=lambda pair: (not pair[0].endswith(".name"), pair[0])):
        set_path(tree, field, value)
    return Experiment.parse(tree, "tune.space")


def trial(config: dict[str, Any]) -> None:
    """One trial, in a process of its own: the worker of training with Tune's way of reporting."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // config["concurrent"]))
    one = changed(experiments.Experiment.model_validate(config["experiment"]), config["fields"])
    job = job_of(config["job"])
    draft = job.draft.model_copy(update={"model": one.model})
    job = Job(draft, one.train, job.features, one.distill, one.domain, job.target)
    checkpoint = tune.get_checkpoint()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if checkpoint is None:
        fit(job, report, device)
        return
    with checkpoint.as_directory() as folder:
        fit(job, report, device, Path(folder))


def report(metrics: Metrics, save: Save) -> None:
    with TemporaryDirectory() as folder:
        save(Path(folder))
        done = {"epochs_done": metrics["epoch"] + 1}  # what ASHA compares by: a trial may validate inside epochs
        tune.report(metrics | done, checkpoint=tune.Checkpoint.from_directory(folder))


class _Shown(tune.Callback):
    """Advances the bar when a trial ends. Tune pickles its callbacks with the study; a bar has no place in there."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def __getstate__(self) -> dict[str, Any]:
        return {"advance": _nothing}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        del iteration, trials, trial, info
        self.advance()


def _nothing() -> None:
    """What a restored study advances."""


def _search(experiment: Experiment, search: SearchSpec, home: Path, job: Job) -> list[Any]:
    space = {field: _draw(draw) for field, draw in search.space.items()}
    config = {
        "fields": space,
        "experiment": experiment.model_dump(mode="json"),
        "job": config_of(job),
        "concurrent": search.concurrent,
    }
    cluster.check_fits(experiment.cluster, 1)
    trainable = tune.with_resources(trial, cluster.of_a_worker(experiment.cluster))
    with bar("trials", search.samples) as progress:
        tuner = _tuner(trainable, config, experiment, search, home, _Shown(progress.advance))
        grid = tuner.fit()
    if grid.num_errors == len(grid):
        raise JobError(f"all {len(grid)} trials failed; the first: {str(grid.errors[0]).strip().splitlines()[-1]}")
    return [grid[k] for k in range(len(grid)) if not grid[k].error]


def _tuner(
    trainable: Any, config: dict[str, Any], experiment: Experiment, search: SearchSpec, home: Path, shown: _Shown
) -> tune.Tuner:
    if tune.Tuner.can_restore(str(home / "ray")):
        try:
            tuner = tune.Tuner.restore(str(home / "ray"), trainable=trainable, resume_errored=True)
            note("going on with the study that was begun here")
            return tuner
        except (EOFError, ValueError, RuntimeError) as error:  # killed before its first record was whole
            note(f"the study begun here left no record to go on from ({type(error).__name__}); it starts again")
            shutil.rmtree(home / "ray")
    return tune.Tuner(
        trainable,
        param_space=config,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode="min" if search.metric.endswith("loss") else "max",
            num_samples=search.samples,
            max_concurrent_trials=search.concurrent,
            scheduler=_scheduler(search, experiment.train.epochs),
            search_alg=tune.search.BasicVariantGenerator(
                random_state=experiment.train.seed, max_concurrent=search.concurrent
            ),
            trial_dirname_creator=lambda one: one.trial_id,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(home),
            verbose=0,
            callbacks=[shown],
            failure_config=tune.FailureConfig(max_failures=experiment.cluster.max_failures),
        ),
    )


def _scheduler(search: SearchSpec, epochs: int) -> TrialScheduler:
    if search.scheduler == "random":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epochs_done",
        max_t=epochs,
        grace_period=min(search.grace_epochs, epochs),
        reduction_factor=search.reduction,
    )


def _draw(draw: dict[str, Any]) -> Any:
    ((name, values),) = draw.items()
    return DRAWS[name][0](*values)


def _keep(trials: list[Any], search: SearchSpec, keep: str, home: Path) -> dict[str, Any]:
    sign = -1 if search.metric.endswith("loss") else 1
    rows = [_row(outcome, search.metric, sign, keep) for outcome in trials]
    best = max(range(len(rows)), key=lambda k: rows[k]["score"] * sign)
    with trials[best].checkpoint.as_directory() as folder:
        aside = home / f".{BUNDLE}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(Path(folder) / BUNDLE_FOLDER, aside)
    shutil.rmtree(home / BUNDLE, ignore_errors=True)
    aside.rename(home / BUNDLE)
    parts.write_json(home / TRIALS, rows)
    return rows[best]


def _row(outcome: Any, metric: str, sign: int, keep: str) -> dict[str, Any]:
    """The score is that of the epoch whose bundle the trial's checkpoint holds."""
    scores = outcome.metrics_dataframe[metric]
    kept = scores.iloc[-1] if keep == "last" else scores.max() if sign > 0 else scores.min()
    return {
        "score": float(kept),
        "epochs": round(float(outcome.metrics_dataframe["epochs_done"].max()), 4),
        "changed": outcome.config["fields"],
    }
