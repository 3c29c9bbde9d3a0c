"""Export a bundle as ONNX, waveform in and scores out, checked against the bundle.

python jobs/export.py BUNDLE --out EXPORTED
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a trained bundle")
    parser.add_argument("--out", type=Path, required=True, help="the folder for model.onnx")
    return cli.run_pipeline("export", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
