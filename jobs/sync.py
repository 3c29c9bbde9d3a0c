"""Push to MLflow what training could not while its server was away: python jobs/sync.py OUT"""

import sys
from pathlib import Path

from instrunet.errors import JobError
from pipelines import cli
from pipelines.tracking import sync


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="the output folder, or one run's folder")
    args = cli.arguments(parser)

    def work() -> Path:
        pushed, pending = sync(args.out)
        if pending:
            raise JobError(
                f"{pending} tracked lines still wait ({pushed} were pushed); run it again when MLflow answers"
            )
        return Path(args.out)

    return cli.run(work, args.verbose)


if __name__ == "__main__":
    sys.exit(main())
