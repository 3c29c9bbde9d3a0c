"""A page to try bundles on and a JSON API beside it: drop a sound or record one, see and hear what a model makes of it.

python jobs/serve.py runs/train/csv-1234abcd/bundle
python jobs/serve.py models:/instruments --port 8080
curl --data-binary @song.wav http://127.0.0.1:8000/api/predict
"""

import sys

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    said = "a trained bundle: folder, URL, models:/NAME@ALIAS, or models:/NAME for all that have an alias"
    parser.add_argument("bundles", metavar="BUNDLE", nargs="+", help=f"{said}; the first answers where none is named")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 (default): this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="8000 (default); 0 takes a free one")
    parser.add_argument("--max-mb", type=float, default=50.0, help="of a file (50)")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of sound (600)")
    parser.add_argument("--at-once", type=int, default=16, help="sounds that are heard at a time; more are sent away")
    parser.add_argument("--refresh", type=float, default=30.0, help="s (30) between looks where an alias leads")
    parser.add_argument("--runtime", default="torch", help="torch, onnxruntime, openvino, or auto: the fastest here")
    return cli.run_pipeline("serve", cli.arguments(parser))


if __name__ == "__main__":
    sys.exit(main())
