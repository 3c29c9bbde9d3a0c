"""A trial: the worker of training in a process of Ray Tune's, which reports to Tune and goes on from its checkpoints.

HOME/experiment.json, HOME/jobs/<recipe>.json   what all trials begin with: a trial itself is named by what it changes
HOME/checkpoints/<trial>/                       the newest two of each
"""

import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ray import tune

from instrunet.data import parts
from instrunet.errors import JobError
from instrunet.experiment import Experiment
from instrunet.search.space import changed, recipe_key
from instrunet.training import checkpoints
from instrunet.training.fit import Metrics
from instrunet.training.job import Job, config_of, job_of
from instrunet.training.state import STATE_FILE, Save, rescale
from pipelines.ranks import fit_all

EXPERIMENT, JOBS, CHECKPOINTS = "experiment.json", "jobs", "checkpoints"
WHOSE, ADOPTED = "whose.json", "adopted.json"  # all that a checkpoint of Tune's holds; whose ours were, at first
ADOPTIONS = 3  # tries
FAILED = "failed"  # a trial's last report, where its configuration cannot be trained: why
WORST = {1: 0.0, -1: 1e9}  # by the sign of the figure
PASSING = (OSError, torch.OutOfMemoryError)  # a full disk, a GPU that others use too: worth another try


def write_inputs(home: Path, experiment: Experiment, jobs: dict[str, Job]) -> None:
    """What the trials of a study read; a study that goes on writes the same again."""
    (home / JOBS).mkdir(exist_ok=True)
    parts.write_json(home / EXPERIMENT, experiment.model_dump(mode="json"))
    for key, job in jobs.items():
        parts.write_json(home / JOBS / f"{key}.json", config_of(job))


def job_of_trial(home: Path, fields: Mapping[str, Any]) -> Job:
    spec = changed(Experiment.model_validate(parts.read_json(home / EXPERIMENT)), fields)
    job = job_of(parts.read_json(home / JOBS / f"{recipe_key(spec)}.json"))
    trained = job.draft.trained.model_copy(update={"experiment": spec.run_fingerprint(), "seed": spec.train.seed})
    draft = job.draft.model_copy(update={"model": spec.model, "trained": trained})
    return Job(draft, spec.train, job.features, spec.distill, spec.domain, job.target)


def trial(config: dict[str, Any]) -> None:
    """What is wrong with a configuration would be wrong again: it is reported, and the study goes on."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // (config["concurrent"] * config["workers"])))
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")  # a trial that was stopped leaves; 2 s may be too few
    home, name = Path(config["home"]), tune.get_context().get_trial_id()
    try:
        job = job_of_trial(home, config["one"]["fields"])
        own = home / CHECKPOINTS / name
        begun, heard = _begun(own, job.train.learning_rate)
        whose = {"trial": name, "learning_rate": job.train.learning_rate} if config["handed_on"] else None
        last = parts.read_json(begun / STATE_FILE)["progress"]["history"][-1] if begun else {"step": 0}
        if last["step"] > heard:
            _tell(last, whose)
        fit_all(job, partial(report, own, whose), begun, config["workers"], config["resources"])
    except PASSING:
        raise
    except Exception as error:  # whatever it is, it has a name
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        tune.report({FAILED: reason, config["metric"]: WORST[config["sign"]], "epochs_done": 0})


def report(folder: Path, whose: dict[str, Any] | None, metrics: Metrics, save: Save) -> None:
    """Tune's record of checkpoints is as old as its last snapshot: it is given a name, and ours are beside it."""
    try:
        checkpoints.publish(folder, int(metrics["step"]), save, validated=True)
    except JobError as error:
        raise OSError(str(error)) from None
    _tell(metrics, whose)


def _tell(metrics: Metrics, whose: dict[str, Any] | None) -> None:
    """A checkpoint of Tune's costs each epoch a second round to the driver: only where trials pause or take over."""
    told = metrics | {"epochs_done": metrics["epoch"] + 1}  # what ASHA compares by: a trial may validate inside epochs
    if whose is None:
        tune.report(told)
        return
    with TemporaryDirectory() as folder:
        parts.write_json(Path(folder) / WHOSE, whose | {"step": metrics["step"]})
        tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


def _begun(own: Path, learning_rate: float) -> tuple[Path | None, float]:
    """The newest checkpoint of this trial, and the step of which Tune has heard; of another's, where a population goes
    on from that one: told as its own, the same trial would be chosen, and sent on to another, without an epoch between.
    """
    heard = 0.0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            whose = parts.read_json(Path(folder) / WHOSE)
        if whose["trial"] == own.name:
            heard = whose["step"]
        elif not _is_adopted(own, whose):
            _adopt(own, whose, learning_rate / whose["learning_rate"])
            heard = math.inf
    return checkpoints.newest(own), heard


def _is_adopted(own: Path, whose: dict[str, Any]) -> bool:
    return (own / ADOPTED).is_file() and parts.read_json(own / ADOPTED) == whose


def _adopt(own: Path, whose: dict[str, Any], rate: float) -> None:
    aside = own.with_name(f".{own.name}.tmp")
    copied = _copied(own.with_name(whose["trial"]), aside)
    if copied is None:
        return
    rescale(copied, rate)
    parts.write_json(aside / ADOPTED, whose)
    shutil.rmtree(own, ignore_errors=True)
    aside.rename(own)


def _copied(theirs: Path, aside: Path) -> Path | None:
    """The other may go on and remove its newest meanwhile: then there is a newer one."""
    for _ in range(ADOPTIONS):
        shutil.rmtree(aside, ignore_errors=True)
        if newest := checkpoints.newest(theirs):
            with suppress(shutil.Error, FileNotFoundError):
                return Path(shutil.copytree(newest, aside / newest.name))
    return None
