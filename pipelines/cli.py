"""What all jobs share on the command line: arguments, error lines, exit codes.

Exit codes: 0 all of it worked, 1 the job failed, 2 a mistake in what was asked, 130 interrupted by Ctrl-C,
143 stopped by SIGTERM.
"""

import argparse
import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from instrunet.data import places
from instrunet.errors import ConfigError, InstrunetError
from pipelines.console import note
from pipelines.journal import clean

LONGEST_LINE = 300
BUNDLE_FILE = "bundle.json"  # as in instrunet/bundle.py, which takes a second to import
STOPPED = 128 + signal.SIGTERM


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("-v", "--verbose", action="store_true", help="show all that Ray and MLflow say, and tracebacks")
    return made


def experiment_parser(doc: str | None) -> argparse.ArgumentParser:
    """CONFIG and its overrides, as most jobs take them."""
    made = parser(doc)
    made.add_argument("config", metavar="CONFIG", help="a YAML file of configs/")
    made.add_argument(
        "overrides", nargs="*", metavar="k=v", help="fields to change, e.g. train.epochs=3 data.root=FOLDER"
    )
    made.add_argument("--print-config", action="store_true", help="show every field as resolved, and stop")
    return made


def evaluation_parser(doc: str | None) -> argparse.ArgumentParser:
    """BUNDLE and what to score it on, or CONFIG and how to judge it."""
    made = parser(doc)
    made.add_argument("bundle", metavar="BUNDLE|CONFIG", type=Path, help="a trained bundle, or the recipe to judge")
    said = "what to score BUNDLE on; before it, further BUNDLEs to compare it with"
    made.add_argument("target", metavar="[BUNDLE ...] CONFIG|MANIFEST|FOLDER", nargs="?", help=said)
    made.add_argument("overrides", nargs="*", metavar="k=v", help="fields of CONFIG to change")
    made.add_argument("--out", type=Path, required=True, help="the folder of the report")
    made.add_argument("--split", default="test", help="train, val, test (default) or official")
    made.add_argument("--allow-leaks", action="store_true", help="score data the bundle has seen, labelled LEAKY")
    made.add_argument(
        "--aggregate",
        default="",
        metavar="RULE,...",
        help="from windows to clips: mean,sum_normalised,max,vote,max_mean",
    )
    made.add_argument("--map", action="append", default=[], metavar="OLD=NEW", help="what BUNDLE calls a label")
    made.add_argument("--ignore", action="append", default=[], metavar="LABEL", help="take a label off the clips")
    recipes = made.add_mutually_exclusive_group()
    recipes.add_argument(
        "--leak-premium", action="store_true", help="train CONFIG on a split at random and on one by group; compare"
    )
    recipes.add_argument(
        "--folds", type=int, metavar="K", help="train CONFIG K times, so that each group is tested once"
    )
    return made


def run_evaluation(args: argparse.Namespace) -> int:
    """`pipelines/recipe.py:run` where CONFIG is judged, `pipelines/evaluate.py:run` where a BUNDLE is."""

    def whole() -> Path | None:
        pipeline = "recipe" if args.leak_premium or args.folds is not None else "evaluate"
        (_check_recipe if pipeline == "recipe" else _check_bundle)(args)
        made: Path = importlib.import_module(f"pipelines.{pipeline}").run(args)
        return made

    return run(whole, args.verbose)


def _check_recipe(args: argparse.Namespace) -> None:
    """CONFIG stands where a BUNDLE would; what follows it are overrides."""
    asked = "--leak-premium" if args.leak_premium else "--folds"
    if args.bundle.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{asked} trains and judges a CONFIG (.yaml), got {args.bundle}; leave BUNDLE out")
    given = {"--allow-leaks": args.allow_leaks, "--split": args.split != "test", "--aggregate": args.aggregate}
    given |= {"--map": args.map, "--ignore": args.ignore}
    for option in (name for name, value in given.items() if value):
        raise ConfigError(f"{option} goes with a BUNDLE, not with {asked}: the test split of each training is scored")
    args.overrides = [word for word in (args.target, *args.overrides) if word is not None]


