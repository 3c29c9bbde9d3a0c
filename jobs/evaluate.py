"""Score a bundle on clips it has not learnt from; writes metrics.json and index.html.

python jobs/evaluate.py BUNDLE configs/smoke.yaml --out REPORT     the held-out test split of a configuration
python jobs/evaluate.py BUNDLE FOLDER --out REPORT                 other recordings: metadata.csv or IRMAS's layout
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a trained bundle")
    parser.add_argument("target", metavar="CONFIG|MANIFEST|FOLDER", type=Path, help="what to score it on")
    parser.add_argument("overrides", nargs="*", metavar="k=v", help="fields of CONFIG to change")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the report")
    parser.add_argument("--split", default="test", help="train, val, test (default) or official")
    parser.add_argument("--allow-leaks", action="store_true", help="score data the bundle has seen, labelled LEAKY")
    return cli.run_pipeline("evaluate", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
