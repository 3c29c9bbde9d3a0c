"""Train a classifier; featurizes first if needed. Prints the folder of the bundle.

python jobs/train.py configs/smoke.yaml train.epochs=3
"""

import sys

from pipelines import cli


def main() -> int:
    args = cli.arguments(cli.experiment_parser(__doc__))
    return cli.run_experiment(args, "train")


if __name__ == "__main__":
    sys.exit(main())