def _check_bundle(args: argparse.Namespace) -> None:
    if args.target is None:
        raise ConfigError(
            f"expected a CONFIG, MANIFEST or FOLDER to score {args.bundle} on, got none; name one, or judge a CONFIG "
            "with --leak-premium or --folds K"
        )
    args.rivals = []
    while args.overrides and (Path(args.target) / BUNDLE_FILE).is_file():
        args.rivals.append(Path(args.target))
        args.target = args.overrides.pop(0)
    args.target = places.asked(args.target)


def run_experiment(args: argparse.Namespace, pipeline: str, **more: Any) -> int:
    """Run `pipelines/<pipeline>.py:run` on CONFIG; imported after CONFIG is read, so that a typo waits for nothing."""

    def whole() -> Path | None:
        from instrunet import experiment  # the whole library, which prediction has no need of: 0.8 s

        loaded = experiment.load(args.config, args.overrides)
        if args.print_config:
            text = yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            sys.stdout.write(clean(text))  # tracking.uri may hold a password
            return None
        made: Path = importlib.import_module(f"pipelines.{pipeline}").run(loaded, args.verbose, **more)
        return made

    return run(whole, args.verbose)


def run_ensemble(args: argparse.Namespace) -> int:
    """`pipelines/ensemble.py:run` on BUNDLE ... CONFIG k=v."""

    def whole() -> Path | None:
        at = [k for k, word in enumerate(args.words) if word.endswith((".yaml", ".yml"))]
        if not at:
            raise ConfigError("expected a CONFIG (.yaml) behind the bundles, got none; its validation split decides")
        args.bundles = [Path(word) for word in args.words[: at[0]]]
        args.config, args.overrides = args.words[at[0]], args.words[at[0] + 1 :]
        made: Path = importlib.import_module("pipelines.ensemble").run(args)
        return made

    return run(whole, args.verbose)


def run_pipeline(pipeline: str, args: argparse.Namespace) -> int:
    """Run `pipelines/<pipeline>.py:run` on what the command line said."""

    def whole() -> Path | None:
        made: Path | None = importlib.import_module(f"pipelines.{pipeline}").run(args)
        return made

    return run(whole, args.verbose)


def run(work: Callable[[], Path | None], verbose: bool) -> int:
    """Do the work; its path, if it made one, is the last line of stdout."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)  # until Ray or a training sets its own, and while files are listed
    try:
        made = work()
    except InstrunetError as error:
        return _tell(error, error.exit_code, verbose)
    except (KeyboardInterrupt, SystemExit) as end:  # Ray Train answers Ctrl-C with an exit of its own
        stopped = isinstance(end, SystemExit) and end.code in (signal.SIGTERM, STOPPED)  # Ray's own answer, and ours
        how = "stopped" if stopped else "interrupted"
        note(f"{how}; what was finished is kept, the same command goes on from there")
        return STOPPED if stopped else 130
    except Exception as error:  # the last handler: whatever it was, one line and the exit code of a failed job
        return _tell(error, 1, verbose)
    if made is not None:
        sys.stdout.write(f"{made}\n")
    return 0


def _leave(number: int, frame: object) -> NoReturn:
    del number, frame
    raise SystemExit(STOPPED)


def arguments(made: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse; overrides may stand on either side of an option."""
    return made.parse_intermixed_args(argv)


def own_options(made: argparse.ArgumentParser, options: dict[str, int]) -> argparse.Namespace:
    """For a job that hands arguments on: our options ({name: how many values}) are ours wherever they stand."""
    mine, rest = [], []
    words = iter(sys.argv[1:])
    for word in words:
        name, _, value = word.partition("=")
        if word == "--":
            rest += list(words)
        elif name in options:
            mine += [word, *(next(words, "") for _ in range(options[name] if not value else 0))]
        else:
            rest.append(word)
    return made.parse_args([*mine, *rest])


def _tell(error: Exception, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    if isinstance(error, InstrunetError):
        note(f"error: {' '.join(str(error).split())}")
        return code
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1][:LONGEST_LINE] if lines else ""  # of a traceback from another process, the line that tells
    note(f"error: {type(error).__name__}: {last} (run with -v for the whole story)")
    return code
