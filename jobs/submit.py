"""Run a job on Kubernetes: a KubeRay RayJob, printed with --dry-run or created.

python jobs/submit.py train configs/smoke.yaml train.epochs=3 --dry-run
"""

import argparse
import sys
from pathlib import Path

from instrunet.config import load_tree
from pipelines import cli


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("job", metavar="JOB", help="train, tune, tag, evaluate, calibrate, featurize or pack")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what that job takes; --dry-run may stand anywhere")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest and create nothing")
    parser.add_argument("--cluster", type=Path, default=Path("configs/cluster/k8s.yaml"), help="where and how big")
    args = cli.own_options(parser, {"--dry-run": 0, "--cluster": 1, "-v": 0, "--verbose": 0})

    def work() -> None:
        from pipelines.submit import ClusterTarget, manifest, render, submit

        target = ClusterTarget.parse(load_tree(args.cluster), str(args.cluster))
        made = manifest(args.job, args.arguments, target)
        sys.stdout.write(render(made) if args.dry_run else f"{submit(made, target)}\n")

    return cli.run(work, args.verbose)


if __name__ == "__main__":
    sys.exit(main())
