"""`jobs/submit.py` and k8s/ against a real kube-apiserver, with the rights that k8s/base/rbac.yaml gives and no more.

make kube-check    builds the server from Debian's source (1.20: before CEL, strict fields and CronJob of batch/v1)
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kustomized
import pytest
import requests
import yaml
from apiserver import NAMESPACE, ROOT, Real, served
from conftest import environment
from kube import Operator, Submit, sender

from pipelines import follow, submit

PROGRAMS = Path(os.environ.get("INSTRUNET_APISERVER", "none"))
pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "kube-apiserver").exists(), reason="INSTRUNET_APISERVER is no folder with it: `make kube-check`"
)
PRINT = ("train", str(ROOT / "configs/smoke.yaml"), "--print-config")
NIGHTLY = ("tag", "BUNDLE", "s3://archive", "--out", "s3://tags", "--schedule", "0 3 * * *")
Capture = pytest.CaptureFixture[str]
Object = dict[str, Any]
SERVED_IN_2020 = {"policy/v1": "policy/v1beta1", "batch/v1": "batch/v1beta1"}
LATER_THAN_2020 = {"timeZone", "podFailurePolicy"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with served(PROGRAMS, tmp_path_factory.mktemp("apiserver")) as real:
        yield real


@pytest.fixture
def real(server: Real, monkeypatch: pytest.MonkeyPatch) -> Iterator[Real]:
    """As the submitter."""
    monkeypatch.setattr(submit, "WATCH_S", 2)
    monkeypatch.setattr(follow, "AWAY_S", 0.5)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig("submitter")))
    yield server
    for resource in ("rayjobs", "rayclusters", "raycronjobs", "cronjobs"):
        for name in server.names(resource):
            server.remove(resource, name)


@pytest.fixture
def operator(real: Real) -> Iterator[Operator]:
    with Operator(real, ROOT, environment() | {"INSTRUNET_STORAGE": "s3://x"}) as operator:  # type: ignore[arg-type]
        yield operator


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Submit:
    return sender(monkeypatch, tmp_path)


def test_from_submit_to_stop(real: Real, operator: Operator, send: Submit, capsys: Capture) -> None:
    assert send(*PRINT, "--follow", ttl_s=60) == 0
    said = capsys.readouterr()
    (name,) = real.names("rayjobs")
    *lines, last = said.out.splitlines()
    assert last == f"{NAMESPACE}/{name}"
    assert yaml.safe_load("\n".join(lines))["task"], "the log came through the server from the node"
    states = [line.removeprefix(f"{name}: ") for line in said.err.splitlines()]
    assert states[-1] == "Complete, SUCCEEDED"
    assert real.tokens["submitter"] not in said.out + said.err
    assert send("logs", name) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert send("list") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == [name, "train", "Complete,", "SUCCEEDED"]
    assert send(*PRINT, ttl_s=60) == 1
    assert "expected work that was not submitted before" in capsys.readouterr().err
    assert send(*PRINT, "--wait", ttl_s=60) == 0
    operator.advance(61)
    assert real.names("rayclusters") == []
    assert send("stop", name) == 0
    assert real.names("rayjobs") == []
    assert send("stop", name) == 1
    assert "found none; see `python jobs/submit.py" in capsys.readouterr().err


def test_what_was_sent_is_what_the_server_holds(real: Real, send: Submit, capsys: Capture) -> None:
    """A server drops the fields that its schema does not know, in silence where it is not asked to be strict."""
    assert send(*PRINT, "--dry-run") == 0
    sent = yaml.safe_load(capsys.readouterr().out)
    assert send(*PRINT) == 0
    (name,) = real.names("rayjobs")
    held = real.get(("rayjobs", name))
    assert list(lost(sent, held, "")) == []


def test_a_jobs_mistake_is_the_submitters_exit_code(
    real: Real, operator: Operator, send: Submit, capsys: Capture
) -> None:
    assert send("train", str(ROOT / "configs/smoke.yaml"), "train.epoch=3", "--follow", backoff_limit=1) == 2
    said = capsys.readouterr()
    assert said.out.count("unknown field train.epoch; did you mean epochs?") == 2, "a retry is a pod of its own"
    assert "got Failed, FAILED, AppFailed: Job entrypoint command failed with exit code 2" in said.err


def test_a_server_that_dies_and_comes_back_is_waited_for(real: Real, send: Submit, capsys: Capture) -> None:
    def walk() -> None:
        until(lambda: bool(real.names("rayjobs")))
        (name,) = real.names("rayjobs")
        real.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
        time.sleep(1)
        real.stop("kube-apiserver", signal.SIGKILL)
        time.sleep(3)
        real.start("kube-apiserver")
        real.ready()
        real.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    walker = threading.Thread(target=walk)
    walker.start()
    assert send(*PRINT, "--wait") == 0
    walker.join()
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()][-1] == "Complete, SUCCEEDED"


def test_deleted_while_it_is_followed(real: Real, send: Submit, capsys: Capture) -> None:
    def walk() -> None:
        until(lambda: bool(real.names("rayjobs")))
        time.sleep(1)
        real.remove("rayjobs", real.names("rayjobs")[0])

    walker = threading.Thread(target=walk)
    walker.start()
    assert send(*PRINT, "--wait") == 1
    walker.join()
    assert "expected a RayJob named instrunet/instrunet-train-" in capsys.readouterr().err


def test_a_warning_about_its_pods_is_told(real: Real, send: Submit, capsys: Capture) -> None:
    def walk() -> None:
        until(lambda: bool(real.names("rayjobs")))
        (name,) = real.names("rayjobs")
        about = {"kind": "Pod", "name": f"{name}-abc-head", "namespace": NAMESPACE}
        event = {"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedScheduling"}
        meta = {"name": f"{name}.1", "namespace": NAMESPACE}
        said = {"message": "0/1 nodes are available", "involvedObject": about, "metadata": meta}
        real.ask("POST", real.path("events"), event | said)
        real.set_status(name, jobDeploymentStatus="Initializing")
        time.sleep(3)
        real.set_status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    walker = threading.Thread(target=walk)
    walker.start()
    assert send(*PRINT, "--wait") == 0
    walker.join()
    assert "-abc-head: FailedScheduling: 0/1 nodes are available" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("who", "code", "target", "said"),
    [
        ("none", 1, {}, "expected valid credentials, the API server refused"),
        ("pod", 1, {}, "expected the right to create rayjobs in instrunet, the API server refused"),
        ("submitter", 1, {"namespace": "others"}, "expected the right to create rayjobs in others"),
        ("admin", 2, {"namespace": "nowhere"}, "expected the namespace nowhere, the API server refused"),
        ("admin", 2, {"workers.gpus": 4}, "expected at most 2 GPUs a worker, as the largest node has, got 4"),
    ],
)
def test_refusals_are_a_line_each(  # noqa: PLR0913, its case and its fixtures
    real: Real,
    send: Submit,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    code: int,
    target: Object,
    said: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(real.kubeconfig(who)))
    cluster = yaml.safe_load((ROOT / "configs/cluster/k8s.yaml").read_text(encoding="utf-8"))
    if "workers.gpus" in target:
        target = {"workers": cluster["workers"] | {"gpus": target["workers.gpus"]}}
    assert send(*PRINT, **target) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert real.names("rayjobs") == []


def test_a_quota_is_told_as_one(real: Real, send: Submit, capsys: Capture) -> None:
    path, hard = real.path("resourcequotas"), {"count/rayjobs.ray.io": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": hard}}
    made = real.ask("POST", path, quota)
    real.ask("PUT", f"{path}/few/status", made | {"status": {"hard": hard, "used": hard}})  # a controller's work
    try:
        until(lambda: send(*PRINT) == 1)
        assert "expected room in the quota of instrunet, the API server refused" in capsys.readouterr().err
    finally:
        real.ask("DELETE", f"{path}/few")


def test_a_job_that_the_schema_refuses(real: Real, send: Submit, capsys: Capture, tmp_path: Path) -> None:
    assert send(*PRINT, "--dry-run") == 0
    wrong = yaml.safe_load(capsys.readouterr().out)
    wrong["spec"]["ttlSecondsAfterFinished"] = "soon"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(wrong))
    assert send("manifest", str(tmp_path / "job.yaml")) == 2
    said = capsys.readouterr().err
    assert "expected a RayJob that the cluster accepts" in said
    assert "ttlSecondsAfterFinished" in said


# --- schedules: this server has RayCronJob, and CronJob under an older name


@pytest.fixture
def older_cronjobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The submitter as it is, but for the name that this server has for a CronJob."""
    monkeypatch.setitem(submit.KINDS, "CronJob", ("batch", "v1beta1", "cronjobs"))
    for word in ("create", "replace"):
        asked = getattr(submit.Cluster, word)

        def ask(cluster: submit.Cluster, made: Object, asked: Any = asked) -> Object:
            older = {"apiVersion": "batch/v1beta1"} if made["kind"] == "CronJob" else {}
            done: Object = asked(cluster, made | older)
            return done

        monkeypatch.setattr(submit.Cluster, word, ask)


