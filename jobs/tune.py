"""Search over fields of an experiment; every trial is the worker of jobs/train.py.

python jobs/tune.py configs/tune/smoke.yaml tune.samples=8
"""

import sys

from pipelines import cli


def main() -> int:
    parser = cli.experiment_parser(__doc__)
    parser.add_argument("--resume", action="store_true", help="go on with a study; without it, begin or go on")
    args = cli.arguments(parser)
    return cli.run_experiment(args, "tune", resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
