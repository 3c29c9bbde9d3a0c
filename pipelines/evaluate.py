"""Evaluation: a bundle on clips it has not learnt from, by voting over windows, as a report one can open."""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from instrunet import experiment, protocols
from instrunet.augment.copies import CopiesSpec, originals
from instrunet.bundle import Bundle
from instrunet.data import corpora, manifest, places, split
from instrunet.data.relabel import Relabel
from instrunet.drift import compare
from instrunet.errors import DataError
from instrunet.experiment import ClusterSpec, TrackingSpec
from instrunet.features import shards
from instrunet.features.shards import Features
from instrunet.metrics import voting
from instrunet.models import n_parameters
from instrunet.report import build, pictures
from instrunet.report.build import ClipResult, Evaluation
from instrunet.scoring import Judgement, Scored, belief, judge, score, told
from pipelines import audit, features, validated
from pipelines.console import note, result
from pipelines.tracking import Tracker


@dataclass(frozen=True)
class Target:
    """What is evaluated on: a manifest, where features may be kept, and how Ray is asked for them."""

    frame: pd.DataFrame
    out: Path
    cluster: ClusterSpec = ClusterSpec()
    tracking: TrackingSpec = TrackingSpec()
    allow_leaks: bool = False
    copies: CopiesSpec = CopiesSpec()  # not scored: so that the features of the training are found, not made again


def run(args: argparse.Namespace) -> Path:
    """Score `args.bundle` on `args.target` and write the report into `args.out`."""
    pictures.require()
    build.check_folder(args.out)
    rules, relabel = voting.asked(args.aggregate), Relabel.parse(args.map, args.ignore)
    bundle = Bundle.load(args.bundle)
    target = resolve(args.target, args.overrides)
    places.need_disk(target.out, "evaluation")
    frame, notes = relabel.of(_of_split(target.frame, args.split), bundle.spec.labels)
    allowed = args.allow_leaks or target.allow_leaks
    leaks = _leaks(frame, bundle)
    _refuse(leaks, allowed)
    recipe = features.Recipe(bundle.spec.front, target.copies)
    folder = features.prepare(target.frame, recipe, target.out, target.cluster, 1.0, args.verbose)
    leaks += _heard(frame, bundle, folder)
    _refuse(leaks, allowed)
    for text in notes:
        note(f"note: {text}")
    held = validated.relabelled(shards.load(folder, bundle.spec.front, args.split), frame)
    scored = score(bundle, held)
    if len(scored.clips) < len(frame):
        note(f"{len(frame) - len(scored.clips)} of {len(frame)} clips gave no sound and are not scored: see {folder}")
    judgement = judge(bundle, scored, rules[0] if rules else "")
    val, reason = validated.scored(bundle, target.frame, folder, relabel) if judgement.kind == "multi" else (None, "")
    if reason:
        note(f"note: {reason}: no thresholds are fitted on it")
    rows = protocols.table(bundle, scored, rules or (judgement.rule,), val)
    evaluation = _evaluate(bundle, args.bundle, scored, judgement, leaks, held)
    evaluation = replace(evaluation, protocols=[asdict(row) for row in rows])
    page = build.build(evaluation, args.out)
    _record(args.bundle, target, evaluation, args.out)
    _summary(evaluation)
    return page.parent


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


