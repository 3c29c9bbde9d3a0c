"""From tags to clips that are worth a label; one process, as it reads a hundred seconds of sound."""

import argparse
from pathlib import Path

from instrunet.archive import review, runs, sources
from instrunet.audio.isolated import Decoder
from instrunet.bundle import Bundle, read_spec
from instrunet.data import parts, places
from instrunet.errors import ConfigError, DataError
from instrunet.report import review as page
from instrunet.rule import Rule
from pipelines.console import result


def run(args: argparse.Namespace) -> Path:
    out, to = places.asked(args.out).absolute(), args.to.absolute()
    if args.n < 1:
        raise ConfigError(f"--n is how many clips to pick, 1 or more; got {args.n}")
    if to.exists():
        raise DataError(f"expected a new folder, found {to}; labels may lie there: choose another --to")
    found = [run for run in (out / name for name in runs.each(out)) if parts.is_done(run)]
    if not found:
        raise DataError(f"expected the finished tags of jobs/tag.py at {out}, found no {parts.DONE}; tag to the end")
    latest = [run for run in found if run.parent == found[-1].parent]  # of one bundle: scores of others do not compare
    spec = read_spec(latest[-1])
    windows = review.pick(latest, args.n, Rule(spec), _members(args.bundle, spec.fingerprint()))
    root = sources.root(parts.read_json(latest[-1] / parts.PLAN)["archive"])
    with Decoder() as decoder:
        parts.publish_folder(to, lambda aside: _write(aside, windows, Rule(spec), root, decoder))
    result(f"{len(windows)} clips to label; save metadata.csv beside the page")
    made: Path = to / page.PAGE
    return made


def _members(path: Path | None, of_tags: str) -> review.Members | None:
    if path is None:
        return None
    bundle = Bundle.load(path)
    if bundle.fingerprint != of_tags:
        raise DataError(f"expected the bundle {of_tags} that made these tags, got {bundle.fingerprint} at {path}")
    return review.members_of(bundle)


def _write(folder: Path, windows: list[review.Window], rule: Rule, root: str, decoder: Decoder) -> None:
    if not page.write(folder, windows, rule.spec, root, decoder.read):
        raise DataError("none of the recordings can be read any more, the first is " + windows[0].uri)
