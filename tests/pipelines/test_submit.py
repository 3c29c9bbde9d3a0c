"""The RayJob is what the operator's own schema accepts, holds no secret, and every refusal is one line that helps."""

import copy
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from crd import needs_crds, problems
from kube import TOKEN as CANARY
from kube import Kube, Refusal, kubeconfig, serving

from instrunet.config import fingerprint, load_tree
from instrunet.errors import ConfigError, InstrunetError, JobError
from pipelines import submit as submitting
from pipelines.rayjob import JOBS, check, manifest, render
from pipelines.submit import Cluster
from pipelines.target import ClusterTarget

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "configs" / "cluster" / "k8s.yaml"


def target(*overrides: str) -> ClusterTarget:
    return ClusterTarget.parse(load_tree(TARGET, overrides), source="k8s.yaml")


def templates(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    workers = [group["template"] for group in cluster["workerGroupSpecs"]]
    return [rayjob["spec"]["submitterPodTemplate"], cluster["headGroupSpec"]["template"], *workers]


@pytest.fixture
def smoke(tmp_path: Path) -> str:
    path = tmp_path / "smoke.yaml"
    path.write_text("task: test\ntrain: {epochs: 1}\n", encoding="utf-8")
    return str(path)


# --- the manifest


@needs_crds
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("overrides", [(), ("workers.max=1",), ("workers.gpus=1", "head.tolerations=[{key: gpu}]")])
def test_rayjob_is_valid_against_the_operators_schema(job: str, overrides: tuple[str, ...], smoke: str) -> None:
    rayjob = manifest(job, [smoke, "train.epochs=3"], target(*overrides))
    text = render(rayjob)
    assert yaml.safe_load(text) == rayjob
    assert problems(rayjob) == []
    assert "&id" not in text, "an anchor is legal YAML that people cannot read"


@needs_crds
@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("spec", "ttlSecondsAfterFinish"), 5, "'ttlSecondsAfterFinish' was unexpected"),
        (("metadata", "lables"), {}, "'lables' was unexpected"),
        (("spec", "backoffLimit"), "2", "'2' is not of type 'integer'"),
        (("spec", "preRunningDeadlineSeconds"), 0, "0 is less than the minimum of 1"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        (("spec", "rayClusterSpec", "headGroupSpec"), {}, "'template' is a required property"),
    ],
)
def test_validator_catches_a_planted_mistake(path: tuple[str, ...], value: Any, complaint: str) -> None:
    broken = manifest("train", [], target())
    node = broken
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert any(complaint in problem for problem in problems(broken))


@needs_crds
def test_validator_catches_a_name_given_twice() -> None:
    broken = manifest("train", [], target())
    env = templates(broken)[1]["spec"]["containers"][0]["env"]
    env.append(dict(env[0]))
    assert [p for p in problems(broken) if "INSTRUNET_STORAGE" in p and "twice" in p]


@needs_crds
def test_validator_evaluates_the_rules_of_the_schema() -> None:
    pytest.importorskip("celpy")
    broken = manifest("train", [], target())
    broken["spec"]["deletionStrategy"] = {}
    assert any("requires either BOTH onSuccess and onFailure" in problem for problem in problems(broken))


