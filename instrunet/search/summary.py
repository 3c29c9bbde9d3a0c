"""A study as data: the choice, and what a reader needs to know to believe it.

STUDY/trials.json   a row a trial: what it changed, its score or the reason why it failed, how far it is from the best
STUDY/study.json    the choice: validation and, looked at once, test; its optimism, seeds, noise, importance, cost
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from instrunet import bundle as bundles
from instrunet.errors import JobError
from instrunet.experiment import Experiment
from instrunet.search import verdict
from instrunet.search.run import Run

SCHEMA = 1
TRIALS, STUDY, PAGE = "trials.json", "study.json", "index.html"
ONE_TEST = "test"


@dataclass(frozen=True)
class Choice:
    """The best run; `confirmed` are the runs with other seeds, by the trial whose configuration they repeat."""

    best: Run
    runs: Sequence[Run]
    confirmed: Mapping[str, Sequence[Run]]

    @property
    def first(self) -> Run:
        """The trial whose configuration the best has: the best itself, where there are no other seeds."""
        names = [name for name, more in self.confirmed.items() if self.best in more]
        return next(run for run in self.runs if run.trial == names[0]) if names else self.best


def ranked(runs: Sequence[Run], metric: str, sign: int) -> list[Run]:
    """Those that have a score, the best first, equals by name, so that a study that goes on chooses the same; none is
    the failure of the study."""
    scored = [run for run in runs if run.status != "failed"]
    if not scored:
        first = runs[0].reason if runs else "none was begun"
        raise JobError(f"all {len(runs)} trials failed; {TRIALS} says why; the first: {first}")
    return sorted(scored, key=lambda run: (-sign * run.score(metric), run.trial))


def choose(runs: Sequence[Run], confirmed: Mapping[str, Sequence[Run]], metric: str, sign: int) -> Choice:
    """By validation alone. Where there are other seeds, by their mean: the first seed was chosen for its luck, too.

    The bundle is then the best of these.
    """
    best = ranked(runs, metric, sign)[0]
    whole = {name: [run for run in more if run.status != "failed"] for name, more in confirmed.items()}
    if means := {name: fmean(run.score(metric) for run in more) for name, more in whole.items() if more}:
        best = ranked(whole[max(means, key=lambda name: means[name] * sign)], metric, sign)[0]
    return Choice(best, runs, confirmed)


def summary(choice: Choice, experiment: Experiment, most: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(study.json, trials.json)"""
    search = experiment.tune
    assert search
    best, runs, metric = choice.best, choice.runs, search.metric
    validation, test = verdict.hear(best, "val"), verdict.hear(best, ONE_TEST)
    assert validation, "what was trained was validated"
    figure = verdict.figure_of(metric, validation.kind)
    first = choice.first
    table = [_row(run, validation, metric, figure) for run in runs]
    scored = [run for run in runs if run.status != "failed"]
    all_runs = [*runs, *(run for more in choice.confirmed.values() for run in more)]
    study = {
        "schema": SCHEMA,
        "name": experiment.name,
        "metric": metric,
        "figure": figure,
        "sampler": search.sampler,
        "scheduler": search.scheduler,
        "n_trials": len(runs),
        "n_failed": sum(run.status == "failed" for run in runs),
        "n_stopped": sum(run.status == "stopped" for run in runs),
        "n_within_noise": sum(row["within_noise"] is True and row["trial"] != first.trial for row in table),
        "epochs_most": most,
        "epochs_spent": round(sum(run.epochs for run in all_runs), 4),
        "training_s": round(sum(run.seconds for run in all_runs), 1),
        "audit": bundles.read_spec(best.bundle).trained.audit if best.bundle else "",
        "best": {
            "trial": first.trial,
            "fields": dict(best.fields),
            "told": dict(first.told),
            "score": best.score(metric),
            "validation": _figure(validation, figure),
            "test": _figure(test, figure) if test else None,
            "optimism": verdict.optimism(validation, test, figure) if test else None,
        },
        "confirmed": [_seeds(name, choice, metric) for name in choice.confirmed],
        "importance": verdict.importance([run.told for run in scored], [run.score(metric) for run in scored]),
    }
    return study, sorted(table, key=lambda row: (row["score"] is None, -search.sign * (row["score"] or 0)))


def unscored(run: Run) -> dict[str, Any]:
    """The row of a trial that failed."""
    row = {"trial": run.trial, "status": run.status, "reason": run.reason, "epochs": round(run.epochs, 4)}
    row |= {"seconds": round(run.seconds, 2), "changed": dict(run.told), "fields": dict(run.fields)}
    return row | {"score": None, "n_parameters": None, "behind": None, "within_noise": None}


def _row(run: Run, best: verdict.Heard, metric: str, figure: str) -> dict[str, Any]:
    heard = verdict.hear(run, "val") if run.status != "failed" else None
    if not heard:
        return unscored(run)
    gap, interval = verdict.behind(best, heard, figure)
    noise = interval.low <= 0 <= interval.high  # of one group nothing can be said: it is -1 to 1
    behind = [gap, interval.low, interval.high]
    return unscored(run) | {
        "score": run.score(metric),
        "n_parameters": heard.n_parameters,
        "behind": behind,
        "within_noise": noise,
    }


def _figure(heard: verdict.Heard, name: str) -> dict[str, Any]:
    n_groups = len(set(heard.judged.groups))
    return {
        "value": heard.figure(name),
        "interval": heard.interval(name),
        "n_clips": len(heard.clip_ids),
        "n_groups": n_groups,
    }


def _seeds(name: str, choice: Choice, metric: str) -> dict[str, Any]:
    original = next(run for run in choice.runs if run.trial == name)
    more = [run for run in choice.confirmed[name] if run.status != "failed"]
    scores = [run.score(metric) for run in more]
    return {
        "trial": name,
        "told": dict(original.told),
        "first": original.score(metric),
        "scores": scores,
        "mean": fmean(scores) if scores else None,
        "deviation": stdev(scores) if len(scores) > 1 else None,
    }


def bundle_of(choice: Choice) -> Path:
    assert choice.best.bundle, "what is ranked has a bundle"
    return choice.best.bundle
