"""Fit what a trained bundle decides by: probabilities that hold, thresholds, and when to give no answer.

python jobs/calibrate.py BUNDLE configs/smoke.yaml --out BUNDLE2 --max-risk 0.05
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a trained bundle")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="its validation split is fitted on")
    parser.add_argument("overrides", nargs="*", metavar="k=v", help="fields of CONFIG to change")
    parser.add_argument("--out", type=Path, required=True, help="where the new bundle goes")
    methods = ("temperature", "isotonic")
    parser.add_argument("--method", choices=methods, default=methods[0], help="one number, or a curve for each label")
    parser.add_argument(
        "--thresholds", default="", metavar="RULE", help="f1, precision=0.9 or recall=0.8, a label each"
    )
    parser.add_argument("--max-risk", type=float, metavar="SHARE", help="answer only where fewer labels are wrong")
    return cli.run_pipeline("calibrate", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
