"""What a bundle says of some files: a table, or JSON lines.

python jobs/predict.py BUNDLE song.wav other.flac --json
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a trained bundle")
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="sound files")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    return cli.run_pipeline("predict", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