def _of_split(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    chosen = frame[frame["split"] == name]
    if chosen.empty:
        there = ", ".join(sorted(set(frame["split"]))) or "none"
        raise DataError(f"expected clips of the split {name!r}, the data has: {there}; choose one with --split")
    return chosen


def _leaks(frame: pd.DataFrame, bundle: Bundle) -> list[str]:
    """What of this data the bundle has learnt from: its recordings by name, its files by content; or that the bundle
    was made of leaky data itself."""
    trained = bundle.spec.trained
    found = [f"the bundle was trained on leaky data ({trained.leaky})"] if trained.leaky else []
    groups = manifest.group_keys(frame) & set(trained.group_keys)
    if groups:
        found.append(f"{len(groups)} of {len(manifest.group_keys(frame))} groups were trained on")
    known = set(trained.clip_hashes)
    n_files = int(frame["sha256"].map(lambda h: bool(h) and h[:16] in known).sum())
    if n_files:
        found.append(f"{n_files} of {len(frame)} clips are byte for byte in the training data")
    return found


def _heard(frame: pd.DataFrame, bundle: Bundle, folder: Path) -> list[str]:
    """What the bundle has heard under another name and in another container; known files are said already."""
    files, samples = set(bundle.spec.trained.clip_hashes), set(bundle.spec.trained.sample_hashes)
    new = set(frame.loc[~frame["sha256"].str[:16].isin(files), "clip_id"])
    n = sum(name in new and hash_ in samples for name, hash_ in audit.hashes_of(audit.prints_of(folder)).items())
    return [f"{n} of {len(frame)} clips are sample for sample in the training data"] if n else []


def _refuse(leaks: list[str], allowed: bool) -> None:
    if leaks and not allowed:
        raise DataError(
            f"{'; '.join(leaks)}: a score on it would flatter the model; evaluate on other recordings (a CONFIG's own "
            "test split is one), or give --allow-leaks to have it labelled LEAKY"
        )


def _evaluate(
    bundle: Bundle, path: Path, scored: Scored, judgement: Judgement, leaks: list[str], held: Features
) -> Evaluation:
    labels, clips = bundle.spec.labels, scored.clips
    corpus = str(clips["corpus"].iloc[0])
    return Evaluation(
        title=f"{bundle.spec.model.name} on {corpus}",
        kind=judgement.kind,
        labels=labels,
        metrics=judgement.metrics(),
        bundle=str(path),
        fingerprint=bundle.fingerprint,
        model=bundle.spec.model.name,
        n_parameters=n_parameters(bundle.network),
        corpus=corpus,
        split=str(held.clips["split"][0]),
        n_clips=len(clips),
        n_groups=clips["group"].nunique(),
        leaky=bool(leaks),
        leak_reasons=leaks,
        drift=compare(bundle.spec.profile, clips["measures"].tolist()),
        belief=belief(bundle, scored, judgement),
        clips=_rows(bundle, scored, judgement),
        history=_history(path),
        features=_examples(held, labels),
    )


def _rows(bundle: Bundle, scored: Scored, judgement: Judgement) -> list[ClipResult]:
    answered = bundle.answers(scored.scores).tolist()
    rows = zip(scored.clips.to_dict("records"), judgement.decided, scored.scores, answered, strict=True)
    return [
        ClipResult(
            row["clip_id"],
            row["uri"],
            row["group"],
            true=row["labels"],
            predicted=labels,
            score=float(scores.max()),
            scores=scores.tolist(),
            drift=bundle.drift(row["measures"]),
            answered=yes,
        )
        for row, labels, scores, yes in rows
    ]


def _history(bundle: Path) -> list[dict[str, Any]]:
    path = bundle.parent / "history.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _examples(held: Features, labels: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """One picture a class: its first clip."""
    values = next(iter(held.values.values()))
    first = {names[0]: row for row, names in reversed(list(enumerate(held.clips["labels"])))}
    own = [None] * len(values) if held.frames is None else held.frames.tolist()
    return {k: values[first[k]][:, : own[first[k]]].astype(np.float32) for k in labels if k in first}


def _record(bundle: Path, target: Target, evaluation: Evaluation, out: Path) -> None:
    """Into the MLflow run of the bundle's training, where that is known."""
    home = bundle.absolute().parent
    if not (home / "tracking.jsonl").is_file():
        return
    numbers = {k: float(v) for k, v in evaluation.metrics.items() if isinstance(v, int | float)}
    with Tracker(target.tracking, home, target.out, home.name) as tracker:
        tracker.metrics(0, {f"{evaluation.split}_{k}": v for k, v in numbers.items()})
        said = f"leaky: {'; '.join(evaluation.leak_reasons)}" if evaluation.leaky else "clean"
        tracker.tags({f"{evaluation.split}_audit": said})
        tracker.artifacts(shutil.copytree(out, home / "reports" / evaluation.split, dirs_exist_ok=True), "report")
    if tracker.pending:
        note(f"{tracker.pending} tracked lines wait for MLflow; push them with jobs/sync.py {target.out}")


def _summary(evaluation: Evaluation) -> None:
    names = (
        ("accuracy", "balanced_accuracy", "macro_f1")
        if evaluation.kind == "single"
        else ("micro_f1", "macro_f1", "lrap")
    )
    metrics = dict(evaluation.metrics)
    figures = ", ".join(f"{name.replace('_', ' ')} {told(metrics, name)}" for name in names)
    alone = "" if metrics["intervals"] else "; one group says nothing of others: no intervals"
    if metrics["absent"]:
        note(f"note: no clip of {', '.join(metrics['absent'])}: averages are over the other classes")
    for text in (evaluation.drift or {}).get("warnings", ()):
        note(f"warning: {text}")
    kind = "LEAKY" if evaluation.leaky else "held-out"
    result(
        f"{kind} ({evaluation.n_clips} clips, {evaluation.n_groups} groups, split {evaluation.split}): {figures}{alone}"
    )
    if "answers" in metrics:
        told_ = "of {n} clips that get an answer (coverage {coverage:.3f}), {risk:.3f} of the labels are wrong"
        result(told_.format(**metrics["answers"]))
    for row in evaluation.protocols if len(evaluation.protocols) > 1 else ():
        result(_said(row))


def _said(row: Mapping[str, Any]) -> str:
    """mean, oracle threshold 0.241 (chosen on these clips): micro f1 0.612 (0.58 to 0.64), ..."""
    one = "" if row["threshold"] is None else f" {row['threshold']:.3g}"
    chosen = " (chosen on these clips)" if row["thresholds"] == "oracle" else ""
    how = f", {row['thresholds']} threshold{one or 's'}{chosen}" if row["thresholds"] else ""
    figures = [f"{name.replace('_', ' ')} {told({**row['figures'], **row}, name)}" for name in row["figures"]]
    return f"{row['rule']}{how}: {', '.join(figures)}"
