"""Export a bundle as ONNX, waveform in and scores out, checked against the bundle.

python jobs/export.py BUNDLE --out EXPORTED
python jobs/export.py BUNDLE --out EXPORTED --clips FOLDER
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", help="a trained bundle: folder, URL, models:/ or runs:/")
    parser.add_argument("--out", type=Path, required=True, help="the folder for model.onnx")
    said = "real sounds: checked on them, and EXPORTED/bundle knows which runtimes decide alike"
    parser.add_argument("--clips", metavar="FOLDER", help=said)
    parser.add_argument("--external-weights", action="store_true", help="weights beside it, in model.onnx.data")
    return cli.run_pipeline("export", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