def test_arguments_reach_the_job_through_both_shells(tmp_path: Path) -> None:
    arguments = ["my bundle", "it's", 'say "hi"', "a;b|c&d", "*", "$HOME", "$(HOME)", "$$", "x=[1, 2]", ""]
    entrypoint = manifest("tag", arguments, target())["spec"]["entrypoint"]
    entrypoint = entrypoint.replace("$$", "$")  # the kubelet
    assert entrypoint.startswith("python jobs/tag.py ")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "tag.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))", encoding="utf-8")
    submitter = ["bash", "-c", f"printf '%s\\0' {entrypoint}"]  # `ray job submit` sees these words
    words = subprocess.run(submitter, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    ray = shlex.join([sys.executable, *words[1:]])  # ray 2.60 joins them so for its own shell
    done = subprocess.run(ray, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == arguments


def test_name_is_short_and_says_the_same_work(smoke: str) -> None:
    name = manifest("featurize", [smoke], target(f"prefix={'a' * 28}"))["metadata"]["name"]
    assert len(name) == 47
    first, again = (manifest("train", [smoke], target())["metadata"]["name"] for _ in range(2))
    assert first == again
    assert first.startswith("instrunet-train-")
    others = [manifest("train", [smoke, "train.epochs=2"], target()), manifest("train", [smoke], target("ttl_s=1"))]
    Path(smoke).write_text("task: other\n", encoding="utf-8")
    others.append(manifest("train", [smoke], target()))
    assert len({first, *(other["metadata"]["name"] for other in others)}) == 4


def test_labels_tell_what_ran(smoke: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.rayjob._revision", lambda: "abc-dirty")
    made = manifest("tune", [smoke, "train.epochs=3", "--flag=x"], target())["metadata"]
    assert made["labels"] == {"app.kubernetes.io/name": "instrunet", "instrunet/job": "tune"}
    assert made["annotations"] == {
        "instrunet/config-fingerprint": fingerprint({"task": "test", "train": {"epochs": 3}}),
        "instrunet/git-revision": "abc-dirty",
    }
    assert "instrunet/config-fingerprint" not in manifest("tag", ["bundle"], target())["metadata"]["annotations"]


def test_no_checkout_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "instrunet/git-revision" not in manifest("tag", [], target())["metadata"]["annotations"]


def test_cluster_is_private_and_ends() -> None:
    spec = manifest("train", [], target())["spec"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert spec["shutdownAfterJobFinishes"] is True
    assert (spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (86_400, 1800)


def test_autoscaler_runs_only_where_there_is_room() -> None:
    scaling, fixed = (manifest("train", [], target(f"workers.max={most}"))["spec"]["rayClusterSpec"] for most in (4, 1))
    assert scaling["enableInTreeAutoscaling"] is True
    assert scaling["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False
    assert fixed["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in fixed


def test_every_pod_is_restricted() -> None:
    pods = [template["spec"] for template in templates(manifest("train", [], target("workers.gpus=2")))]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert [pod["automountServiceAccountToken"] for pod in pods] == [False, True, False]  # the head's autoscaler
    assert [pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pods] == [None, None, 2]


def test_no_secret_value_reaches_the_manifest(monkeypatch: pytest.MonkeyPatch, smoke: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, CANARY)
    made = manifest("train", [smoke], target())
    assert CANARY not in render(made)
    submitter, *ray = (template["spec"]["containers"][0] for template in templates(made))
    assert "env" not in submitter
    for container in ray:
        by_value = [entry["name"] for entry in container["env"] if "value" in entry]
        assert by_value == ["INSTRUNET_STORAGE", "MLFLOW_TRACKING_URI"]


# --- mistakes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("imge=x", "k8s.yaml: unknown field imge; did you mean image?"),
        ("workers.maximum=3", "k8s.yaml: unknown field workers.maximum; did you mean max?"),
        (
            "workers.min=5",
            "k8s.yaml: workers: expected min <= replicas <= max, got min=5, replicas=1, max=4",
        ),
        (
            "prefix=our-department-of-instruments",
            "k8s.yaml: prefix: expected at most 28 of a-z, 0-9 and -, from a letter on (a RayJob's name ends at 47), "
            "got 'our-department-of-instruments' of 29; shorten it",
        ),
        ("prefix=Ours", "k8s.yaml: prefix: expected at most 28 of a-z, 0-9 and -, from a letter on"),
        ("head.limits.memory=8GB", "k8s.yaml: head.limits.memory: expected an amount like 500m, 2 or 8Gi, got '8GB'"),
        (
            "workers.limits.memory=999Mi",
            "k8s.yaml: workers: expected requests.memory <= limits.memory, got 16Gi and 999Mi; raise the limit",
        ),
        ("workers.limits.cpu=3999m", "k8s.yaml: workers: expected requests.cpu <= limits.cpu, got 4 and 3999m"),
        ("storage=runs", "k8s.yaml: storage: expected a URL like s3://bucket/runs, got 'runs'; a pod's own disk goes"),
        ("ttl_s=-1", "k8s.yaml: ttl_s: input should be greater than or equal to 0, got -1"),
    ],
)
def test_bad_target_gives_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        target(override)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        *(f"env.TOKEN={CANARY}", f"env={CANARY}", f"env.TOKEN={{value: {CANARY}}}"),
        *(f"storage=s3://key:{CANARY}@bucket/x", f"tracking_uri=http://user:{CANARY}@mlflow:5000"),
    ],
)
def test_secret_written_into_the_target_is_refused_unseen(override: str) -> None:
    with pytest.raises(ConfigError, match="secret: NAME, key: KEY|without credentials") as caught:
        target(override)
    assert CANARY not in str(caught.value)


def test_secret_stays_unseen_when_all_else_is_wrong_too() -> None:
    with pytest.raises(ConfigError, match="^k: env: expected TOKEN: .*; write no values here$"):
        ClusterTarget.parse({"namspace": 1, "env": {"TOKEN": CANARY}}, source="k")


def test_arguments_with_credentials_are_refused_unseen() -> None:
    with pytest.raises(ConfigError, match="expected arguments without credentials, got a URL that holds") as caught:
        manifest("tag", [f"s3://key:{CANARY}@bucket/archive"], target())
    assert CANARY not in str(caught.value)


def test_unknown_job_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"expected a job that runs on a cluster, got 'trian'; did you mean train\?"):
        manifest("trian", [], target())


def test_config_that_is_not_there_fails_before_the_cluster_does(smoke: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a configuration file at .*smok\.yaml, found none; did you mean"):
        manifest("train", [smoke.replace("smoke", "smok")], target())


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        (
            ["cluster.gpus_per_worker=1"],
            (),
            "expected cluster.gpus_per_worker of at most 0, as a worker of the cluster",
        ),
        (["cluster.gpus_per_worker=2"], ("workers.gpus=1",), "expected cluster.gpus_per_worker of at most 1"),
        (["cluster.cpus_per_worker=4.5"], (), "expected cluster.cpus_per_worker of at most 4, as a worker of the"),
        (["cluster.workers=9", "cluster.cpus_per_worker=2"], (), "9 x 2 cpus are asked for, 4 workers of the cluster"),
        (["cluster.workers=8", "cluster.cpus_per_worker=2"], (), None),
        (["cluster.gpus_per_worker=0.5", "cluster.workers=8"], ("workers.gpus=1",), None),
        (["cluster.gpus_per_worker=many"], (), None),  # the job itself says it best
        (["cluster=3"], (), None),
    ],
)
def test_what_no_worker_holds_fails_before_the_cluster_does(
    smoke: str, arguments: list[str], overrides: tuple[str, ...], message: str | None
) -> None:
    if message is None:
        manifest("train", [smoke, *arguments], target(*overrides))
        return
    with pytest.raises(ConfigError, match="^[^\n]+$") as caught:
        manifest("train", [smoke, *arguments], target(*overrides))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deletionStrategy": {"deletionRules": []}}, "deletionStrategy excludes shutdownAfterJobFinishes and the ttl"),
        ({"shutdownAfterJobFinishes": False}, "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"),
        ({"suspend": True, "shutdownAfterJobFinishes": False}, "suspend needs shutdownAfterJobFinishes: true"),
        ({"submissionMode": "SidecarMode"}, "SidecarMode takes no submitterPodTemplate; use K8sJobMode"),
        (
            {"deletionStrategy": {"onSuccess": {"policy": "DeleteWorkers"}}},
            "DeleteWorkers is refused with autoscaling; set workers.min = workers.max",
        ),
    ],
)
def test_check_knows_the_operators_rules(change: dict[str, Any], message: str) -> None:
    made = manifest("train", [], target())
    check(made)
    made["spec"] |= change
    with pytest.raises(ConfigError) as caught:
        check(made)
    assert str(caught.value).startswith("the operator would refuse this RayJob: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 48, "1st", "Train", "train-", ""])
def test_check_refuses_a_name(name: str) -> None:
    made = manifest("train", [], target())
    made["metadata"]["name"] = name
    with pytest.raises(ConfigError, match=f"expected a name of at most 47 .* got '{name}' of {len(name)}; shorten"):
        check(made)


@pytest.mark.parametrize("version", ["2.51.3", "''"])
def test_token_needs_a_ray_that_knows_it(version: str) -> None:
    with pytest.raises(ConfigError, match="token authentication needs ray_version 2.52 or later, got"):
        manifest("train", [], target(f"ray_version='{version}'" if version != "''" else "ray_version=''"))


# --- the cluster


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    kube = Kube()
    with serving(kube) as address:
        reach(tmp_path, monkeypatch, address)
        yield kube


def reach(folder: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(folder, server)))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def refusal() -> InstrunetError:
    with pytest.raises(InstrunetError) as caught:
        Cluster("instrunet").create(manifest("train", [], target()))
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value)
    return caught.value