@pytest.mark.usefixtures("older_cronjobs")
@pytest.mark.parametrize(("kind", "who"), [("cronjob", "submitter"), ("raycronjob", "admin")])
def test_a_schedule_is_made_changed_paused_and_deleted(  # noqa: PLR0913, its case and its fixtures
    real: Real, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: str, who: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(real.kubeconfig(who)))
    assert send(*NIGHTLY, "--kind", kind) == 0
    (name,) = real.names(f"{kind}s")
    assert send("schedule", "pause", name) == 0
    assert send(*NIGHTLY[:-1], "0 4 * * *", "--kind", kind) == 0
    assert "is up to date; it stays paused" in capsys.readouterr().err
    held = real.get((f"{kind}s", name))
    assert held
    assert (held["spec"]["schedule"], held["spec"]["suspend"]) == ("0 4 * * *", True)
    assert send("schedule", "list") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == name
    assert send("schedule", "resume", name) == 0
    held = real.get((f"{kind}s", name))
    assert held
    assert not held["spec"].get("suspend")
    assert send("schedule", "delete", name) == 0
    assert real.names(f"{kind}s") == []


def test_a_night_of_the_schedulers_account(
    real: Real, send: Submit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod may make a RayJob, follow it and clear old ones away; a second night finds the first still at work."""
    assert send(*NIGHTLY, "--dry-run") == 0
    cron = yaml.safe_load(capsys.readouterr().out)
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    monkeypatch.setenv("KUBECONFIG", str(real.kubeconfig("scheduler")))

    def night(run: str) -> int:
        words = [word.replace("$(INSTRUNET_RUN)", run).replace("$$", "$") for word in pod["args"]]
        return send("manifest", *words)

    def at_work() -> list[str]:
        return [n for n in real.names("rayjobs") if not follow.is_over(real.get(("rayjobs", n)) or {})]

    codes: list[int] = []
    first = threading.Thread(target=lambda: codes.append(night("tag-1")))
    first.start()
    until(lambda: bool(real.names("rayjobs")))
    (name,) = real.names("rayjobs")
    real.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")

    def end() -> None:
        time.sleep(3)
        for job in at_work():
            real.set_status(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    ends = threading.Thread(target=end)
    ends.start()
    assert night("tag-2") == 0
    ends.join()
    first.join()
    assert codes == [0]
    assert real.names("rayjobs") == [name]
    assert "is still at work; staying with it, this run is left out" in capsys.readouterr().err
    for number in range(3, 8):
        ends = threading.Thread(target=lambda: (until(lambda: bool(at_work())), end()))
        ends.start()
        assert night(f"tag-{number}") == 0
        ends.join()
    assert len(real.names("rayjobs")) == 4, "the last three and this one"


def test_the_server_takes_the_cronjob_whole(real: Real, send: Submit, capsys: Capture) -> None:
    assert send(*NIGHTLY, "--dry-run") == 0
    cron = yaml.safe_load(capsys.readouterr().out)
    assert list(lost(cron, tried(real, cron), "")) == []


# --- k8s/


@pytest.mark.parametrize("overlay", ["dev", "gpu", "prod"])
def test_the_server_takes_every_manifest_whole(real: Real, overlay: str) -> None:
    items = kustomized.rendered(ROOT / "k8s/overlays" / overlay)
    assert len(items) > 15
    for item in items:
        assert list(lost(item, tried(real, item), item["kind"])) == []


def test_the_roles_are_the_fewest(real: Real) -> None:
    """Asked of the server, as whoever they are given to: all that a submitter needs, and nothing beside it."""
    may = {
        "submitter": {("ray.io", "rayjobs", "create"), ("batch", "cronjobs", "update"), ("", "events", "list")},
        "scheduler": {("ray.io", "rayjobs", "create"), ("ray.io", "rayjobs", "watch"), ("", "events", "list")},
        "pod": set(),
    }
    wanted = {
        ("", "secrets", "get"),
        ("", "pods", "create"),
        ("", "pods/exec", "create"),
        ("", "nodes", "list"),
        ("ray.io", "rayjobs", "update"),
        ("ray.io", "rayclusters", "create"),
        ("batch", "jobs", "create"),
        ("rbac.authorization.k8s.io", "rolebindings", "create"),
    }
    for who, rights in may.items():
        for group, resource, verb in wanted | rights:
            about = {"group": group, "resource": resource.split("/")[0], "verb": verb, "namespace": NAMESPACE}
            about |= {"subresource": resource.split("/")[1]} if "/" in resource else {}
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            answer = requests.post(
                f"{real.address}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                json=review | {"spec": {"resourceAttributes": about}},
                headers={"Authorization": f"Bearer {real.tokens[who]}"},
                verify=str(real.certificate),
                timeout=30,
            )
            allowed = answer.json()["status"]["allowed"]
            assert allowed == ((group, resource, verb) in rights), (who, verb, resource)


def tried(real: Real, item: Object) -> Object:
    """As the server would store it, without doing so."""
    version = SERVED_IN_2020.get(item["apiVersion"], item["apiVersion"])
    version = item["apiVersion"] if item["kind"] == "Job" else version
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served_as = {r["kind"]: r for r in real.ask("GET", base)["resources"] if "/" not in r["name"]}[item["kind"]]
    where = f"/namespaces/{NAMESPACE}" if served_as["namespaced"] else ""
    path, name = f"{base}{where}/{served_as['name']}", item["metadata"]["name"]
    verb, body = "POST", item | {"apiVersion": version}
    try:
        there = real.ask("GET", f"{path}/{name}")
    except requests.HTTPError:
        pass
    else:
        verb, path = "PUT", f"{path}/{name}"
        body = body | {"metadata": item["metadata"] | {"resourceVersion": there["metadata"]["resourceVersion"]}}
    return real.ask(verb, path, body, dryRun="All") | {"apiVersion": item["apiVersion"]}


def lost(sent: Any, held: Any, where: str) -> Iterator[str]:
    """Each field that was sent and is not there, or is there as another."""
    if isinstance(sent, dict) and isinstance(held, dict):
        for key, value in sent.items():
            if key not in held and value in ({}, [], None, False) or key in LATER_THAN_2020:
                continue  # what says nothing is left out
            yield from lost(value, held.get(key), f"{where}.{key}")
    elif isinstance(sent, list) and isinstance(held, list) and len(sent) == len(held):
        for number, (one, other) in enumerate(zip(sent, held, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif str(sent) != str(held):
        yield f"{where}: sent {json.dumps(sent)[:80]}, held {json.dumps(held)[:80]}"


def until(holds: Callable[[], bool], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
