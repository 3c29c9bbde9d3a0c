"""A job that comes again: a CronJob whose pod creates the RayJob and waits for it, or KubeRay's own RayCronJob."""

import re
from typing import Any

import yaml

from instrunet.config import fingerprint
from instrunet.errors import ConfigError
from pipelines.rayjob import render, unprivileged
from pipelines.target import ClusterTarget

LABEL = "instrunet/schedule"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
)
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NAMED = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
PART = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")
KEPT = 3  # finished runs and pods of a schedule, of each kind
LATE_S = 3600  # a run missed for longer, as when the cluster was away, is left out
SLACK_S = 600


def scheduled(rayjob: dict[str, Any], cron: str, kind: str, target: ClusterTarget) -> dict[str, Any]:
    """The object that makes `rayjob` anew at each time of `cron` (UTC); one schedule for the same job and arguments."""
    check_cron(cron)
    job = rayjob["metadata"]["labels"]["instrunet/job"]
    work = {"job": job, "entrypoint": rayjob["spec"]["entrypoint"]}
    name = f"{target.prefix}-{job}-{fingerprint(work)[:8]}"
    made: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": rayjob["metadata"] | {"name": name},
        "spec": {"schedule": cron, "timeZone": "Etc/UTC"},
    }
    labels = rayjob["metadata"]["labels"] | {LABEL: name}
    template = rayjob | {"metadata": rayjob["metadata"] | {"labels": labels}}
    if kind == "raycronjob":
        return made | {
            "apiVersion": "ray.io/v1",
            "kind": "RayCronJob",
            "spec": made["spec"] | {"jobTemplate": rayjob["spec"]},
        }
    made["spec"] |= {
        "concurrencyPolicy": "Forbid",  # the pod lasts as long as its RayJob
        "startingDeadlineSeconds": LATE_S,
        "successfulJobsHistoryLimit": KEPT,
        "failedJobsHistoryLimit": KEPT,
        "jobTemplate": {"spec": _job(template, target)},
    }
    return made


def _job(rayjob: dict[str, Any], target: ClusterTarget) -> dict[str, Any]:
    """Fails when the RayJob does, so that whoever watches Jobs hears of it."""
    small = {"cpu": "100m", "memory": "256Mi"}
    labels = dict(rayjob["metadata"]["labels"])
    gone_on = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    failed = {"containerName": "submit", "operator": "NotIn", "values": [0]}
    run = {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}
    tries = target.backoff_limit + 1
    return {
        "activeDeadlineSeconds": tries * (target.deadline_s + SLACK_S),
        "backoffLimit": 2,
        # A pod that a node takes away comes again and finds the RayJob that it made; one that fails has told its end.
        "podFailurePolicy": {"rules": [gone_on, {"action": "FailJob", "onExitCodes": failed}]},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": target.scheduler_account,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "submit",
                        "image": target.image,
                        "command": ["python", "jobs/submit.py", "manifest"],
                        # The kubelet turns $$ into $, and expands the last: the same pod again makes no second RayJob.
                        "args": [render(rayjob).replace("$", "$$"), "--wait", "--run", "$(INSTRUNET_RUN)"],
                        "env": [{"name": "INSTRUNET_RUN", "valueFrom": {"fieldRef": run}}],
                        "resources": {"requests": small, "limits": dict(small)},
                        "securityContext": unprivileged(),
                    }
                ],
            },
        },
    }


def of_a_run(text: str, run: str) -> dict[str, Any]:
    """The RayJob that `text` holds, under a name of its own for this run; the same run gives the same name."""
    rayjob = yaml.safe_load(text)
    if not isinstance(rayjob, dict) or rayjob.get("kind") != "RayJob":
        raise ConfigError("expected the YAML of a RayJob, got something else; print one with --dry-run")
    if run:
        stem, _, digest = rayjob["metadata"]["name"].rpartition("-")
        rayjob["metadata"]["name"] = f"{stem}-{fingerprint({'name': digest, 'run': run})[:8]}"
    return rayjob


def check_cron(line: str) -> None:
    """What the API server takes, by hand: croniter knows a sixth field, L and #, and day 7, which it refuses."""
    if line in NAMED:
        return
    words = line.split()
    if len(words) != len(FIELDS):
        raise ConfigError(
            f'expected a cron line of five fields like "0 3 * * *" (UTC) or {min(NAMED)}, got {line!r}; '
            "the fields are minute, hour, day of month, month and day of week"
        )
    values = [_values(word, *field) for word, field in zip(words, FIELDS, strict=True)]
    if words[4] in ("*", "?") and all(min(values[2]) > LONGEST_MONTHS[month - 1] for month in values[3]):
        raise ConfigError(
            f"expected a day that comes, got {line!r}: no such month has it; change day of month or month"
        )


def _values(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = PART.fullmatch(part)
        first, last, step = match.groups() if match else (None, None, None)
        numbers = [_number(text, low, names) for text in (first, last) if text]
        if first in ("*", "?"):
            numbers = [low, high] if last is None else []
        elif len(numbers) == 1:
            numbers.append(high if step else numbers[0])
        if len(numbers) != 2 or not low <= numbers[0] <= numbers[1] <= high or step == "0":
            raise ConfigError(f"expected the {name} within {low}-{high} in the cron line, got {word!r}; change it")
        found |= set(range(numbers[0], numbers[1] + 1, int(step or 1)))
    return found


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    return int(text) if text.isdecimal() else -1
