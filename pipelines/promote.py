"""From challenger to champion: the alias moves where the challenger is shown to be no worse on given clips."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import instrunet
from instrunet.data import places
from instrunet.data.relabel import Relabel
from instrunet.errors import ConfigError, JobError
from instrunet.scoring import MAIN
from pipelines import registry, sides
from pipelines.console import note, result

CHALLENGER, CHAMPION = "challenger", "champion"


def run(args: argparse.Namespace) -> None:
    """Compare both on `args.target`, group by group in pairs, and move the alias or say why not."""
    if not args.margin >= 0:
        raise ConfigError(f"--margin is how much worse is still as good, 0 or more; got {args.margin:g}")
    models = registry.Models(args.name)
    challenger, champion = models.version(CHALLENGER), models.version(CHAMPION)
    if challenger is None:
        raise ConfigError(f"{args.name} has no version with the alias {CHALLENGER}; jobs/train.py registers one")
    if champion == challenger:
        result(f"version {challenger} of {args.name} is {CHAMPION} already")
        return
    if champion is None:
        note(f"note: {args.name} had no {CHAMPION}: nothing to compare with")
    else:
        _compare(args, champion, challenger)
    models.move(CHAMPION, challenger)
    result(f"version {challenger} of {args.name} is {CHAMPION} now")


def _compare(args: argparse.Namespace, champion: str, challenger: str) -> None:
    target = sides.resolve(places.asked(args.target), args.overrides)
    frame = sides.of_split(target.frame, args.split)
    asked = sides.Question(target, frame, Relabel.parse([], []), target.allow_leaks, "", args.verbose)
    with TemporaryDirectory(prefix="instrunet-") as folder:
        found = []
        for version in (champion, challenger):
            home = Path(folder) / version
            home.mkdir()
            bundle = instrunet.load(registry.fetched(f"models:/{args.name}/{version}", home))
            found.append(sides.side(Path(f"{args.name}/{version}"), bundle, asked))
    sides.check_comparable(found)
    told = sides.beside(*found)
    name = MAIN[found[0].judgement.kind]
    value, low, high = told["gain"][name]
    words = f"{name.replace('_', ' ')} {value:+.3f} ({low:+.3f} to {high:+.3f}) on {told['n_clips']} clips"
    result(f"version {challenger} beside version {champion}: {words}")
    if low < -args.margin:
        raise JobError(
            f"version {challenger} of {args.name} may be worse than the {CHAMPION}, version {champion}: {words}, and "
            f"{args.margin:g} lower is allowed; the alias stays. More clips narrow the interval, --margin allows more"
        )
