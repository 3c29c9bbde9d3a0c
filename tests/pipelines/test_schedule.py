"""Cron lines as an API server takes them, and a CronJob that is valid, restricted, and holds the RayJob readably."""

from pathlib import Path
from typing import Any

import kinds
import pytest
import yaml
from conftest import ROOT
from crd import needs_crds, problems

from instrunet.config import load_tree
from instrunet.errors import ConfigError
from pipelines.rayjob import manifest, render
from pipelines.schedule import LABEL, check_cron, of_a_run, scheduled
from pipelines.target import ClusterTarget

WORK = ["BUNDLE", "s3://archive", "--out", "$HOME/$(X)"]


def target(*overrides: str) -> ClusterTarget:
    return ClusterTarget.parse(load_tree(ROOT / "configs/cluster/k8s.yaml", overrides), source="k8s.yaml")


def made(*overrides: str, cron: str = "0 3 * * *", kind: str = "cronjob", job: str = "tag") -> dict[str, Any]:
    at = target(*overrides)
    return scheduled(manifest(job, WORK, at), cron, kind, at)


def pod(cronjob: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def expanded(cronjob: dict[str, Any], run: str) -> list[str]:
    """The pod's arguments as the kubelet gives them."""
    return [word.replace("$(INSTRUNET_RUN)", run).replace("$$", "$") for word in pod(cronjob)["containers"][0]["args"]]


GOOD = [
    "0 3 * * *",
    "*/15 8-18 * * mon-fri",
    "5/20 0 1,15 jan,JUL ?",
    "59 23 31 12 6",
    "@daily",
    "0 0 29 2 *",
    "0 0 31 2 1",
]


@pytest.mark.parametrize("line", GOOD)
def test_cron_line_that_a_server_takes(line: str) -> None:
    check_cron(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "expected a cron line of five fields"),
        ("0 3 * *", "expected a cron line of five fields"),
        ("0 0 3 * * *", "expected a cron line of five fields"),
        ("@nightly", "expected a cron line of five fields"),
        ("TZ=UTC 0 3 * * *", "expected a cron line of five fields"),
        ("60 3 * * *", "expected the minute within 0-59 in the cron line, got '60'"),
        ("0 24 * * *", "expected the hour within 0-23"),
        ("0 3 0 * *", "expected the day of month within 1-31"),
        ("0 3 * 13 *", "expected the month within 1-12"),
        ("0 3 * * 7", "expected the day of week within 0-6"),
        ("0 3 * * fri-mon", "expected the day of week within 0-6"),
        ("*/0 3 * * *", "expected the minute within 0-59"),
        ("0 3 L * *", "expected the day of month within 1-31"),
        ("a 3 * * *", "expected the minute within 0-59"),
        ("1- 3 * * *", "expected the minute within 0-59"),
        ("1,,2 3 * * *", "expected the minute within 0-59"),
        ("*-5 3 * * *", "expected the minute within 0-59"),
        ("-1 3 * * *", "expected the minute within 0-59"),
        ("0 0 31 2,4 *", "expected a day that comes, got '0 0 31 2,4 *': no such month has it"),
    ],
)
def test_cron_line_that_it_would_refuse(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match="^[^\n]+$") as caught:
        check_cron(line)
    assert str(caught.value).startswith(said)


def test_cronjob_is_what_the_server_knows() -> None:
    cronjob = made()
    assert kinds.problems(cronjob) == []
    assert len(cronjob["metadata"]["name"]) <= 52, "a CronJob's pods need room for a time"
    assert yaml.safe_load(render(cronjob)) == cronjob
    assert "\n              kind: RayJob\n" in render(cronjob), "the RayJob in it can be read"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("spec", "concurencyPolicy"), "Forbid", "$.spec: unknown field 'concurencyPolicy'"),
        (("spec", "suspend"), "yes", "$.spec.suspend: expected bool, got 'yes'"),
        (("spec", "failedJobsHistoryLimit"), "3", "$.spec.failedJobsHistoryLimit: expected int, got '3'"),
        (("spec", "jobTemplate", "spec", "template", "spec", "containers"), None, None),
        (("metadata", "labels"), ["a"], "$.metadata.labels: expected a map, got ['a']"),
        (("kind",), "CronJobs", "$: no kind CronJobs of batch/v1"),
    ],
)
def test_the_check_of_kinds_finds_a_planted_mistake(path: tuple[str, ...], value: Any, complaint: str | None) -> None:
    broken = made()
    node = broken
    for step in path[:-1]:
        node = node[step]
    if complaint is None:
        del node[path[-1]]
        complaint = "$.spec.jobTemplate.spec.template.spec: 'containers' is missing"
    else:
        node[path[-1]] = value
    assert complaint in kinds.problems(broken)


@needs_crds
def test_the_rayjob_of_a_run_is_valid_and_its_own() -> None:
    cronjob = made()
    text, *options = expanded(cronjob, "tag-29384920")
    assert options == ["--wait", "--run", "tag-29384920"]
    first, again, second = (of_a_run(text, run) for run in ("tag-1", "tag-1", "tag-2"))
    assert problems(first) == []
    assert first == again
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert len(first["metadata"]["name"]) <= 47
    assert first["metadata"]["labels"][LABEL] == cronjob["metadata"]["name"]
    plain = manifest("tag", WORK, target())
    assert first["spec"] == plain["spec"], "what runs at night is what --dry-run shows by day"
    assert of_a_run(text, "")["metadata"]["name"] == plain["metadata"]["name"]


@needs_crds
def test_raycronjob_is_valid() -> None:
    cronjob = made(kind="raycronjob")
    assert (cronjob["apiVersion"], cronjob["kind"]) == ("ray.io/v1", "RayCronJob")
    assert problems(cronjob) == []


def test_the_same_work_at_another_time_or_on_another_image_is_the_same_schedule() -> None:
    name = made()["metadata"]["name"]
    assert made(cron="@daily")["metadata"]["name"] == name
    assert made("image=other:2")["metadata"]["name"] == name
    assert made(job="evaluate")["metadata"]["name"] != name


def test_the_pod_may_only_what_it_needs() -> None:
    spec = pod(made())
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == target().scheduler_account
    assert spec["restartPolicy"] == "Never"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [entry["name"] for entry in container["env"]] == ["INSTRUNET_RUN"], "no secret of ours"
    documents = yaml.safe_load_all((ROOT / "k8s/base/rbac.yaml").read_text(encoding="utf-8"))
    roles = {d["metadata"]["name"]: d["rules"] for d in documents if d["kind"] == "Role"}
    rights = {
        role: {resource: rule["verbs"] for rule in rules for resource in rule["resources"]}
        for role, rules in roles.items()
    }
    on_rayjobs = ["create", "get", "list", "watch", "delete"]
    assert rights["instrunet-scheduler"] == {"rayjobs": on_rayjobs, "events": ["list"]}
    assert rights["instrunet-submitter"] == {
        "rayjobs": on_rayjobs,
        "cronjobs": ["create", "get", "list", "update", "delete"],
        "pods": ["get", "list"],
        "pods/log": ["get"],
        "events": ["list"],
    }


def test_the_deadline_leaves_time_for_every_try() -> None:
    spec = made("backoff_limit=2", "deadline_s=1000")["spec"]["jobTemplate"]["spec"]
    assert spec["activeDeadlineSeconds"] > 3 * 1000
    assert Path(ROOT / "jobs/submit.py").is_file()
