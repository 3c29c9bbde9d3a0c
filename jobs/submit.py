"""Run a job on Kubernetes as a KubeRay RayJob: once, or at the times of a cron line. Stay with it, list, show, stop.

python jobs/submit.py train configs/smoke.yaml train.epochs=3 --follow
python jobs/submit.py tag BUNDLE s3://archive --out s3://tags --schedule "0 3 * * *"
python jobs/submit.py list | logs NAME | stop NAME | schedule list | schedule pause|resume|delete NAME
"""

import argparse
import sys
from pathlib import Path

from pipelines import cli

OPTIONS = dict.fromkeys(("--dry-run", "--wait", "--follow", "-v", "--verbose"), 0)


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("job", metavar="JOB", help="a job of ours (train, tag, ...), or list, logs, stop, schedule")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what that takes; the options may stand anywhere")
    parser.add_argument("--schedule", metavar="CRON", help='when, in UTC, like "0 3 * * *"; the same again changes it')
    parser.add_argument("--kind", default="cronjob", help="of the schedule: cronjob, or KubeRay's alpha raycronjob")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest and create nothing")
    parser.add_argument("--wait", action="store_true", help="until it is over; exit as the job does")
    parser.add_argument("--follow", action="store_true", help="the same, and show its log")
    parser.add_argument("--run", default="", help=argparse.SUPPRESS)  # of a schedule
    parser.add_argument("--cluster", type=Path, default=Path("configs/cluster/k8s.yaml"), help="where and how big")
    args = cli.own_options(parser, OPTIONS | dict.fromkeys(("--cluster", "--schedule", "--kind", "--run"), 1))
    return cli.run_pipeline("remote", args)


if __name__ == "__main__":
    sys.exit(main())
