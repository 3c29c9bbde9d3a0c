"""A recipe judged by training it anew: K folds by group, or a split at random beside one by group.

DIR/folds.json      each fold's figure, and those of all out-of-fold predictions together
DIR/scores.parquet  clip_id, uri, group, fold, labels and scores of each clip, by the bundle that had not heard it
DIR/premium.json    the main figure of both splits, and by how much the one at random flatters
"""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from instrunet import experiment
from instrunet.data import corpora, manifest, parts
from instrunet.data.corpora import RavdessSpec, SynthCorpusSpec
from instrunet.data.readers.ravdess import EMOBOX_FOLDS
from instrunet.errors import ConfigError, DataError
from instrunet.experiment import Experiment
from instrunet.metrics import intervals
from instrunet.scoring import MAIN
from pipelines import audit, features
from pipelines.console import note, result
from pipelines.tested import pooled_of, scores_of, train_and_test

SCHEMA = 1
FOLDS, SCORES, PREMIUM = "folds.json", "scores.parquet", "premium.json"
FEWEST_FOLDS = 2
LONGEST_NAME = 30  # of an experiment's 41 characters, beside -random or -fold12
N_EMOBOX_ACTORS = sum(len(actors) for actors in EMOBOX_FOLDS)


def run(args: argparse.Namespace) -> Path:
    """Judge the CONFIG `args.bundle`; the same command finds what is trained done."""
    spec = experiment.load(args.bundle, args.overrides)
    _check_folder(args.out)
    _check(spec)
    said = ["--leak-premium"] if args.leak_premium else ["--folds", str(args.folds)]
    words = ["python", "jobs/evaluate.py", str(args.bundle), *args.overrides, *said, "--out", str(args.out)]
    made = premium(spec, args.verbose) if args.leak_premium else folds(spec, args.folds, args.out, args.verbose)
    path: Path = args.out / (PREMIUM if args.leak_premium else FOLDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts.write_json(path, {"schema": SCHEMA, "command": shlex.join(words), **made})
    return path


def premium(spec: Experiment, verbose: bool) -> dict[str, Any]:
    """The same recipe by group and at random, each scored on its own test split."""
    folder = features.run(spec, verbose)
    frame = manifest.load(folder / manifest.FILE)
    _check_groups(frame)
    grouped, at_random = train_and_test([spec, _at_random(spec, frame)], verbose, folder)
    by_clip = replace(at_random.judgement, groups=tuple(at_random.clips["clip_id"]))
    at_random = replace(at_random, judgement=by_clip)
    name = MAIN[grouped.judgement.kind]
    ours = [tested.judgement.judged for tested in (at_random, grouped)]
    value, found = intervals.between(ours[0], ours[1], len(grouped.judgement.labels))[name]
    limits = [found.low, found.high] if found.n_groups >= intervals.FEWEST_GROUPS else None
    made = {
        "figure": name,
        "premium": {"value": value, "interval": limits},
        "random": {"drawn": "clips", **at_random.row()},
        "grouped": {"drawn": "groups", **grouped.row()},
    }
    _say_premium(made)
    return made


def folds(spec: Experiment, k: int, out: Path, verbose: bool) -> dict[str, Any]:
    """K trainings, side by side where there is room, and one judgement over all of their test splits."""
    if k < FEWEST_FOLDS:
        raise ConfigError(
            f"expected --folds {FEWEST_FOLDS} or more, got {k}; without folds, train and evaluate a bundle"
        )
    if spec.split.folds:
        raise ConfigError(f"--folds {k} makes the folds itself, got split.folds={spec.split.folds}; leave it unset")
    spec, first = _kept_together(spec, k, verbose)
    tested = train_and_test(_folds(spec, k), verbose, first)
    for number, one in enumerate(tested, 1):
        result(f"{one.kind} fold {number} of {k} ({one.size}): {one.figures}")
    pooled = pooled_of(tested)
    out.mkdir(parents=True, exist_ok=True)
    parts.write_aside(out / SCORES, lambda aside: pq.write_table(scores_of(tested), aside))
    result(f"{pooled.kind} all folds ({pooled.size}): {pooled.figures}")
    rows = [{"fold": number, **one.row()} for number, one in enumerate(tested, 1)]
    together = {"audit": pooled.audit, "n_clips": len(pooled.clips), "n_groups": pooled.n_groups}
    return {
        "figure": MAIN[pooled.judgement.kind],
        "labels": list(pooled.judgement.labels),
        "folds": rows,
        "pooled": {**together, "leaky": pooled.leaky, "metrics": pooled.judgement.metrics()},
    }


def _at_random(spec: Experiment, frame: pd.DataFrame) -> Experiment:
    """The same recipe on clips dealt at random, with the sizes that the split by group came to."""
    share = frame.loc[frame["split"] != "official", "split"].value_counts(normalize=True)
    update = {"by": "clip", "val": float(share.get("val", 0.0)), "test": float(share["test"]), "folds": None, "fold": 0}
    return spec.model_copy(
        update={
            "name": f"{spec.name[:LONGEST_NAME]}-random",  # a registered model of its own: nobody's challenger
            "split": spec.split.model_copy(update=update | {"keep_together": None}),
            "audit": spec.audit.model_copy(update={"allow_leaks": True}),
        }
    )


def _folds(spec: Experiment, k: int) -> list[Experiment]:
    """EmoBox's folds where all of RAVDESS is there, else ours."""
    emobox = k == len(EMOBOX_FOLDS) and isinstance(spec.data, RavdessSpec)
    emobox = emobox and corpora.read(spec.data)["group"].nunique() == N_EMOBOX_ACTORS
    made = []
    for fold in range(k):
        update: dict[str, Any] = {"name": f"{spec.name[:LONGEST_NAME]}-fold{fold + 1}"}
        if emobox:
            update["data"] = spec.data.model_copy(update={"fold": fold + 1})
        else:
            update["split"] = spec.split.model_copy(update={"folds": k, "fold": fold})
        made.append(spec.model_copy(update=update))
    return made


def _kept_together(spec: Experiment, k: int, verbose: bool) -> tuple[Experiment, Path | None]:
    """Groups in which the audit hears the same sound lie in one fold: as the folds are ours, so is that to see to.

    And the features of the first fold, where they are good for it.
    """
    one = _folds(spec, k)[0]
    if one.split.folds is None or spec.split.keep_together or spec.audit.allow_leaks:
        return spec, None
    folder = features.run(one, verbose)
    together = audit.read(folder, spec.audit).together
    if not together:
        return spec, folder
    note(f"note: groups with the same sound in them lie in one fold ({together})")
    return spec.model_copy(update={"split": spec.split.model_copy(update={"keep_together": together.absolute()})}), None


def _check_folder(folder: Path) -> None:
    """DIR is made last: a mistake in it is said first."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"expected a folder at {folder}, found a file; give another --out")
    foreign = sorted({path.name for path in folder.glob("*")} - {FOLDS, SCORES, PREMIUM})
    if foreign:
        raise DataError(
            f"expected an empty folder or an earlier judgement at {folder}, found {foreign[0]}; give another"
        )


def _check(spec: Experiment) -> None:
    """What is judged deals its clips itself, once by group at least."""
    if spec.split.by == "clip":
        raise ConfigError("expected a recipe that splits by group, got split.by=clip; leave it unset")
    stated = set() if isinstance(spec.data, SynthCorpusSpec) else set(corpora.read(spec.data)["split"])
    fixed = sorted(stated - {"", "official"})
    if fixed:
        raise DataError(
            f"the corpus states its own splits ({', '.join(fixed)}), which no fold and no chance may move; leave the "
            "split column (or data.fold, data.lists) out"
        )


def _check_groups(frame: pd.DataFrame) -> None:
    ours = frame[frame["split"] != "official"]
    if ours["group"].nunique() == len(ours):
        raise DataError(
            f"each of {len(ours)} clips is a group of its own, so a split by group is one at random; name the "
            "recording, speaker or player of each as its group"
        )
    if "test" not in set(ours["split"]):
        raise DataError("expected a test split to compare, got none of split.test=0; give it a share")


def _say_premium(made: dict[str, Any]) -> None:
    value, limits = made["premium"]["value"], made["premium"]["interval"]
    told_ = f"{limits[0]:+.2f} to {limits[1]:+.2f}, 95 %" if limits else "one group is tested: no interval"
    for name, said in (("random", "at random"), ("grouped", "by group")):
        row = made[name]
        sizes = f"{row['n']} clips, {row['n_groups']} groups, {row['n_clips'].get('train', 0)} trained on"
        result(f"{'LEAKY' if row['leaky'] else 'held-out'} {said} ({sizes}): {made['figure']} {row['value']:.3f}")
    both = [f"{'LEAKY ' if made[n]['leaky'] else ''}{made[n]['value']:.2f}" for n in ("random", "grouped")]
    result(f"leak premium: {value:+.2f} ({told_}): {both[0]} at random, {both[1]} by group")
