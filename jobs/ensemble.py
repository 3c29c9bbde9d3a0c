"""Several trained bundles as one: soft, weighted, greedy or stacked, whichever is best on groups left out.

python jobs/ensemble.py BUNDLE1 BUNDLE2 configs/smoke.yaml --out runs/ensemble --method greedy
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    said = "bundles, studies (their trials), runs (their snapshots); then the CONFIG whose validation split decides"
    parser.add_argument("words", metavar="BUNDLE|STUDY|RUN ... CONFIG k=v", nargs="+", help=said)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the ensemble")
    parser.add_argument("--method", default="best", help="best (default), soft, weighted, greedy or stacking")
    return cli.run_ensemble(cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
