"""Score a bundle on clips it has not learnt from: index.html, metrics.json, clips.parquet. Or judge a recipe anew.

python jobs/evaluate.py BUNDLE configs/smoke.yaml --out REPORT     the held-out test split of a configuration
python jobs/evaluate.py BUNDLE FOLDER --out REPORT                 other recordings: metadata.csv or IRMAS's layout
python jobs/evaluate.py BUNDLE BUNDLE FOLDER --out REPORT          is the second better than the first?
python jobs/evaluate.py configs/smoke.yaml --folds 5 --out FOLDS   all groups tested once: folds.json, scores.parquet
python jobs/evaluate.py configs/smoke.yaml --leak-premium --out P  what a split at random would flatter: premium.json
"""

import sys

from pipelines import cli


def main() -> int:
    return cli.run_evaluation(cli.arguments(cli.evaluation_parser(__doc__)))


if __name__ == "__main__":
    sys.exit(main())
