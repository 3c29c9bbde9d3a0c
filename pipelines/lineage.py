"""What a run begins with and what that has heard: a parent, teachers, unlabelled sound of a target.

A test clip that one of them heard is a leak as any other, and what they heard goes into the provenance of the bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from instrunet import bundle as bundles
from instrunet.bundle_spec import Provenance
from instrunet.data import corpora, manifest, places
from instrunet.experiment import Experiment
from instrunet.models.transfer import is_weights, read_weights
from instrunet.training.start import check_front, check_model
from pipelines import audit, features
from pipelines.console import note
from pipelines.features import Recipe

TESTED = ("val", "test", "official")
NEEDED = ["clip_id", "corpus", "group", "split", "sha256"]


@dataclass(frozen=True)
class Ancestor:
    """`said` is how the experiment names it; `fingerprint` is a bundle's, sound has none."""

    said: str
    trained: Provenance
    fingerprint: str = ""


def located(experiment: Experiment) -> Experiment:
    """With paths that hold in every process of a cluster."""
    train, distill, domain = experiment.train, experiment.distill, experiment.domain
    if train.init_from:
        train = train.model_copy(update={"init_from": train.init_from.absolute()})
    if distill:
        distill = distill.model_copy(update={"teacher": tuple(path.absolute() for path in distill.teacher)})
    if domain and not places.is_remote(domain.target):
        domain = domain.model_copy(update={"target": domain.target.absolute()})
    return experiment.model_copy(update={"train": train, "distill": distill, "domain": domain})


def bundles_of(experiment: Experiment) -> list[Ancestor]:
    """The parent and the teachers; one that does not fit is refused before an hour of featurizing."""
    found = []
    for said, path in experiment.begins_with():
        if path == experiment.train.init_from and is_weights(path):
            read_weights(path)  # a mistake is told before an hour of featurizing
            note(f"{said}: what these weights have heard is not known; the audit cannot speak for it")
            found.append(Ancestor(said, Provenance(), manifest.sha256_of(path)[:16]))
            continue
        spec = bundles.read_spec(path)
        check_front(spec.front, experiment.front, said)
        if path == experiment.train.init_from:
            check_model(spec.model, experiment.model, said)
        found.append(Ancestor(said, spec.trained, spec.fingerprint()))
    return found


def target_of(experiment: Experiment, verbose: bool) -> tuple[Path | None, list[Ancestor]]:
    """The features of `domain.target` and what is heard of it; nothing where there is no domain."""
    if not experiment.domain:
        return None, []
    frame = corpora.unlabelled(experiment.domain.target)
    note(f"domain.target: {len(frame)} clips, without labels")
    recipe, limit = Recipe(experiment.front), experiment.max_bad_fraction
    folder = features.prepare(frame, recipe, experiment.out, experiment.cluster, limit, verbose)
    heard = Provenance(
        manifest=manifest.digest(frame),
        group_keys=tuple(sorted(manifest.group_keys(frame))),
        clip_hashes=tuple(sorted({h[:16] for h in frame["sha256"] if h})),
        sample_hashes=tuple(sorted(audit.hashes_of(audit.prints_of(folder)).values())),
    )
    return folder, [Ancestor(f"domain.target={experiment.domain.target}", heard)]


def leaks(frame: pd.DataFrame, hashes: Mapping[str, str], ancestors: Sequence[Ancestor]) -> list[str]:
    """What of the clips to be tested, or validated on, an ancestor has heard; or that it was made of leaky data.

    `hashes` are of the samples of each clip. A clip that the ancestor was validated on may be validated on again.
    """
    found = []
    for one in ancestors:
        if one.trained.leaky:
            found.append(f"{one.said} was trained on leaky data ({one.trained.leaky})")
        for split in TESTED:
            rows = frame[frame["split"] == split]
            n = sum(_heard(row, hashes, one.trained) for row in rows[NEEDED].to_dict("records"))
            if n:
                how = "was trained on" if one.fingerprint else "holds"
                found.append(f"{one.said} {how} {n} of {len(rows)} clips of the {split} split")
    return found


def inherited(trained: Provenance, ancestors: Sequence[Ancestor]) -> Provenance:
    """With all that the ancestors heard; what is validated on alone is nobody's training."""
    all_ = [trained, *(one.trained for one in ancestors)]
    learnt = {key for one in all_ for key in set(one.group_keys) - set(one.val_group_keys)}
    named = {
        field: tuple(sorted({key for one in all_ for key in getattr(one, field)}))
        for field in ("group_keys", "clip_hashes", "sample_hashes", "val_group_keys")
    }
    named["val_group_keys"] = tuple(key for key in named["val_group_keys"] if key not in learnt)
    update = {"begun_with": tuple(one.fingerprint or one.trained.manifest for one in ancestors)}
    return trained.model_copy(update=named | update)


def tags(trained: Provenance) -> dict[str, str]:
    """For the record."""
    begun = {"begun_with": ", ".join(trained.begun_with)} if trained.begun_with else {}
    return {"audit": trained.audit, **begun}


def _heard(row: Mapping[Any, Any], hashes: Mapping[str, str], trained: Provenance) -> bool:
    key = manifest.group_key(row["corpus"], row["group"])
    if row["split"] == "val" and key in trained.val_group_keys:
        return False
    return (
        key in trained.group_keys
        or row["sha256"][:16] in trained.clip_hashes
        or hashes.get(row["clip_id"], "") in trained.sample_hashes
    )
