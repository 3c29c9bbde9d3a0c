"""Pack an archive of many small files into shards: plain tars and an index, to be named where the archive was.

python jobs/pack.py ARCHIVE --out ARCHIVE.packed
"""

import sys

from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("archive", metavar="ARCHIVE", help="a folder; s3://BUCKET/FOLDER too")
    parser.add_argument("--out", required=True, help="NAME.packed, s3:// too; the same again goes on")
    parser.add_argument("--shard-mb", type=float, default=256.0, help="a shard is no longer, unless one file is")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out, and list, what cannot be read")
    args = cli.arguments(parser)
    return cli.run_pipeline("pack", args)


if __name__ == "__main__":
    sys.exit(main())
