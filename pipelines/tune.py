"""A search on Ray Tune: trials are the same `fit` as training; the best by validation is kept and tested once."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instrunet.data import parts, places
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.report import study as page
from instrunet.search.check import check
from instrunet.search.run import Run
from instrunet.search.space import Drawn, changed, configurations, every_recipe, recipe_key
from instrunet.search.summary import STUDY, TRIALS, bundle_of, choose, ranked, summary, unscored
from instrunet.training.job import Job
from instrunet.training.job import check as check_job
from pipelines import cluster, features, lineage, study, trials
from pipelines.console import bar, note, result
from pipelines.records import Records
from pipelines.study import Study
from pipelines.tracking import Tracker
from pipelines.train import BUNDLE, job_for, run_folder


def run(experiment: Experiment, verbose: bool = False, resume: bool = False) -> Path:
    """Run the study an experiment describes: a page, study.json, trials.json and the best bundle.

    The same call goes on with a study that was killed; with `resume` it is a mistake if there is none.
    """
    check(experiment)
    search = experiment.tune
    assert search, "that was checked"
    page.require()
    places.need_disk(experiment.out, "a search")
    cluster.check_fits(experiment.cluster, experiment.cluster.workers)
    experiment = lineage.located(experiment)
    ones = configurations(search.space, search.samples, experiment.train.seed)
    most = _most(experiment, ones)
    note(f"at most {most} epochs in {_trials_told(experiment, ones)}")
    jobs = _jobs(experiment, ones, verbose)
    home = run_folder(experiment, next(iter(jobs.values())).draft, "tune")
    if parts.is_done(home):
        note(f"{home} is searched already; remove it to search again")
        return home
    if resume and not (home / study.RAY).is_dir():
        if [path.name for path in home.iterdir()] == [parts.PLAN]:
            shutil.rmtree(home)  # claimed a moment ago
        raise ConfigError(f"expected a study to go on with at {home}, found none; leave --resume out to begin it")
    trials.write_inputs(home, experiment, jobs)
    for one in ones:
        check_job(trials.job_of_trial(home, one.fields), experiment.cluster.workers)
    cluster.connect(experiment.cluster, verbose=verbose)
    tracker = Tracker(experiment.tracking, home, experiment.out, experiment.name)
    with tracker, Records(experiment, home, tracker.key) as records:
        tracker.params(experiment.model_dump(mode="json"))
        tracker.tags(lineage.tags(next(iter(jobs.values())).draft.trained))
        runs, confirmed = _search(experiment, ones, home, most, records)
        found = _conclude(experiment, (runs, confirmed), home, most)
        tracker.metrics(0, _figures(found))
        for name in (STUDY, TRIALS, page.PAGE):
            tracker.artifacts(home / name, "study")
        tracker.model(home / BUNDLE)
    parts.finish(home)
    _say(found)
    return home


def _most(experiment: Experiment, ones: Sequence[Drawn]) -> int:
    """Epochs of all trials together, if none is stopped."""
    search = experiment.tune
    assert search
    each = _epochs(experiment, ones)
    confirm = search.confirm
    again = sum(sorted(each)[-confirm.top :]) * confirm.seeds if confirm else 0
    return sum(each) + again


def _epochs(experiment: Experiment, ones: Sequence[Drawn]) -> list[int]:
    """Of each trial; and each is an experiment."""
    return [changed(experiment, one.fields).train.epochs for one in ones]


def _trials_told(experiment: Experiment, ones: Sequence[Drawn]) -> str:
    search = experiment.tune
    assert search
    again = f" and {search.confirm.top} x {search.confirm.seeds} to confirm" if search.confirm else ""
    how = "" if search.scheduler == "random" else f"; {search.scheduler} stops most of them early"
    return f"{len(ones)} trials{again}, {search.concurrent} at a time{how}"


def _jobs(experiment: Experiment, ones: Sequence[Drawn], verbose: bool) -> dict[str, Job]:
    """Features are made once for each front end, and shared by the trials that have it."""
    search = experiment.tune
    assert search
    specs = [
        changed(experiment, one.fields) for one in (every_recipe(search.space) if search.sampler == "tpe" else ones)
    ]
    distinct = {recipe_key(spec): spec for spec in reversed(specs)}
    if len(distinct) > 1:
        note(f"{len(distinct)} front ends; features of each are made before the first trial")
    frame = features.read_manifest(experiment)  # the same for all: `data`, `split` and `task` are not searched
    made = {key: (spec, features.made_of(frame, spec, verbose)) for key, spec in reversed(distinct.items())}
    return {key: job_for(spec, verbose, folder) for key, (spec, folder) in made.items()}


def _search(
    experiment: Experiment, ones: Sequence[Drawn], home: Path, most: int, records: Records
) -> tuple[list[Run], dict[str, Any]]:
    """The trials, and the best of them again with other seeds."""
    search, seed = experiment.tune, experiment.train.seed
    assert search
    asked = Study(home, search, experiment.cluster, max(_epochs(experiment, ones)), seed, most, records.add)
    with bar("trials", len(ones)) as progress:
        runs = study.run(asked, ones, study.RAY, progress)
    records.finish(runs)
    if all(run.status == "failed" for run in runs):
        parts.write_json(home / TRIALS, [unscored(run) for run in runs])
    best = ranked(runs, search.metric, search.sign)
    if not search.confirm:
        return runs, {}
    top = best[: search.confirm.top]
    again = [
        Drawn({**one.fields, "train.seed": seed + 1 + k}, {**one.told, "seed": seed + 1 + k, "of": one.trial})
        for one in top
        for k in range(search.confirm.seeds)
    ]
    whole = search.model_copy(update={"scheduler": "random", "sampler": "random"})
    asked = replace(asked, search=whole)
    with bar("other seeds", len(again)) as progress:
        confirmed = study.run(asked, again, study.CONFIRM, progress)
    records.finish(confirmed)
    return runs, {one.trial: [run for run in confirmed if run.told["of"] == one.trial] for one in top}


def _conclude(experiment: Experiment, found: tuple[list[Run], dict[str, Any]], home: Path, most: int) -> dict[str, Any]:
    search = experiment.tune
    assert search
    choice = choose(*found, search.metric, search.sign)
    aside = home / f".{BUNDLE}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(bundle_of(choice), aside)
    shutil.rmtree(home / BUNDLE, ignore_errors=True)
    aside.rename(home / BUNDLE)
    made, table = summary(choice, experiment, most)
    parts.write_json(home / TRIALS, table)
    parts.write_json(home / STUDY, made)
    page.write(made, table, home)
    return made


def _figures(made: dict[str, Any]) -> dict[str, float]:
    best = made["best"]
    known = {f"best_{made['metric']}": best["score"], "n_trials": made["n_trials"], "n_failed": made["n_failed"]}
    known |= {"epochs_spent": made["epochs_spent"]}
    return known | ({f"test_{made['figure']}": best["test"]["value"]} if best["test"] else {})


def _say(made: dict[str, Any]) -> None:
    best, leaky = made["best"], "LEAKY: " if made["audit"].startswith("leaky") else ""
    if made["n_failed"]:
        note(f"note: {made['n_failed']} trials failed; {TRIALS} says why")
    said = f"{made['n_trials']} trials, best {made['metric']} {best['score']:.3f} with {page.told(best['told'])}"
    result(f"{leaky}{said}; {made['n_within_noise']} others are within noise of it")
    for one in made["confirmed"]:
        if one["scores"]:
            spread = f" ± {one['deviation']:.3f}" if one["deviation"] is not None else ""
            said = f"{len(one['scores'])} other seeds: {one['mean']:.3f}{spread} (first {one['first']:.3f})"
            result(f"{leaky}{said} with {page.told(one['told'])}")
    if not best["test"]:
        note("note: the data has no test split: how far the best is flattered by having been chosen is not known")
        return
    name, gap = made["figure"].replace("_", " "), best["optimism"]
    result(
        f"{leaky}test, looked at once: {name} {_with(best['test'])}; validation {_with(best['validation'])}; "
        f"optimism {gap['value']:+.3f}{_span(gap['interval'])}"
    )


def _with(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.3f}{_span(figure['interval'])}"


def _span(interval: list[float] | None) -> str:
    return f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
