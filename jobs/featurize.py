"""Decode and featurize a corpus: manifest, split, features in a folder named by their content.

python jobs/featurize.py configs/smoke.yaml train.epochs=3
"""

import sys

from pipelines import cli


def main() -> int:
    args = cli.arguments(cli.experiment_parser(__doc__))
    return cli.run_experiment(args, "features")


if __name__ == "__main__":
    sys.exit(main())
