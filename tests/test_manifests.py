"""Every manifest that k8s/ and jobs/submit.py give, checked offline: schemas, pod security, wires, secrets, sizes."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import crd
import kinds
import pytest
import yaml
from conftest import ROOT
from kustomized import containers, rendered, templates

from instrunet import experiment
from instrunet.config import load_tree
from pipelines import gauges
from pipelines.rayjob import manifest
from pipelines.schedule import scheduled
from pipelines.target import ClusterTarget, size

Object = dict[str, Any]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
TARGETS = sorted((ROOT / "configs/cluster").glob("*.yaml"))
RAY = ("ray.io/v1", "RayCluster")
BUILT_BY_RAY = {"ray.io/is-ray-node": "yes"}  # what the operator adds to each pod of Ray
SECRETS = {
    "instrunet-s3": {"access_key_id", "secret_access_key"},
    "instrunet-postgres": {"password", "uri"},
    "instrunet-redis": {"password"},
}


def submitted() -> list[Object]:
    made = []
    for path in TARGETS:
        target = ClusterTarget.parse(load_tree(path), source=path.name)
        job = manifest("tag", ["BUNDLE", "s3://a", "--out", "s3://b"], target)
        made += [job, scheduled(job, "0 3 * * *", "cronjob", target)]
    return made


SETS = {name: rendered(ROOT / "k8s/overlays" / name) for name in OVERLAYS} | {"submitted": submitted()}
OBJECTS = [
    pytest.param(item, id=f"{name}-{item['kind']}-{item['metadata']['name']}")
    for name, items in SETS.items()
    for item in items
]
each_object = pytest.mark.parametrize("item", OBJECTS)
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def test_there_are_three_overlays() -> None:
    assert OVERLAYS == ["dev", "gpu", "prod"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not here; tests/kustomized.py renders instead")
@each_overlay
def test_kubectl_renders_the_same(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(ROOT / "k8s/overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    def sorted_by_name(items: Any) -> list[Object]:
        return sorted(items, key=lambda item: (item["kind"], item["metadata"]["name"]))

    assert sorted_by_name(yaml.safe_load_all(done.stdout)) == sorted_by_name(SETS[overlay])


# --- schemas


@each_object
def test_the_schema_knows_every_field(item: Object) -> None:
    if item["apiVersion"].startswith("ray.io/"):
        if not crd.FOLDER.is_dir():
            pytest.skip(f"KubeRay's CRD schemas are not at {crd.FOLDER}; they are no part of the project")
        assert crd.problems(item) == []
    else:
        assert kinds.problems(item) == []


@each_object
def test_names_are_taken_once_and_have_their_namespace(item: Object) -> None:
    assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "instrunet"
    for items in SETS.values():
        keys = [(other["kind"], other["metadata"]["name"]) for other in items]
        assert keys.count((item["kind"], item["metadata"]["name"])) <= 1


# --- pods


PODS = [
    pytest.param(item, template, id=f"{name}-{item['metadata']['name']}-{where}")
    for name, items in SETS.items()
    for item in items
    for where, template in templates(item)
]
each_pod = pytest.mark.parametrize(("item", "template"), PODS)
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def unrestricted(pod: Object) -> list[str]:
    """What the pod security standard `restricted` (v1.33) would refuse."""
    wrong = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    shared = pod.get("securityContext", {})
    wrong += [f"volume {v['name']}" for v in pod.get("volumes", ()) if not VOLUMES & v.keys()]
    if shared.get("runAsUser") == 0:
        wrong.append("the pod runs as root")
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        own, name = container.get("securityContext", {}), container["name"]
        merged = shared | own
        dropped = own.get("capabilities", {})
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities": dropped.get("drop") == ["ALL"] and set(dropped.get("add", ())) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
        }
        wrong += [f"{name}: {rule}" for rule, holds in rules.items() if not holds]
    return wrong


@each_pod
def test_pod_is_restricted(item: Object, template: Object) -> None:
    assert unrestricted(template["spec"]) == []


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v"),
        ({"securityContext": {"runAsNonRoot": True}}, "c: seccompProfile"),
        ({"containers": [{"name": "c"}]}, "c: allowPrivilegeEscalation"),
        ({"initContainers": [{"name": "i"}]}, "i: capabilities"),
    ],
)
def test_the_check_finds_a_planted_pod(change: Object, wrong: str) -> None:
    shared = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {"securityContext": shared, "containers": [{"name": "c", "securityContext": own}]}
    assert unrestricted(pod) == []
    assert wrong in unrestricted(pod | change)


@each_pod
def test_pod_asks_for_what_it_may_use(item: Object, template: Object) -> None:
    for container in template["spec"]["containers"]:
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= asked.keys(), container["name"]
        assert asked["memory"] == most["memory"], "Ray sizes itself by the limit: more than is asked for is killed"
        assert all(size(str(asked[key])) <= size(str(most[key])) for key in asked)
        assert asked.get("nvidia.com/gpu") == most.get("nvidia.com/gpu")


@each_pod
def test_pod_has_no_token_that_it_does_not_need(item: Object, template: Object) -> None:
    needs = item["kind"] == "CronJob" or template["spec"]["containers"][0]["name"] == "ray-head"
    assert template["spec"].get("automountServiceAccountToken", True) is needs


@each_pod
def test_image_has_a_version(item: Object, template: Object) -> None:
    for container in template["spec"]["containers"]:
        _, _, tag = container["image"].rpartition(":")
        assert re.fullmatch(r"\d+(\.\d+)+(-gpu)?", tag), container["image"]


@each_overlay
def test_what_serves_has_probes_and_time_to_stop(overlay: str) -> None:
    for item in SETS[overlay]:
        for where, template in templates(item):
            spec = template["spec"]
            if item["kind"] in ("Deployment", "StatefulSet"):
                assert {"readinessProbe", "livenessProbe"} <= spec["containers"][0].keys(), where
            elif where not in ("head", "submitter"):  # the operator brings Ray's probes
                stop = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
                assert int(stop[-1]) < spec["terminationGracePeriodSeconds"]


# --- wires


def pods_of(items: list[Object]) -> list[tuple[dict[str, str], Object]]:
    """Labels and spec of each pod there will be."""
    found = []
    for item in items:
        more = BUILT_BY_RAY if item["kind"] in ("RayCluster", "RayJob") else {}
        for where, template in templates(item):
            node = (
                {}
                if where == "submitter" or not more
                else {"ray.io/node-type": "head" if where == "head" else "worker"}
            )
            of_ray = {} if where == "submitter" else more
            found.append((template["metadata"].get("labels", {}) | of_ray | node, template["spec"]))
    return found


def selects(selector: Object, labels: dict[str, str]) -> bool:
    named = selector.get("matchLabels", {}).items() <= labels.items()
    rules = [
        (labels.get(e["key"]) in e["values"]) == (e["operator"] == "In") for e in selector.get("matchExpressions", ())
    ]
    return named and all(rules)


def allowed(items: list[Object], direction: str, at: dict[str, str], other: dict[str, str], port: int) -> bool:
    """May a pod with labels `at` take calls from (ingress), or call (egress), one with labels `other` beside it?"""
    for policy in (item["spec"] for item in items if item["kind"] == "NetworkPolicy"):
        for rule in policy.get(direction, ()) if selects(policy["podSelector"], at) else ():
            peers = rule["from" if direction == "ingress" else "to"]
            near = any(
                "podSelector" in p and "namespaceSelector" not in p and selects(p["podSelector"], other) for p in peers
            )
            if near and ("ports" not in rule or any(p["port"] == port for p in rule["ports"])):
                return True
    return False


@each_overlay
def test_services_lead_to_ports_that_are_there(overlay: str) -> None:
    pods = pods_of(SETS[overlay])
    for service in (item for item in SETS[overlay] if item["kind"] == "Service"):
        (pod,) = [spec for labels, spec in pods if service["spec"]["selector"].items() <= labels.items()]
        names = {port["name"] for container in pod["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@each_overlay
def test_selectors_match(overlay: str) -> None:
    pods = pods_of(SETS[overlay] + SETS["submitted"])
    for item in SETS[overlay]:
        spec = item.get("spec", {})
        if item["kind"] in ("Deployment", "StatefulSet"):
            assert selects(spec["selector"], spec["template"]["metadata"]["labels"])
            if item["kind"] == "StatefulSet":
                assert spec["serviceName"] in {i["metadata"]["name"] for i in SETS[overlay] if i["kind"] == "Service"}
        elif item["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = spec.get("podSelector", spec.get("selector"))
            assert any(selects(selector, labels) for labels, _ in pods), item["metadata"]["name"]


@each_overlay
def test_hosts_that_pods_name_are_services(overlay: str) -> None:
    text = json.dumps([item for item in SETS[overlay] if item["kind"] == "RayCluster"])
    ports = {
        (item["metadata"]["name"], port["port"])
        for item in SETS[overlay]
        if item["kind"] == "Service"
        for port in item["spec"]["ports"]
    }
    named = {(host, int(port)) for host, port in re.findall(r'"(?:http://)?([a-z]+):(\d+)"', text)}
    assert named == {("mlflow", 5000), ("redis", 6379)}
    assert named <= ports


HEAD = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head", "app.kubernetes.io/name": "instrunet"}
SUBMITTER = {"app.kubernetes.io/name": "instrunet"}
MLFLOW, POSTGRES, REDIS = ({"app.kubernetes.io/component": name} for name in ("mlflow", "postgres", "redis"))
STRANGER: dict[str, str] = {}


@each_overlay
@pytest.mark.parametrize(
    ("caller", "called", "port", "wanted"),
    [
        (HEAD, HEAD, 6379, True),
        (HEAD, HEAD, 43_210, True),
        (SUBMITTER, HEAD, 8265, True),
        (SUBMITTER, HEAD, 6379, False),
        (STRANGER, HEAD, 8265, False),
        (MLFLOW, HEAD, 8265, False),
        (HEAD, MLFLOW, 5000, True),
        (HEAD, REDIS, 6379, True),
        (MLFLOW, POSTGRES, 5432, True),
        (HEAD, POSTGRES, 5432, False),
        (MLFLOW, REDIS, 6379, False),
    ],
)
def test_who_reaches_whom(
    overlay: str, caller: dict[str, str], called: dict[str, str], port: int, wanted: bool
) -> None:
    items = SETS[overlay]
    both = allowed(items, "egress", caller, called, port) and allowed(items, "ingress", called, caller, port)
    assert both is wanted


@each_overlay
def test_all_that_is_not_named_is_shut(overlay: str) -> None:
    policies = {i["metadata"]["name"]: i["spec"] for i in SETS[overlay] if i["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    outside = [
        peer["ipBlock"] for p in policies.values() for r in p.get("egress", ()) for peer in r["to"] if "ipBlock" in peer
    ]
    assert outside == [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}]
    assert not any("ipBlock" in peer for p in policies.values() for r in p.get("ingress", ()) for peer in r["from"])


@each_object
def test_ray_asks_for_a_token(item: Object) -> None:
    spec = item.get("spec", {})
    cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec", {})}.get(item["kind"])
    if cluster is not None:
        assert cluster["authOptions"] == {"mode": "token"}
        assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert "serviceType" not in cluster["headGroupSpec"], "ClusterIP: reached from within alone"
    assert item["kind"] not in ("Ingress", "Secret")
    assert item["kind"] != "Service" or spec.get("type", "ClusterIP") == "ClusterIP"


# --- secrets


@each_object
def test_secrets_are_named_never_written(item: Object) -> None:
    for container in containers(item):
        for entry in container.get("env", ()):
            if re.search(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|STORE_URI", entry["name"]):
                assert "value" not in entry, entry["name"]
        words = [*container.get("command", ()), *container.get("args", ())]
        assert not any(re.search(r"://[^/\s]*:[^/\s]+@", word) for word in words)


@each_object
def test_every_secret_is_one_that_the_readme_makes(item: Object) -> None:
    text = (ROOT / "k8s/README.md").read_text(encoding="utf-8")
    for name, key in references(item):
        assert key in SECRETS[name]
        assert f"create secret generic {name}" in text
        assert f"{key}=" in text


def references(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if not isinstance(value, dict):
        return []
    own = [(value["secretKeyRef"]["name"], value["secretKeyRef"]["key"])] if "secretKeyRef" in value else []
    return own + [found for item in value.values() for found in references(item)]


# --- accounts


@each_overlay
def test_accounts_exist_and_rights_are_narrow(overlay: str) -> None:
    items = SETS[overlay]
    accounts = {item["metadata"]["name"] for item in items if item["kind"] == "ServiceAccount"}
    used = {pod["serviceAccountName"] for _, pod in pods_of(items + SETS["submitted"]) if "serviceAccountName" in pod}
    assert used <= accounts
    roles = {item["metadata"]["name"]: item["rules"] for item in items if item["kind"] == "Role"}
    words = [
        word
        for rules in roles.values()
        for rule in rules
        for key in ("verbs", "resources", "apiGroups")
        for word in rule[key]
    ]
    assert not {"*", "secrets", "pods/exec", "escalate", "bind", "impersonate"} & set(words)
    bound = {subject["name"] for item in items if item["kind"] == "RoleBinding" for subject in item["subjects"]}
    assert bound <= accounts
    assert "instrunet" not in bound, "the pods' own account may do nothing"
    assert {item["roleRef"]["name"] for item in items if item["kind"] == "RoleBinding"} <= roles.keys()
    assert not [item for item in items if item["kind"].startswith("Cluster")]


# --- sizes


CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_cluster_carries_what_the_configuration_asks_of_ray(overlay: str, config: Path) -> None:
    asked = experiment.load(str(config), []).cluster
    (cluster,) = [item["spec"] for item in SETS[overlay] if item["kind"] == "RayCluster"]
    fits = 0
    for group in cluster["workerGroupSpecs"]:
        has = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        if asked.gpus_per_worker and not has.get("nvidia.com/gpu"):
            continue
        fits += group["maxReplicas"] * int(size(str(has["cpu"])) // asked.cpus_per_worker)
    assert fits >= asked.workers


def test_the_quota_carries_the_largest_cluster() -> None:
    (quota,) = [item["spec"]["hard"] for item in SETS["prod"] if item["kind"] == "ResourceQuota"]
    total = dict.fromkeys(("cpu", "memory", "nvidia.com/gpu"), 0.0)
    for item in SETS["prod"]:
        counts = {g["groupName"]: g["maxReplicas"] for g in item.get("spec", {}).get("workerGroupSpecs", ())}
        for where, template in templates(item):
            for container in template["spec"]["containers"]:
                for key, amount in container["resources"]["requests"].items():
                    total[key] += size(str(amount)) * counts.get(where, 1)
    assert {key: amount <= size(quota[f"requests.{key}"]) for key, amount in total.items()} == dict.fromkeys(
        total, True
    )


# --- the dashboard


def test_the_dashboard_asks_for_what_ray_exports() -> None:
    """By the names in the dashboards that Ray itself brings, one of another exporter, and those of our tagging."""
    import ray

    board = json.loads((ROOT / "k8s/grafana.json").read_text(encoding="utf-8"))
    folder = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
    known = set(re.findall(r"\b(?:ray|autoscaler)_\w+", "".join(p.read_text() for p in folder.glob("*_panels.py"))))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(\w+)\{", query)}
    assert len(asked) > 15
    ours = {f"ray_instrunet_{name}_total" for name in gauges.COUNTED} | {"ray_instrunet_parts_left"}
    assert asked - known == {"kube_job_status_failed"} | ours
    assert all(query.count("(") == query.count(")") and query.count("{") == query.count("}") for query in queries)
    variables = {"$" + variable["name"] for variable in board["templating"]["list"]}
    assert {name for query in queries for name in re.findall(r"\$\w+", query)} <= variables
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("name", ["docs/OPERATIONS.md", "docs/SECURITY.md", "k8s/README.md"])
def test_the_guides_name_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert ((ROOT / name).parent / link).is_file(), link
    for path in re.findall(r"`((?:k8s|jobs|tests|configs|docs)/[\w./*-]+)`", text):
        assert list(ROOT.glob(path)), path
    board = (ROOT / "k8s/grafana.json").read_text(encoding="utf-8")
    metrics = set(re.findall(r"`((?:ray|autoscaler|kube)_\w+)`", text)) - {"ray_version"}
    assert {metric for metric in metrics if metric not in board} == set()
    made = {target for target in re.findall(r"`make ([\w-]+)`", text)}
    assert made <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
