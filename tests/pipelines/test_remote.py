"""Submit, follow, logs, exit code, TTL, and schedules, over HTTP against the stand-in of tests/kube.py: no Ray."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, environment
from kube import TOKEN as CANARY
from kube import Kube, Operator, Refusal, Submit, kubeconfig, sender, serving

from pipelines import follow, submit

CONFIG = ROOT / "configs/smoke.yaml"
PRINT = ("train", str(CONFIG), "--print-config")  # the cheapest thing that a job does


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    kube = Kube()
    monkeypatch.setattr(submit, "WATCH_S", 1)
    monkeypatch.setattr(follow, "AWAY_S", 0.05)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(kube) as address:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, address)))
        yield kube


@pytest.fixture
def operator(kube: Kube) -> Iterator[Operator]:
    with Operator(kube, ROOT, environment() | {"INSTRUNET_STORAGE": "s3://x"}) as operator:
        yield operator


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Submit:
    return sender(monkeypatch, tmp_path)


Capture = pytest.CaptureFixture[str]


# --- once


def test_from_submit_to_ttl(kube: Kube, operator: Operator, send: Submit, capsys: Capture) -> None:
    assert send(*PRINT, "--follow", ttl_s=60) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    (name,) = kube.names("rayjobs")
    assert lines[-1] == f"instrunet/{name}"
    assert CANARY not in said.out + said.err + json.dumps([*kube.objects.values(), kube.logs]), "the kubeconfig's token"
    assert yaml.safe_load("\n".join(lines[:-1]))["task"], "the job's own output stands on stdout"
    states = [line.removeprefix(f"{name}: ") for line in said.err.splitlines()]
    assert states[-2:] == ["Running, RUNNING", "Complete, SUCCEEDED"]
    operator.advance(59)
    assert kube.names("rayclusters") == [f"{name}-c0"], "gone before its TTL"
    operator.advance(2)
    assert kube.names("rayclusters") == []

    assert send("logs", name) == 0, "the log outlives the cluster, as KubeRay leaves the submitter's pod"
    assert capsys.readouterr().out.splitlines() == lines[:-1]
    assert send("list") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "JOB", "STATE", "AGE"]
    assert row.split()[:4] == [name, "train", "Complete,", "SUCCEEDED"]

    assert send(*PRINT, ttl_s=60) == 1, "the same work again"
    assert "expected work that was not submitted before" in capsys.readouterr().err
    assert send(*PRINT, "--wait", ttl_s=60) == 0, "one that waits joins what is there"
    assert "is there already; staying with it" in capsys.readouterr().err
    assert send("stop", name) == 0
    assert kube.names("rayjobs") == []


def test_a_jobs_mistake_is_the_submitters_exit_code(
    kube: Kube, operator: Operator, send: Submit, capsys: Capture
) -> None:
    job = ("train", str(CONFIG), "train.epoch=3")
    assert send(*job, "--follow", backoff_limit=1) == 2
    said = capsys.readouterr()
    assert said.out.count("unknown field train.epoch; did you mean epochs?") == 2, "a retry is a pod of its own"
    (name,) = kube.names("rayjobs")
    assert said.err.splitlines()[-1] == (
        f"error: expected instrunet/{name} to succeed, got Failed, FAILED, AppFailed: Job entrypoint command failed "
        f"with exit code 2; see `jobs/submit.py logs {name}`"
    )


def test_a_failure_without_an_exit_code_is_1(kube: Kube, send: Submit, capsys: Capture) -> None:
    assert send(*PRINT) == 0
    (name,) = kube.names("rayjobs")
    kube.set_status(name, jobDeploymentStatus="Failed", reason="DeadlineExceeded", message="took\ntoo long")
    kube.warn(f"{name}-abcde-head-x", "Failed", 'Failed to pull image "registry/none:1": not found')
    assert send("logs", name, "--follow") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{name}: Failed, DeadlineExceeded",
        f'warning: {name}-abcde-head-x: Failed: Failed to pull image "registry/none:1": not found',
        f"error: expected instrunet/{name} to succeed, got Failed, DeadlineExceeded: took too long; "
        f"see `jobs/submit.py logs {name}`",
    ]


def later(kube: Kube, *steps: Callable[[], object]) -> threading.Thread:
    """Each step once whoever follows has looked again, however busy the machine is."""

    def looks() -> int:
        return sum(came["path"].endswith("/events") for came in kube.came)

    def walk(seen: int = looks()) -> None:
        for step in steps:
            while looks() <= seen:
                time.sleep(0.02)
            step()
            seen = looks()

    thread = threading.Thread(target=walk, daemon=True)
    thread.start()
    return thread


def over(kube: Kube) -> None:
    (name,) = kube.names("rayjobs")
    kube.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")


def test_what_holds_it_up_is_told_once(kube: Kube, send: Submit, capsys: Capture) -> None:
    troubles = [
        ("Failed", 'Error: ErrImagePull: "registry.example.org/instrunet:0.1.0"'),
        ("FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ("FailedToCreateWorkerPod", "exceeded quota: compute, requested: requests.cpu=4"),
        ("Unhealthy", "Readiness probe failed"),
    ]

    def trouble() -> None:
        (name,) = kube.names("rayjobs")
        for reason, message in troubles * 2:
            kube.warn(f"{name}-xyz-worker", reason, message)
        kube.warn("another-job-head", "Failed", "not ours")
        kube.set_status(name, jobDeploymentStatus="Initializing")

    walker = later(kube, trouble, lambda: over(kube))
    assert send(*PRINT, "--wait") == 0
    walker.join()
    (name,) = kube.names("rayjobs")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [f"warning: {name}-xyz-worker: {reason}: {message}" for reason, message in troubles[:3]]


def test_an_operator_that_is_not_there_is_told(
    kube: Kube, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "NOT_TAKEN_UP_S", -1)
    walker = later(kube, lambda: over(kube))
    assert send(*PRINT, "--wait") == 0
    walker.join()
    assert "no operator has taken it up" in capsys.readouterr().err


def test_a_server_that_goes_and_comes_is_waited_for(kube: Kube, send: Submit, capsys: Capture) -> None:
    def go() -> None:
        kube.answers.extend([Refusal(503, "etcd is away"), Refusal(500, "leader lost")] * 3)
        while kube.answers:
            time.sleep(0.05)

    walker = later(kube, go, lambda: over(kube))
    assert send(*PRINT, "--wait") == 0
    walker.join()


def test_a_server_that_has_not_read_its_rules_yet_is_waited_for(kube: Kube, send: Submit, capsys: Capture) -> None:
    def go() -> None:
        kube.answers.extend([Refusal(503, "starting"), Refusal(403, "u cannot watch"), Refusal(404, None)] * 2)
        while kube.answers:
            time.sleep(0.05)

    walker = later(kube, go, lambda: over(kube))
    assert send(*PRINT, "--wait") == 0
    walker.join()


def test_without_the_right_to_read_the_log_it_ends_and_says_so(
    kube: Kube, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "REFUSED_TRIES", 2)
    kube.forbidden.add(("list", "pods"))
    assert send(*PRINT, "--follow") == 1
    assert "expected the right to list pods in instrunet" in capsys.readouterr().err


def test_a_server_that_stays_away_is_told(
    kube: Kube, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "AWAY_TRIES", 2)
    walker = later(kube, lambda: kube.answers.extend([Refusal(503, "etcd is away")] * 9))
    assert send(*PRINT, "--wait") == 1
    walker.join()
    assert capsys.readouterr().err.splitlines()[-1].endswith("(503): etcd is away; try again, or ask who runs it")


def test_without_the_right_to_see_events(kube: Kube, send: Submit, capsys: Capture) -> None:
    kube.forbidden.add(("list", "events"))
    walker = later(kube, lambda: over(kube))
    assert send(*PRINT, "--wait") == 0
    walker.join()


def test_a_log_that_breaks_shows_each_line_once(kube: Kube, send: Submit, capsys: Capture) -> None:
    assert send(*PRINT) == 0
    (name,) = kube.names("rayjobs")
    kube.put("pods", {"metadata": {"name": "p", "labels": {"job-name": name}}, "status": {"phase": "Running"}})
    kube.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    for number in range(5):
        kube.say("p", f"line {number}")
    kube.cut_logs_after = 3

    def end() -> None:
        kube.put("pods", {"metadata": {"name": "p", "labels": {"job-name": name}}, "status": {"phase": "Succeeded"}})

    capsys.readouterr()
    walker = later(kube, end, lambda: over(kube))
    assert send("logs", name, "--follow") == 0
    walker.join()
    assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(5)]


def test_deleted_while_it_is_followed(kube: Kube, send: Submit, capsys: Capture) -> None:
    walker = later(kube, lambda: kube.remove("rayjobs", kube.names("rayjobs")[0]))
    assert send(*PRINT, "--wait") == 1
    walker.join()
    assert "expected a RayJob named instrunet/instrunet-train-" in capsys.readouterr().err


def test_ctrl_c_leaves_the_job_running(kube: Kube) -> None:
    command = [sys.executable, str(ROOT / "jobs/submit.py"), *PRINT, "--follow"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"KUBECONFIG": os.environ["KUBECONFIG"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(came["query"].get("watch") for came in kube.came):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
    (name,) = kube.names("rayjobs")
    assert process.returncode == 130
    assert f"instrunet/{name} goes on in the cluster: `jobs/submit.py logs {name} --follow` shows it" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("nodes", "code", "said"),
    [
        ([2, 4], 2, "error: expected at most 4 GPUs a worker, as the largest node has, got 8; lower workers.gpus"),
        ([0], 0, "warning: no node has a GPU now: unless one comes by itself the job ends after 1800 s"),
        ([8], 0, ""),
        (None, 0, ""),
    ],
)
def test_more_gpus_than_any_node_has(
    kube: Kube, send: Submit, capsys: Capture, nodes: list[int] | None, code: int, said: str
) -> None:
    for number, gpus in enumerate(nodes or []):
        allocatable = {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
        kube.put("nodes", {"metadata": {"name": f"n{number}"}, "status": {"allocatable": allocatable}})
    if nodes is None:
        kube.forbidden.add(("list", "nodes"))
    cluster = yaml.safe_load((ROOT / "configs/cluster/k8s.yaml").read_text(encoding="utf-8"))
    assert send(*PRINT, workers=cluster["workers"] | {"gpus": 8}) == code
    assert capsys.readouterr().err.strip() == said
    assert len(kube.names("rayjobs")) == (code == 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("logs",), "expected logs NAME, got 'logs'"),
        (("stop", "a", "b"), "expected stop NAME, got 'stop a b'"),
        (("schedule",), "expected schedule list, or schedule pause|resume|delete NAME, got ''"),
        (("schedule", "pause"), "got 'pause'"),
        (("manifest", "a", "b"), "expected manifest FILE"),
        ((*PRINT, "--schedule", "0 3 * *"), 'expected a cron line of five fields like "0 3 * * *" (UTC)'),
        ((*PRINT, "--schedule", "0 3 * * *", "--kind", "cron"), "expected --kind cronjob or raycronjob, got 'cron'"),
    ],
)
def test_a_mistake_asks_no_cluster(
    kube: Kube, send: Submit, capsys: Capture, words: tuple[str, ...], said: str
) -> None:
    assert send(*words) == 2
    assert said in capsys.readouterr().err
    assert kube.came == []


def test_names_that_are_not_there(kube: Kube, send: Submit, capsys: Capture) -> None:
    for words in (("logs", "none"), ("stop", "none"), ("schedule", "pause", "none")):
        assert send(*words) == 1
        assert "found none; see `python jobs/submit.py" in capsys.readouterr().err


# --- at the times of a cron line


NIGHTLY = ("tag", "BUNDLE", "s3://archive", "--out", "s3://tags", "--schedule")


def trigger(kube: Kube, send: Submit, run: str) -> int:
    """What the pod does that a CronJob starts: its command line, with what the kubelet expands."""
    (name,) = kube.names("cronjobs")
    pod = kube.objects[("cronjobs", name)]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert pod["command"] == ["python", "jobs/submit.py", "manifest"]
    args = [word.replace("$(INSTRUNET_RUN)", run).replace("$$", "$") for word in pod["args"]]
    return send("manifest", *args)


def test_schedule_is_made_changed_paused_and_deleted(kube: Kube, send: Submit, capsys: Capture) -> None:
    assert send(*NIGHTLY, "0 3 * * *") == 0
    (name,) = kube.names("cronjobs")
    assert capsys.readouterr().out == f"instrunet/{name}\n"
    spec = kube.objects[("cronjobs", name)]["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 3 * * *", "Etc/UTC", "Forbid")
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 86_400

    assert send("schedule", "pause", name) == 0
    assert send(*NIGHTLY, "0 4 * * *") == 0
    assert "is up to date; it stays paused" in capsys.readouterr().err
    spec = kube.objects[("cronjobs", name)]["spec"]
    assert (spec["schedule"], spec["suspend"]) == ("0 4 * * *", True)
    assert send("schedule", "list") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [name, "CronJob", *"04***", "yes", "never"]
    assert send("schedule", "resume", name) == 0
    assert kube.objects[("cronjobs", name)]["spec"]["suspend"] is False
    assert send("schedule", "delete", name) == 0
    assert kube.names("cronjobs") == []


def test_each_run_is_a_rayjob_of_its_own_and_none_is_doubled(
    kube: Kube, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(*NIGHTLY, "0 3 * * *") == 0
    walker = later(kube, lambda: over(kube))
    assert trigger(kube, send, "tag-1") == 0
    walker.join()
    (first,) = kube.names("rayjobs")
    assert trigger(kube, send, "tag-1") == 0, "the same pod again finds its own"
    assert kube.names("rayjobs") == [first]

    creates = lambda: [c for c in kube.came if c["verb"] == "POST" and c["path"].endswith("/rayjobs")]  # noqa: E731
    kube.set_status(first, jobDeploymentStatus="Running", jobStatus="RUNNING")
    walker = later(kube, lambda: over(kube))
    assert trigger(kube, send, "tag-2") == 0, "the night before is still at work"
    walker.join()
    assert kube.names("rayjobs") == [first]
    assert "of this schedule is still at work; staying with it, this run is left out" in capsys.readouterr().err

    kube.set_status(first, jobDeploymentStatus="Failed", jobStatus="FAILED", message="exit code 1, last")
    for number in range(3, 8):
        ends = later(kube, lambda: [kube.set_status(name, jobDeploymentStatus="Failed") for name in running(kube)])
        assert trigger(kube, send, f"tag-{number}") == 1, "whoever watches Jobs hears of it"
        ends.join()
    assert len(kube.names("rayjobs")) == 4, "the last three and this one"
    assert len({create["body"]["metadata"]["name"] for create in creates()}) == 6


def running(kube: Kube) -> list[str]:
    return [name for name in kube.names("rayjobs") if not follow.is_over(kube.objects[("rayjobs", name)])]


def test_a_raycronjob_on_request(kube: Kube, send: Submit, capsys: Capture) -> None:
    assert send(*NIGHTLY, "0 3 * * *", "--kind", "raycronjob") == 0
    (name,) = kube.names("raycronjobs")
    assert kube.objects[("raycronjobs", name)]["spec"]["jobTemplate"]["entrypoint"].startswith("python jobs/tag.py")
    assert send("schedule", "pause", name) == 0
    assert kube.objects[("raycronjobs", name)]["spec"]["suspend"] is True


def test_clusters_without_raycronjobs_list_schedules_too(kube: Kube, send: Submit, capsys: Capture) -> None:
    kube.unknown.add("raycronjobs")
    kube.put("cronjobs", {"metadata": {"name": "other", "labels": {}}, "spec": {"schedule": "@daily"}})
    assert send("schedule", "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1, "only ours"


def test_a_manifest_from_a_file(kube: Kube, send: Submit, capsys: Capture, tmp_path: Path) -> None:
    assert send(*PRINT, "--dry-run") == 0
    (tmp_path / "job.yaml").write_text(capsys.readouterr().out)
    assert kube.came == []
    assert send("manifest", str(tmp_path / "job.yaml")) == 0
    assert len(kube.names("rayjobs")) == 1
    (tmp_path / "job.yaml").write_text(json.dumps({"kind": "Pod"}))
    assert send("manifest", str(tmp_path / "job.yaml")) == 2
    assert "expected the YAML of a RayJob" in capsys.readouterr().err


def test_the_stand_in_refuses_what_a_server_would(kube: Kube, send: Submit, capsys: Capture) -> None:
    """Else all of the above would prove nothing."""
    for knob, said in (
        (lambda: kube.namespaces.clear(), "expected the namespace instrunet"),
        (lambda: kube.unknown.add("rayjobs"), "the KubeRay operator and its RayJob kind"),
        (lambda: kube.forbidden.add(("create", "rayjobs")), "expected the right to create rayjobs in instrunet"),
    ):
        knob()
        assert send(*PRINT) in (1, 2)
        assert said in capsys.readouterr().err
        kube.namespaces.add("instrunet")
        kube.unknown.clear()
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x"}, "spec": {"shedule": "x"}}
    with pytest.raises(Exception, match=r"unknown field 'shedule'"):
        submit.Cluster("instrunet").create(cron)
