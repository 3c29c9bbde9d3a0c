"""Training on Ray Train: DDP workers that survive a kill, a driver that goes on where it was, one bundle at the end."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from instrunet import __version__
from instrunet.augment.copies import originals
from instrunet.bundle_spec import BundleSpec, Provenance
from instrunet.config import fingerprint
from instrunet.data import manifest, parts, places
from instrunet.drift import Profile
from instrunet.errors import InstrunetError, JobError
from instrunet.experiment import Experiment
from instrunet.features.featurizer import Statistics
from instrunet.training import checkpoints
from instrunet.training.fit import Metrics, fit
from instrunet.training.job import Job, config_of, job_of
from instrunet.training.state import BUNDLE_FOLDER, MISSES_FILE, SNAPSHOTS, STATE_FILE, Save
from pipelines import audit, cluster, features, leaving, lineage
from pipelines.console import bar, note, result
from pipelines.events import Reader, Reporter, mailbox
from pipelines.tracking import Tracker

BUNDLE, CHECKPOINTS, HISTORY = "bundle", "checkpoints", "history.json"


def run(experiment: Experiment, verbose: bool = False, folder: Path | None = None, shared: int = 1) -> Path:
    """Train an experiment into a bundle. The same command after a kill goes on, after success it finds it done.

    `folder` is that of its features, where the caller made them; `shared` by so many trainings are a node's cores.
    """
    places.need_disk(experiment.out, "training")
    cluster.check_fits(experiment.cluster, experiment.cluster.workers)
    experiment = lineage.located(experiment)
    job = job_for(experiment, verbose, folder)
    home = run_folder(experiment, job.draft)
    if parts.is_done(home):
        note(f"{home} is trained already; remove it to train again")
        return home / BUNDLE
    cluster.connect(experiment.cluster, verbose=verbose)
    with Tracker(experiment.tracking, home, experiment.out, experiment.name) as tracker:
        tracker.params(experiment.model_dump(mode="json"))
        tracker.tags(lineage.tags(job.draft.trained))
        history = _train(experiment, job, home, tracker, shared)
        for metrics in history:  # what the driver missed while it was dead; known epochs are not logged twice
            tracker.metrics(experiment.train.tick(metrics), metrics)
        tracker.model(home / BUNDLE)
    parts.finish(home)
    _summary(history, experiment, job.draft, tracker)
    return home / BUNDLE


def place(experiment: Experiment, folder: Path, verbose: bool) -> Path:
    """Where `run` trains it."""
    experiment = lineage.located(experiment)
    return run_folder(experiment, job_for(experiment, verbose, folder).draft)


def job_for(experiment: Experiment, verbose: bool, folder: Path | None = None) -> Job:
    """What the workers are to train: features made, leaks found, what it begins with looked at."""
    ancestors = lineage.bundles_of(experiment)
    folder = folder or features.run(experiment, verbose)
    frame = manifest.load(folder / manifest.FILE)
    draft = draft_of(experiment, frame, features.statistics(folder), features.profile(folder))
    target, heard = lineage.target_of(experiment, verbose)
    ancestors += heard
    draft = audit.stamped(draft, folder, experiment.audit, partial(lineage.leaks, ancestors=ancestors))
    if ancestors and draft.trained.leaky:
        note(f"audit: LEAKY: {draft.trained.leaky}")
    draft = draft.model_copy(update={"trained": lineage.inherited(draft.trained, ancestors)})
    return Job(draft, experiment.train, folder, experiment.distill, experiment.domain, target)


def draft_of(experiment: Experiment, frame: pd.DataFrame, statistics: Statistics, profile: Profile) -> BundleSpec:
    """The bundle a run will become: all of it but the weights."""
    learnt = frame[frame["split"].isin(("train", "val"))]
    keys = {split: manifest.group_keys(frame[frame["split"] == split]) for split in ("train", "val")}
    return BundleSpec(
        kind=experiment.the_task.kind,
        labels=experiment.the_task.labels or tuple(manifest.labels_of(frame)),
        front=experiment.front,
        model=experiment.model,
        statistics=statistics,
        profile=profile,
        trained=Provenance(
            experiment=experiment.run_fingerprint(),
            manifest=manifest.digest(frame),
            corpus=str(frame["corpus"].iloc[0]),
            seed=experiment.train.seed,
            n_clips={str(k): int(n) for k, n in originals(frame)["split"].value_counts().items()},
            group_keys=tuple(sorted(keys["train"] | keys["val"])),
            val_group_keys=tuple(sorted(keys["val"] - keys["train"])),
            clip_hashes=tuple(sorted({h[:16] for h in learnt["sha256"] if h})),
        ),
    )


def run_folder(experiment: Experiment, draft: BundleSpec, kind: str = "train") -> Path:
    plan: dict[str, Any] = {
        "job": kind,
        "experiment": experiment.run_fingerprint(),
        "manifest": draft.trained.manifest,
        "code": __version__,
    }
    if draft.trained.begun_with:
        plan["begun_with"] = draft.trained.begun_with
    if experiment.tune and kind == "tune":
        plan["tune"] = experiment.tune.fingerprint()
    from_plan = "-".join((experiment.name, fingerprint(plan)[:8]))
    home = (experiment.out / kind / from_plan).absolute()
    parts.claim(home, plan)
    return home


def worker(config: dict[str, Any]) -> None:
    """One rank. A mistake of the user's ends the run at once on every rank; anything else is worth a restart."""
    context = ray.train.get_context()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, cores // (context.get_local_world_size() * config["shared"])))
    first, home = context.get_world_rank() == 0, Path(config["home"])
    # The first decides for all: on a shared disk another may see the newest one later
    resume = broadcast_from_rank_zero(str(checkpoints.newest(home) or "") if first else None)
    between = leaving.Watch(config["mailbox"], home) if first else None

    def report(metrics: Metrics, save: Save) -> None:
        _publish(home, int(metrics["step"]), save if first else None)
        ray.train.report({**metrics, "pid": os.getpid()})

    try:
        fit(job_of(config), report, get_device(), Path(resume) if resume else None, between)
    except InstrunetError as error:
        if first:
            ray.get(config["mailbox"].put.remote({"kind": type(error).__name__, "error": str(error)}))


