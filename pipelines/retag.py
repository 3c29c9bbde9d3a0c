"""New decisions from stored scores; no Ray, as one core reads a million recordings in minutes."""

import argparse
from pathlib import Path

from instrunet.archive import exports, retag, runs, sources
from instrunet.bundle import read_spec
from instrunet.data import parts, places
from instrunet.errors import ConfigError, JobError
from pipelines.console import note, result


def run(args: argparse.Namespace) -> Path:
    out, to = (places.asked(text).absolute() for text in (args.out, args.to))
    formats = exports.asked(args.format)
    if args.threshold is not None and args.thresholds is not None:
        raise ConfigError("expected --threshold or --thresholds, got both; name every label in the file")
    if out == to:
        raise ConfigError(f"--to must be another folder than {out}, whose decisions stay")
    of_label = None if args.thresholds is None else parts.read_json(args.thresholds)
    for name in runs.each(out) or [Path()]:  # where there is none, the refusal says what was expected
        _one(out / name, to / name, args.threshold, of_label, formats)
    return to


def _one(out: Path, to: Path, threshold: float | None, of_label: dict[str, float] | None, formats: list[str]) -> None:
    done = parts.is_done(to)
    ledger = retag.run(out, to, threshold, of_label)
    if not ledger["closed"]:
        raise JobError(f"the books of {out} do not close: tag it again")
    exports.write(to, formats, read_spec(to), sources.root(parts.read_json(out / parts.PLAN)["archive"]))
    parts.finish(to)
    if done:
        note(f"{to} is done")
    else:
        result(f"decided anew on {ledger['files']['in']} files; {ledger['no_answer']} without an answer")
