"""New decisions from stored scores, or from stored embeddings by a new head; no Ray, as one core reads a million
recordings in minutes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instrunet.archive import exports, retag, runs, sources
from instrunet.bundle import read_spec
from instrunet.data import parts, places
from instrunet.errors import ConfigError, DataError, JobError
from pipelines.console import note, result

Decide = Callable[[Path, Path], dict[str, Any]]  # from OUT to TO: the ledger


def run(args: argparse.Namespace) -> Path:
    out, to = (places.asked(text).absolute() for text in (args.out, args.to))
    formats = exports.asked(args.format, to)
    if sum(asked is not None for asked in (args.threshold, args.thresholds, args.labels)) > 1:
        raise ConfigError(
            "expected one of --threshold, --thresholds and --labels; decide again on what one of them made"
        )
    if out == to:
        raise ConfigError(f"--to must be another folder than {out}, whose decisions stay")
    names = runs.each(out) or [Path()]  # where there is none, the refusal says what was expected
    if args.labels:
        names = [name for name in names if name.parent == names[-1].parent]  # embeddings of others do not compare
        decide = _by_head([out / name for name in names], args.labels)
    else:
        of_label = None if args.thresholds is None else parts.read_json(args.thresholds)
        decide = lambda one, other: retag.run(one, other, args.threshold, of_label)  # noqa: E731
    for name in names:
        _one(out / name, to / name, decide, formats)
    return to


def _by_head(tags: list[Path], labels: Path) -> Decide:
    from instrunet.archive import rehead  # pandas and scikit-learn: 1.5 s that other decisions need not wait for

    for one in tags:
        if not parts.is_done(one):
            raise DataError(
                f"expected the finished tags of jobs/tag.py at {one}, found no {parts.DONE}; tag to the end"
            )
    spec = read_spec(tags[-1])
    known = rehead.examples(tags, rehead.read_labels(labels), spec)
    head, score = rehead.Head.fitted(known.points, known.truth, spec.kind), rehead.held_out(known, spec.kind)
    told = (
        "labels of one recording: nothing to hold out" if score is None else f"{score:.3f} balanced accuracy held out"
    )
    result(f"a head of {len(known.labels)} labels from {len(known.points)} windows: {told}")
    return lambda one, other: rehead.run(one, other, head, known.labels)


def _one(out: Path, to: Path, decide: Decide, formats: list[str]) -> None:
    done = parts.is_done(to)
    ledger = decide(out, to)
    if not ledger["closed"]:
        raise JobError(f"the books of {out} do not close: tag it again")
    exports.write(to, formats, read_spec(to), sources.root(parts.read_json(out / parts.PLAN)["archive"]))
    parts.finish(to)
    if done:
        note(f"{to} is done")
    else:
        result(f"decided anew on {ledger['files']['in']} files; {ledger['no_answer']} without an answer")