def _publish(home: Path, step: int, save: Save | None) -> None:
    """The first worker writes. If it cannot, all of them end: those that went on would wait for it."""
    problem = None
    if save:
        try:
            checkpoints.publish(home, step, save, validated=True)
        except JobError as error:
            problem = str(error)
    if problem := broadcast_from_rank_zero(problem):
        raise JobError(problem)


def _train(experiment: Experiment, job: Job, home: Path, tracker: Tracker, shared: int) -> list[Metrics]:
    events = mailbox()
    _hurry()
    trainer = _trainer(experiment, job, home, events, shared)
    with bar("training", experiment.train.epochs) as progress:
        reader = Reader(events, progress, tracker, home, experiment.train)
        try:
            with leaving.keeping(events, progress.line):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise JobError(f"training failed and gave up after {reader.restarts} restarts: {_cause(error)}") from None
        finally:
            reader.stop()
    if reader.error:
        raise reader.error
    return _keep(home)


def _hurry() -> None:
    """The controller takes one report a worker at each look: every 2 s, an epoch of 1 s would wait as long again."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")


def _trainer(experiment: Experiment, job: Job, home: Path, events: Any, shared: int) -> TorchTrainer:
    spec, resources = experiment.cluster, cluster.of_a_worker(experiment.cluster)
    gpu = "GPU" in resources
    return TorchTrainer(
        worker,
        train_loop_config=config_of(job) | {"mailbox": events, "home": str(home / CHECKPOINTS), "shared": shared},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=spec.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its annotations are those of Train V1
            name="ray",
            storage_path=str(home),
            failure_config=ray.train.FailureConfig(max_failures=spec.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            callbacks=[Reporter(events)],  # type: ignore[list-item]
        ),
    )


def _keep(home: Path) -> list[Metrics]:
    """The best bundle out of the last checkpoint and its snapshots, each whole, and the history of every validation."""
    last = checkpoints.newest(home / CHECKPOINTS)
    assert last, "a run that ended has a checkpoint"
    state = parts.read_json(last / STATE_FILE)
    for made, name in ((last / BUNDLE_FOLDER, BUNDLE), (last / SNAPSHOTS, SNAPSHOTS)):
        shutil.rmtree(home / name, ignore_errors=True)
        if made.is_dir():
            parts.publish_folder(home / name, partial(shutil.copytree, made, dirs_exist_ok=True))
    shutil.copy(last / MISSES_FILE, home / MISSES_FILE)
    history: list[Metrics] = state["progress"]["history"]
    parts.write_json(home / HISTORY, history)
    return history


def _summary(history: list[Metrics], experiment: Experiment, draft: BundleSpec, tracker: Tracker) -> None:
    spec, clips = experiment.train, draft.trained.n_clips
    kept = history[-1] if spec.keep == "last" else max(history, key=lambda m: m[spec.monitor] * spec.sign)
    scores = ", ".join(f"{k.removeprefix('val_')} {v:.3f}" for k, v in kept.items() if k.startswith("val_"))
    judged = f"validation ({clips.get('val', 0)}): {scores}" if scores else "no clips were left to validate on"
    how = f"{'LEAKY: ' if draft.trained.leaky else ''}trained {history[-1]['epoch'] + 1:.4g} epochs"
    result(f"{how} on {clips.get('train', 0)} clips; {judged}")
    if tracker.url:
        waiting = f" ({tracker.pending} lines wait for the server: jobs/sync.py)" if tracker.pending else ""
        result(f"MLflow: {tracker.url}{waiting}")


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
