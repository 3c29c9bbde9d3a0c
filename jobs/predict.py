"""What a bundle says of some files: a table, or JSON lines. `-` reads a list of them from stdin.

python jobs/predict.py BUNDLE song.wav other.flac --json
find ARCHIVE -name '*.flac' | python jobs/predict.py models:/instruments@champion - --picture PICTURES
python jobs/predict.py --match FEATURES.npy song.wav
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a trained bundle: folder, URL, models:/ or runs:/")
    parser.add_argument("files", metavar="FILE", nargs="*", help="sound files or their URLs; - is a list on stdin")
    names = ("FEATURES.npy", "AUDIO")
    parser.add_argument("--match", nargs=2, type=Path, metavar=names, help="which parameters made these spectrograms?")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--picture", type=Path, metavar="DIR", help="a PNG of each: what it heard, where it looked")
    parser.add_argument("--runtime", default="torch", help="torch, onnxruntime, openvino, or auto: the fastest here")
    args = cli.arguments(parser)
    if not args.match and not args.files:
        parser.error("expected BUNDLE and FILE, or --match FEATURES.npy AUDIO")
    return cli.run_pipeline("predict", args)


if __name__ == "__main__":
    sys.exit(main())
