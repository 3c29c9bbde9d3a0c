"""Clips that a bundle may be fitted or compared on after training: it was at most validated on their groups."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from instrunet.bundle import Bundle
from instrunet.data.relabel import Relabel
from instrunet.features import shards
from instrunet.features.shards import Features
from instrunet.scoring import Scored, score
from pipelines import audit, lineage

SPLIT = "val"


def why_not(bundle: Bundle, frame: pd.DataFrame, hashes: Mapping[str, str]) -> str:
    """Why thresholds must not be fitted on these rows of a validation split; empty where they may."""
    if frame.empty:
        return "the data has no validation split"
    trained = bundle.spec.trained.model_copy(update={"audit": ""})  # what it was made of is said elsewhere
    found = lineage.leaks(frame, hashes, [lineage.Ancestor("the bundle", trained, bundle.fingerprint)])
    return "; ".join(found)


def scored(bundle: Bundle, frame: pd.DataFrame, folder: Path, relabel: Relabel) -> tuple[Scored | None, str]:
    """The validation split of a manifest that was featurized into `folder`; or why it cannot be used."""
    rows = frame[frame["split"] == SPLIT]
    reason = why_not(bundle, rows, audit.hashes_of(audit.prints_of(folder)))
    named = rows.assign(labels=rows["labels"].map(relabel))
    known = named["labels"].map(lambda labels: bool(labels) and set(labels) <= set(bundle.spec.labels))
    named = named[known] if len(named) else named
    if not reason and named.empty:
        reason = "no clip of the validation split has a label of the bundle"
    if reason:
        return None, reason
    held = relabelled(shards.load(folder, bundle.spec.front, SPLIT), named)
    return (score(bundle, held), "") if len(held) else (None, "no clip of the validation split gave any sound")


def relabelled(held: Features, frame: pd.DataFrame) -> Features:
    """The windows of a manifest's clips, with the labels that they have there."""
    labels = dict(zip(frame["clip_id"], frame["labels"], strict=True))
    mine = held.only(set(labels))
    return Features(mine.values, mine.clips | {"labels": [labels[name] for name in mine.clips["clip_id"]]}, mine.frames)
