"""Pick the windows of a tagged archive that are most worth a label, to be heard and named on a page.

python jobs/review.py TAGS --to LABELS
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("out", metavar="OUT", help="what jobs/tag.py made; with --embeddings picks are more diverse")
    parser.add_argument("--to", type=Path, required=True, help="the folder of clips and page")
    parser.add_argument("--n", type=int, default=100, help="how many clips")
    said = "the ensemble that made OUT with --embeddings: pick also what its members disagree about"
    parser.add_argument("--bundle", type=Path, help=said)
    return cli.run_pipeline("review", parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