def test_submit_creates_the_rayjob(kube: Kube) -> None:
    rayjob = manifest("train", [], target())
    before = copy.deepcopy(rayjob)
    made = Cluster("instrunet").create(rayjob)
    assert rayjob == before
    assert {key: made[key] for key in ("kind", "spec")} == {key: rayjob[key] for key in ("kind", "spec")}
    (came,) = kube.came
    assert came["path"] == "/apis/ray.io/v1/namespaces/instrunet/rayjobs"
    assert came["query"] == {"fieldManager": "instrunet", "fieldValidation": "Strict"}
    assert came["body"] == rayjob
    assert came["token"] == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    ("status", "said", "kind", "expected", "change"),
    [
        (400, 'unknown field "spec.x"', ConfigError, "a RayJob that the cluster accepts", "mend that field"),
        (401, "Unauthorized", JobError, "valid credentials", "log in to the cluster again"),
        (403, "rayjobs is forbidden", JobError, "the right to create rayjobs in instrunet", "apply k8s/base/rbac.yaml"),
        (404, None, JobError, "the KubeRay operator and its RayJob kind", "install KubeRay 1.7 with its CRDs"),
        (404, 'namespaces "instrunet" not found', ConfigError, "the namespace instrunet", "create it, or change"),
        (403, "exceeded quota: q", JobError, "room in the quota of instrunet", "or ask for a larger quota"),
        (409, "already exists", JobError, "work that was not submitted before", "or delete it there to run it again"),
        (422, "spec.backoffLimit: Invalid\nvalue", ConfigError, "a RayJob that the cluster accepts", "mend that field"),
        (500, "etcd is away", JobError, "the API server to create it", "try again"),
    ],
)
def test_refusal_says_expected_came_and_change(
    kube: Kube, status: int, said: str | None, kind: type[InstrunetError], expected: str, change: str
) -> None:
    kube.answers.append(Refusal(status, said))
    error = refusal()
    assert isinstance(error, kind)
    assert str(error).startswith(f"expected {expected}, the API server refused instrunet/instrunet-train-")
    came_line, _, todo = str(error).rpartition("; ")
    assert came_line.endswith(f" ({status}): {' '.join((said or '404 page not found').split())}")
    assert change in todo
    assert len(kube.came) == 1, "a refused request was sent again"


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reach(tmp_path, monkeypatch, f"http://127.0.0.1:{port}")
    error = refusal()
    assert isinstance(error, JobError)
    assert str(error).startswith(f"expected the Kubernetes API at http://127.0.0.1:{port} to answer within 10 s, got ")
    assert "Connection refused; check the network and VPN with `kubectl cluster-info`" in str(error)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reach(tmp_path, monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = refusal()
    assert "to answer within 0.3 s, got" in str(error)
    assert "timed out" in str(error).lower()


def test_nobody_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "TIMEOUT_S", 4)
    with socket.socket() as full:  # Linux lets calls to a full queue wait unanswered, as a firewall does
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            reach(tmp_path, monkeypatch, f"http://127.0.0.1:{full.getsockname()[1]}")
            began = time.monotonic()
            error = refusal()
    assert time.monotonic() - began < 8, "it tried again: the promise is one wait, not four"
    assert "timed out" in str(error).lower()


@pytest.mark.parametrize("text", [None, "", "a: [", "just words", "clusters: 3", "{kind: Config}", f"token: [{CANARY}"])
def test_no_usable_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if text is not None:
        (tmp_path / "kubeconfig").write_text(text, encoding="utf-8")
    error = refusal()
    assert type(error) is ConfigError
    assert str(error).startswith(f"expected a kubeconfig with a current context at {tmp_path / 'kubeconfig'}, got ")
    assert str(error).endswith("; set KUBECONFIG to one, or use --dry-run")


# --- the files beside it


def test_image_runs_as_a_user_by_number() -> None:
    lines = (ROOT / "k8s" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users, "no USER: the pods would be refused as root"
    assert users[-1].partition(":")[0].isdigit()
    assert users[-1].partition(":")[0] != "0"


def test_target_names_the_ray_that_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert f"ray=={target().ray_version}" in pins
