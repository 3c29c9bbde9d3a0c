"""Decide anew from what a tagging kept: other thresholds, another head, other formats; nothing is decoded.

python jobs/retag.py TAGS --threshold 0.4 --to TAGS2
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("out", metavar="OUT", help="what jobs/tag.py made")
    parser.add_argument("--to", required=True, help="the folder of the new decisions")
    said = "what a score must reach, of every label; where a clip has one label, the best score"
    parser.add_argument("--threshold", type=float, help=said)
    parser.add_argument("--thresholds", type=Path, metavar="FILE.json", help='{"label": threshold}')
    said = "train a new head on these: the folder of jobs/review.py, or a CSV with uri, start_s, stop_s and label"
    parser.add_argument("--labels", type=Path, metavar="LABELS", help=f"{said}; TAGS need --embeddings")
    parser.add_argument("--format", default="", help="csv, jsonl, audacity, raven, sidecar, day, prefix; by commas")
    return cli.run_pipeline("retag", parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
