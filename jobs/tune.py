"""Search over fields of an experiment; every trial is the worker of jobs/train.py.

python jobs/tune.py configs/smoke.yaml train.epochs=3
"""

import sys

from pipelines import cli


def main() -> int:
    args = cli.arguments(cli.experiment_parser(__doc__))
    return cli.run_experiment(args, "tune")


if __name__ == "__main__":
    sys.exit(main())
