"""What `jobs/submit.py` does on a cluster: send a job, stay with it, list, show, stop; and the same for schedules."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from instrunet.config import load_tree
from instrunet.errors import ConfigError, JobError
from pipelines import follow, schedule
from pipelines.console import note, result
from pipelines.rayjob import check, manifest, render
from pipelines.submit import Cluster, ExistsError, MissingError, Object
from pipelines.target import ClusterTarget

OURS = "app.kubernetes.io/name=instrunet"
COMMANDS = ("list", "logs", "stop", "schedule", "manifest")
SCHEDULE_COMMANDS = ("list", "pause", "resume", "delete")
KINDS = {"cronjob": "CronJob", "raycronjob": "RayCronJob"}


def run(args: argparse.Namespace) -> Path | None:
    target = ClusterTarget.parse(load_tree(args.cluster), str(args.cluster))
    if args.kind not in KINDS:
        raise ConfigError(f"expected --kind cronjob or raycronjob, got {args.kind!r}; change it")
    if args.job == "manifest":
        return _manifest(args)
    if args.job in COMMANDS:
        return _command(args, Cluster(target.namespace))
    made = manifest(args.job, args.arguments, target)
    if args.schedule is not None:
        made = schedule.scheduled(made, args.schedule, args.kind, target)
    if args.dry_run:
        sys.stdout.write(render(made))
        return None
    cluster = Cluster(target.namespace)
    _check_gpus(cluster, target)
    return _plan(cluster, made) if args.schedule is not None else _send(cluster, made, args)


def _send(cluster: Cluster, rayjob: Object, args: argparse.Namespace) -> Path:
    """Create it; a second call for the same work is refused by its name, or joins the first where it is to wait."""
    check(rayjob)
    name: str = rayjob["metadata"]["name"]
    stays = args.wait or args.follow
    try:
        cluster.create(rayjob)
    except ExistsError:
        if not stays:
            raise
        note(f"{cluster.namespace}/{name} is there already; staying with it")
    if stays:
        follow.until_over(cluster, name, logs=args.follow)
    return Path(cluster.namespace, name)


def _manifest(args: argparse.Namespace) -> Path:
    """A RayJob given as a file, or as its text; with `run`, for one run of a schedule, of which no two are at work."""
    (given,) = _exactly(args, 1, "manifest FILE")
    text = given if "\n" in given else Path(given).read_text(encoding="utf-8")
    rayjob = schedule.of_a_run(text, args.run)
    cluster, name = Cluster(rayjob["metadata"]["namespace"]), rayjob["metadata"]["name"]
    of_schedule = rayjob["metadata"].get("labels", {}).get(schedule.LABEL)
    runs = cluster.all("RayJob", f"{schedule.LABEL}={of_schedule}") if of_schedule else []
    for other in runs:
        if not follow.is_over(other) and other["metadata"]["name"] != name:
            note(
                f"{other['metadata']['name']} of this schedule is still at work; staying with it, this run is left out"
            )
            rayjob = {**rayjob, "metadata": {**rayjob["metadata"], "name": other["metadata"]["name"]}}
    for old in [other for other in runs if follow.is_over(other)][: -schedule.KEPT]:
        cluster.delete("RayJob", old["metadata"]["name"])
    return _send(cluster, rayjob, args)


def _plan(cluster: Cluster, made: Object) -> Path:
    """Create the schedule or bring it up to date; one that is paused stays paused."""
    where = Path(cluster.namespace, made["metadata"]["name"])
    try:
        cluster.create(made)
    except ExistsError:
        there = cluster.get(made["kind"], made["metadata"]["name"])
        paused = there["spec"].get("suspend", False)
        kept = {"resourceVersion": there["metadata"]["resourceVersion"]}
        cluster.replace(
            {**made, "metadata": made["metadata"] | kept, "spec": made["spec"] | {"suspend": paused}},
        )
        note(f"{where} was there and is up to date" + ("; it stays paused" if paused else ""))
    return where


def _check_gpus(cluster: Cluster, target: ClusterTarget) -> None:
    asked, largest = target.workers.gpus, cluster.largest_gpus() if target.workers.gpus else None
    if largest is None or asked <= largest:
        return
    if largest:
        raise ConfigError(
            f"expected at most {largest} GPUs a worker, as the largest node has, got {asked}; lower workers.gpus"
        )
    note(f"warning: no node has a GPU now: unless one comes by itself the job ends after {target.start_deadline_s} s")


def _command(args: argparse.Namespace, cluster: Cluster) -> Path | None:
    if args.job == "list":
        _exactly(args, 0, "list")
        _list(cluster)
        return None
    if args.job == "schedule":
        return _schedule(args, cluster)
    (name,) = _exactly(args, 1, f"{args.job} NAME")
    if args.job == "logs":
        _logs(cluster, name, follows=args.follow)
        return None
    cluster.delete("RayJob", name)
    return Path(cluster.namespace, name)


def _logs(cluster: Cluster, name: str, *, follows: bool) -> None:
    rayjob = cluster.get("RayJob", name)
    if follows:
        follow.until_over(cluster, name, logs=True)
    elif not follow.Log(cluster, name).pour(follow=False):
        raise JobError(
            f"expected the log of {cluster.namespace}/{name}, found no pod of it; it is {follow.described(rayjob)}"
        )


def _list(cluster: Cluster) -> None:
    rows = [("NAME", "JOB", "STATE", "AGE")]
    for rayjob in cluster.all("RayJob", OURS):
        meta = rayjob["metadata"]
        rows.append((meta["name"], meta["labels"].get("instrunet/job", ""), follow.described(rayjob), _age(rayjob)))
    _table(rows)


def _schedule(args: argparse.Namespace, cluster: Cluster) -> Path | None:
    verb, *rest = args.arguments or [""]
    if verb not in SCHEDULE_COMMANDS or len(rest) != (verb != "list"):
        raise ConfigError(
            f"expected schedule list, or schedule pause|resume|delete NAME, got {' '.join(args.arguments)!r}"
        )
    if verb == "list":
        found = [item for kind in KINDS.values() for item in _schedules(cluster, kind)]
        rows = [("NAME", "KIND", "TIMES (UTC)", "PAUSED", "LAST")]
        for item in found:
            last = item.get("status", {}).get("lastScheduleTime", "never")
            paused = "yes" if item["spec"].get("suspend") else "no"
            rows.append((item["metadata"]["name"], item["kind"], item["spec"]["schedule"], paused, last))
        _table(rows)
        return None
    (name,) = rest
    there = _find(cluster, name)
    if verb == "delete":
        cluster.delete(there["kind"], name)
    else:
        cluster.replace({**there, "spec": there["spec"] | {"suspend": verb == "pause"}})
    return Path(cluster.namespace, name)


def _schedules(cluster: Cluster, kind: str) -> list[Object]:
    """RayCronJob is alpha: most clusters do not know it, or give no right to it."""
    try:
        return [item | {"kind": kind} for item in cluster.all(kind, OURS)]
    except JobError:
        if kind == "CronJob":
            raise
        return []


def _find(cluster: Cluster, name: str) -> Object:
    for kind in KINDS.values():
        for item in _schedules(cluster, kind):
            if item["metadata"]["name"] == name:
                versions = {"CronJob": "batch/v1", "RayCronJob": "ray.io/v1"}
                return item | {"apiVersion": versions[kind]}
    raise MissingError(f"expected a schedule named {name}, found none; see `python jobs/submit.py schedule list`")


def _exactly(args: argparse.Namespace, count: int, usage: str) -> list[str]:
    if len(args.arguments) != count:
        raise ConfigError(f"expected {usage}, got {' '.join([args.job, *args.arguments])!r}; change it")
    words: list[str] = args.arguments
    return words


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        result("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _age(rayjob: Object) -> str:
    seconds = follow.age_s(rayjob)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
