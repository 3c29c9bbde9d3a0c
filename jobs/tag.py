"""Tag an archive of sound with a trained bundle: units, recordings, a ledger that closes.

python jobs/tag.py runs/train/smoke-1234abcd/bundle ARCHIVE --out TAGS
"""

import sys
from pathlib import Path

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a trained bundle")
    said = "a folder, a file, a quoted glob, a list (.txt, .csv) or an inventory (.parquet); s3://BUCKET/FOLDER too"
    parser.add_argument("archive", metavar="ARCHIVE", help=said)
    parser.add_argument("--out", required=True, help="where the tags go, s3:// too; the same folder again goes on")
    parser.add_argument("--since-last", action="store_true", help="a run a folder: what changed since the one before")
    parser.add_argument("--unit-s", type=float, default=300.0, help="longest stretch handled at once, in seconds")
    parser.add_argument("--max-bad-fraction", type=float, default=1.0, help="more bad files than this fail the job")
    parser.add_argument("--decode-wait-s", type=float, default=30.0, help="a decoder that takes longer is stopped")
    parser.add_argument("--format", default="", help="csv, jsonl, audacity, raven, sidecar, day, prefix, by commas")
    parser.add_argument("--embeddings", action="store_true", help="keep what the network's head reads, of each window")
    parser.add_argument(
        "--runtime", default="torch", help="torch (on GPUs if there are), cuda, onnxruntime, openvino[/bf16], auto"
    )
    parser.add_argument(
        "--prices", default="", help="core_hour=0.04,gpu_hour=2,gets_1000=0.0004,puts_1000=0.005: what it cost"
    )
    return cli.run_pipeline("tag", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
