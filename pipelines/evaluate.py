"""Evaluation: a bundle on clips it has not learnt from, by voting over windows, as a report one can open."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet import protocols
from instrunet.audio.io import Sound
from instrunet.audio.isolated import Decoder, Limits
from instrunet.bundle import Bundle
from instrunet.data import places
from instrunet.data.relabel import Relabel
from instrunet.drift import compare
from instrunet.experiment import ClusterSpec
from instrunet.features.measures import NAMES
from instrunet.features.shards import Features
from instrunet.metrics import voting
from instrunet.metrics.slices import Slice, slices
from instrunet.models import n_parameters
from instrunet.report import build, pictures
from instrunet.report.evaluation import ClipResult, Evaluation, Why
from instrunet.report.shown import why
from instrunet.scoring import MAIN, Judgement, Scored, belief, told
from pipelines import sides, validated
from pipelines.console import note, result
from pipelines.sides import Side, Target
from pipelines.tracking import Tracker

NUMBERS = {"length in s": "duration_s", "level in dBFS": "level_db"}  # by which scores are told apart


def run(args: argparse.Namespace) -> Path:
    """Score `args.bundle`, and rivals beside it, on `args.target`, and write the report into `args.out`."""
    pictures.require()
    build.check_folder(args.out)
    rules, relabel = voting.asked(args.aggregate), Relabel.parse(args.map, args.ignore)
    bundles = [(path, Bundle.load(path)) for path in (args.bundle, *args.rivals)]
    target = sides.resolve(args.target, args.overrides)
    places.need_disk(target.out, "evaluation")
    asked = sides.Question(
        target,
        sides.of_split(target.frame, args.split),
        relabel,
        args.allow_leaks or target.allow_leaks,
        rules[0] if rules else "",
        args.verbose,
    )
    first, *others = (sides.side(path, bundle, asked) for path, bundle in bundles)
    sides.check_comparable([first, *others])
    evaluation = replace(
        evaluated(first, target.cluster),
        protocols=_protocols(first, asked, rules),
        rivals=[sides.beside(first, other) for other in others],
    )
    page = build.build(evaluation, args.out)
    _record(args.bundle, target, evaluation, args.out)
    _summary(evaluation)
    return page.parent


def _protocols(first: Side, asked: sides.Question, rules: tuple[str, ...]) -> list[dict[str, Any]]:
    """The first rule decides; thresholds are fitted on validation clips where the task has any."""
    val = None
    if first.judgement.kind == "multi":
        val, reason = validated.scored(first.bundle, asked.target.frame, first.folder, asked.relabel)
        if reason:
            note(f"note: {reason}: no thresholds are fitted on it")
    rows = protocols.table(first.bundle, first.scored, rules or (first.judgement.rule,), val)
    return [asdict(row) for row in rows]


def evaluated(side: Side, cluster: ClusterSpec) -> Evaluation:
    """All that a report says of one bundle's scores."""
    bundle, scored, judgement = side.bundle, side.scored, side.judgement
    labels, clips = bundle.spec.labels, scored.clips
    corpus, rows = str(clips["corpus"].iloc[0]), _rows(bundle, scored, judgement)
    return Evaluation(
        title=f"{bundle.spec.model.name} on {corpus}",
        kind=judgement.kind,
        labels=labels,
        metrics=judgement.metrics(),
        bundle=str(side.path),
        fingerprint=bundle.fingerprint,
        model=bundle.spec.model.name,
        n_parameters=n_parameters(bundle.network),
        corpus=corpus,
        split=str(side.held.clips["split"][0]),
        n_clips=len(clips),
        n_groups=clips["group"].nunique(),
        leaky=bool(side.leaks),
        leak_reasons=side.leaks,
        drift=compare(bundle.spec.profile, clips["measures"].tolist()),
        belief=belief(bundle, scored, judgement),
        clips=rows,
        history=_history(side.path),
        features=_examples(side.held, labels),
        why=_why(side, rows, cluster),
        slices=_slices(side),
    )


def _slices(side: Side) -> list[Slice]:
    clips, judgement = side.scored.clips, side.judgement
    traits = dict(zip(side.frame["clip_id"], side.frame["traits"], strict=True))
    own = [list(traits[name]) if traits[name] is not None else [] for name in clips["clip_id"]]
    measured = np.array(clips["measures"].tolist())
    numbers = {said: measured[:, NAMES.index(name)] for said, name in NUMBERS.items()}
    return slices(judgement.judged, len(judgement.labels), MAIN[judgement.kind], own, numbers)


def _why(side: Side, clips: Sequence[ClipResult], cluster: ClusterSpec) -> Why:
    places_of = side.frame.set_index("clip_id")[["uri", "start_s", "n_bytes"]].to_dict("index")
    with Decoder(Limits(wait_s=cluster.decode_wait_s)) as decoder:

        def read(clip_id: str, rate: int, start_s: float, stop_s: float) -> Sound:
            row = places_of[clip_id]
            with places.sound(row["uri"]) as path:
                return decoder.read(path, rate, row["start_s"] + start_s, row["start_s"] + stop_s)

        return why(side.bundle, side.held, clips, read)


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
    first = {names[0]: row for row, names in reversed(list(enumerate(held.clips["labels"]))) if names}
    own = [None] * len(values) if held.frames is None else held.frames.tolist()
    return {k: values[first[k]][:, : own[first[k]]].astype(np.float32) for k in labels if k in first}


def _record(bundle: Path, target: Target, evaluation: Evaluation, out: Path) -> None:
    """Into the MLflow run of the bundle's training, where that is known."""
    home = bundle.absolute().parent
    if not (home / "tracking.jsonl").is_file():
        return
    numbers = _numbers(evaluation)
    with Tracker(target.tracking, home, target.out, home.name) as tracker:
        tracker.metrics(0, {f"{evaluation.split}_{k}": v for k, v in numbers.items()})
        said = f"leaky: {'; '.join(evaluation.leak_reasons)}" if evaluation.leaky else "clean"
        tracker.tags({f"{evaluation.split}_audit": said})
        tracker.artifacts(shutil.copytree(out, home / "reports" / evaluation.split, dirs_exist_ok=True), "report")
    if tracker.pending:
        note(f"{tracker.pending} tracked lines wait for MLflow; push them with jobs/sync.py {target.out}")


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    """Figures, the ends of their intervals, and of each rival, named by its fingerprint, figures and gains."""
    found = {k: float(v) for k, v in evaluation.metrics.items() if isinstance(v, int | float)}
    rows = dict(evaluation.metrics["intervals"].items())
    for one in evaluation.rivals:
        rival = f"rival_{one['fingerprint'][:8]}"
        found |= {f"{rival}_{name}": value for name, (value, *_) in one["figures"].items()}
        found |= {f"{rival}_{name}_gain": gain for name, (gain, *_) in one["gain"].items()}
        rows |= {f"{rival}_{name}_gain": limits for name, (_, *limits) in one["gain"].items()}
    ends = {f"{k}_{end}": v for k, limits in rows.items() for end, v in zip(("low", "high"), limits, strict=True)}
    return found | ends


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
    main = MAIN[evaluation.kind]
    for one in evaluation.rivals:
        (value, *_), (gain, low, high) = one["figures"][main], one["gain"][main]
        how = "better" if low > 0 else "worse" if high < 0 else "within noise"
        note(f"{one['bundle']}: {main.replace('_', ' ')} {value:.3f}, {gain:+.3f} ({low:+.2f} to {high:+.2f}): {how}")
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
