"""What a bundle says of some files: a table, or JSON lines.

python jobs/predict.py BUNDLE song.wav other.flac --json
python jobs/predict.py --match FEATURES.npy song.wav
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="the folder of a trained bundle")
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*", help="sound files")
    names = ("FEATURES.npy", "AUDIO")
    parser.add_argument("--match", nargs=2, type=Path, metavar=names, help="which parameters made these spectrograms?")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    args = cli.arguments(parser)
    if not args.match and not args.files:
        parser.error("expected BUNDLE and FILE, or --match FEATURES.npy AUDIO")
    return cli.run_pipeline("predict", args)


if __name__ == "__main__":
    sys.exit(main())
