"""One bundle's side of an evaluation: its features of the clips, its scores, what it has heard of them; and two sides
beside each other, on the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrunet import experiment
from instrunet.augment.copies import CopiesSpec, originals
from instrunet.bundle import Bundle
from instrunet.data import corpora, manifest, split
from instrunet.data.relabel import Relabel
from instrunet.errors import DataError
from instrunet.experiment import ClusterSpec, TrackingSpec
from instrunet.features import shards
from instrunet.features.shards import Features
from instrunet.metrics import intervals
from instrunet.metrics.intervals import Judged
from instrunet.models import n_parameters
from instrunet.scoring import Judgement, Scored, judge, score
from pipelines import features, known, validated
from pipelines.console import note


@dataclass(frozen=True)
class Target:
    """What is evaluated on: a manifest, where features may be kept, and how Ray is asked for them."""

    frame: pd.DataFrame
    out: Path
    cluster: ClusterSpec = ClusterSpec()
    tracking: TrackingSpec = TrackingSpec()
    allow_leaks: bool = False
    copies: CopiesSpec = CopiesSpec()  # not scored: so that the features of the training are found, not made again


@dataclass(frozen=True)
class Side:
    path: Path
    bundle: Bundle
    frame: pd.DataFrame  # the clips to be scored
    folder: Path  # of the features of all clips
    held: Features
    scored: Scored
    judgement: Judgement
    leaks: list[str]


@dataclass(frozen=True)
class Question:
    """What is asked of each bundle."""

    target: Target
    frame: pd.DataFrame  # the rows of its split, with the labels of the data
    relabel: Relabel
    allow_leaks: bool
    rule: str
    verbose: bool


def resolve(target: Path, overrides: list[str]) -> Target:
    """A CONFIG brings its data and split; a MANIFEST or FOLDER without splits is a test set as a whole."""
    if target.suffix in (".yaml", ".yml"):
        loaded = experiment.load(target, overrides)
        frame = features.read_manifest(loaded)
        return Target(frame, loaded.out, loaded.cluster, loaded.tracking, loaded.audit.allow_leaks, loaded.copies)
    if overrides:
        raise DataError(f"overrides ({overrides[0]}) change a CONFIG; {target} is not one (.yaml)")
    frame = corpora.read(corpora.recognise(target)) if target.is_dir() else originals(manifest.load(target))
    split.check_no_group_on_both_sides(frame)
    return Target(frame.assign(split=frame["split"].replace("", "test")), Path("runs"))


def of_split(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    chosen = frame[frame["split"] == name]
    if chosen.empty:
        there = ", ".join(sorted(set(frame["split"]))) or "none"
        raise DataError(f"expected clips of the split {name!r}, the data has: {there}; choose one with --split")
    return chosen


def side(path: Path, bundle: Bundle, asked: Question) -> Side:
    target = asked.target
    frame, notes = asked.relabel.of(asked.frame, bundle.spec.labels)
    leaks = known.leaks(frame, bundle)
    known.refuse(leaks, asked.allow_leaks)
    recipe = features.Recipe(bundle.spec.front, target.copies)
    folder = features.prepare(target.frame, recipe, target.out, target.cluster, 1.0, asked.verbose)
    leaks += known.heard(frame, bundle, folder)
    known.refuse(leaks, asked.allow_leaks)
    for text in notes:
        note(f"note: {text}")
    held = validated.relabelled(shards.load(folder, bundle.spec.front, str(frame["split"].iloc[0])), frame)
    scored = score(bundle, held)
    if len(scored.clips) < len(frame):
        note(f"{len(frame) - len(scored.clips)} of {len(frame)} clips gave no sound and are not scored: see {folder}")
    return Side(path, bundle, frame, folder, held, scored, judge(bundle, scored, asked.rule), leaks)


def check_comparable(sides: Sequence[Side]) -> None:
    first = sides[0]
    for other in sides[1:]:
        ours, theirs = ((one.judgement.kind, one.bundle.spec.labels) for one in (first, other))
        if ours != theirs:
            raise DataError(
                f"{other.path} answers with other labels ({theirs[0]}: {', '.join(theirs[1])}) than {first.path} "
                f"({ours[0]}: {', '.join(ours[1])}); compare bundles of one task"
            )


def beside(first: Side, other: Side) -> dict[str, Any]:
    """`other` on the clips that both have scored, and how much better it is than `first`, group by group in pairs."""
    here = {name: k for k, name in enumerate(first.scored.clips["clip_id"])}
    there = {name: k for k, name in enumerate(other.scored.clips["clip_id"])}
    names = [name for name in here if name in there]
    if not names:
        raise DataError(f"no clip was scored by {first.path} and by {other.path} both")
    a = _of(first.judgement, [here[name] for name in names])
    b = _of(other.judgement, [there[name] for name in names])
    n = len(first.bundle.spec.labels)
    figures, own = intervals.figures(b, n), intervals.of(b, n)
    return {
        "bundle": str(other.path),
        "fingerprint": other.bundle.fingerprint,
        "model": other.bundle.spec.model.name,
        "n_parameters": n_parameters(other.bundle.network),
        "n_clips": len(names),
        "leak_reasons": other.leaks,
        "figures": {name: [value, own[name].low, own[name].high] for name, value in figures.items()},
        "gain": {name: [gap, i.low, i.high] for name, (gap, i) in intervals.paired(a, b, n).items()},
    }


def _of(judgement: Judgement, rows: list[int]) -> Judged:
    whole, at = judgement.judged, np.array(rows)
    return Judged(whole.y_true[at], whole.y_pred[at], [whole.groups[k] for k in rows])
