"""What a run is asked for, and what no single specification can know of the others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrunet.bundle_spec import BundleSpec
from instrunet.errors import ConfigError
from instrunet.losses import build_loss
from instrunet.models.adversarial import DomainSpec
from instrunet.models.distill import DistillSpec
from instrunet.training.optim import TrainSpec
from instrunet.training.validate import SCORES


@dataclass(frozen=True)
class Job:
    """What one run trains: the bundle it will become (no weights yet), how, and the folder of features."""

    draft: BundleSpec
    train: TrainSpec
    features: Path
    distill: DistillSpec | None = None
    domain: DomainSpec | None = None
    target: Path | None = None  # the features of `domain`'s sound


def job_of(config: dict[str, Any]) -> Job:
    distill, domain, target = (config[key] for key in ("distill", "domain", "target"))
    return Job(
        BundleSpec.model_validate(config["draft"]),
        TrainSpec.model_validate(config["train"]),
        Path(config["features"]),
        DistillSpec.model_validate(distill) if distill else None,
        DomainSpec.model_validate(domain) if domain else None,
        Path(target) if target else None,
    )


def config_of(job: Job) -> dict[str, Any]:
    """A job as plain data: what crosses to another process is never a pickled class of ours."""
    return {
        "draft": job.draft.model_dump(mode="json"),
        "train": job.train.model_dump(mode="json"),
        "features": str(job.features),
        "distill": job.distill.model_dump(mode="json") if job.distill else None,
        "domain": job.domain.model_dump(mode="json") if job.domain else None,
        "target": str(job.target) if job.target else None,
    }


def check(job: Job, n_workers: int) -> None:
    """What no single spec can know of the others."""
    kind, train = job.draft.kind, job.train
    build_loss(train.loss, kind)
    if train.polymix and kind == "single":
        raise ConfigError(
            "train.polymix gives a clip several labels, and the task is of kind single; "
            "choose a task of kind multi (instruments_multi, any_multi) or leave polymix out"
        )
    measured = ("val_loss", *(f"val_{name}" for name in SCORES[kind]))
    if train.monitor not in measured:
        raise ConfigError(
            f"train.monitor={train.monitor} is not measured in a task of kind {kind}; expected {', '.join(measured)}"
        )
    if train.batch_size < n_workers * train.accumulate:
        parts = f" in {train.accumulate} parts each" if train.accumulate > 1 else ""
        raise ConfigError(
            f"train.batch_size={train.batch_size} cannot be shared by {n_workers} workers{parts}; "
            f"raise it to {n_workers * train.accumulate} or more, or lower "
            + ("cluster.workers" if train.accumulate == 1 else "cluster.workers or train.accumulate")
        )
