"""A job of ours as a KubeRay RayJob: plain data, made and checked without a cluster."""

import difflib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from instrunet.config import fingerprint, load_tree
from instrunet.errors import ConfigError
from pipelines.target import CREDENTIALS, DNS_LABEL, NAME_LIMIT, ClusterTarget, Pod, size

JOBS = ("train", "tune", "tag", "evaluate", "calibrate", "featurize", "pack", "ensemble", "retag", "review", "export")
GRACE_S = 120  # a training that is told to stop writes its checkpoint


def manifest(job: str, arguments: list[str], target: ClusterTarget) -> dict[str, Any]:
    """The RayJob that runs `python jobs/<job>.py <arguments>`; the same call gives the same name."""
    _refuse_what_cannot_run(job, arguments)
    tree = _tree(arguments)
    _refuse_what_no_worker_holds(tree or {}, target)
    digest = fingerprint(tree) if tree is not None else None
    run = {"job": job, "arguments": arguments, "config": digest, "target": target.model_dump(mode="json")}
    labels = {"app.kubernetes.io/name": "instrunet", "instrunet/job": job}
    notes = {"instrunet/config-fingerprint": digest, "instrunet/git-revision": _revision()}
    made = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": f"{target.prefix}-{job}-{fingerprint(run)[:8]}",
            "namespace": target.namespace,
            "labels": labels,
            "annotations": {key: note for key, note in notes.items() if note},
        },
        "spec": {
            # bash in the submitter's pod and Ray's own shell each take one quoting off; Ray 2.60 puts it back between.
            # Before both the kubelet expands $(NAME), a secret's too, and turns $$ into $.
            "entrypoint": shlex.join(["python", f"jobs/{job}.py", *arguments]).replace("$", "$$"),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": target.ttl_s,
            "backoffLimit": target.backoff_limit,  # each retry is a new cluster: it resumes from `storage`
            "activeDeadlineSeconds": target.deadline_s,
            "preRunningDeadlineSeconds": target.start_deadline_s,  # an image or GPU that never comes
            "submitterPodTemplate": _submitter(target, dict(labels)),
            "rayClusterSpec": _cluster(target, labels),
        },
    }
    check(made)
    return made


def render(manifest: dict[str, Any]) -> str:
    """The YAML text that `kubectl apply -f -` reads."""
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text


class _Dumper(yaml.SafeDumper):
    """A text of several lines stands as it is, so that a RayJob inside a CronJob can be read."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def check(manifest: dict[str, Any]) -> None:
    """What the operator checks in code and no schema says, so that it fails here and not as an event nobody reads."""
    name, spec = manifest["metadata"].get("name", ""), manifest["spec"]
    cluster, deletion = spec.get("rayClusterSpec", {}), spec.get("deletionStrategy")
    ttl_s, shutdown = spec.get("ttlSecondsAfterFinished", 0), spec.get("shutdownAfterJobFinishes", False)
    sidecar = {"submitterConfig", "submitterPodTemplate", "clusterSelector"} & set(spec)
    token, version = cluster.get("authOptions", {}).get("mode") == "token", str(cluster.get("rayVersion", ""))
    rules = (
        (
            len(name) > NAME_LIMIT or not DNS_LABEL.fullmatch(name),
            f"expected a name of at most {NAME_LIMIT} of a-z, 0-9 and -, got {name!r} of {len(name)}; shorten prefix",
        ),
        (deletion and (shutdown or ttl_s), "deletionStrategy excludes shutdownAfterJobFinishes and the ttl; keep one"),
        (ttl_s and not shutdown, "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"),
        (spec.get("suspend") and not shutdown, "suspend needs shutdownAfterJobFinishes: true"),
        (
            sidecar and spec.get("submissionMode") == "SidecarMode",
            f"SidecarMode takes no {', '.join(sorted(sidecar))}; use K8sJobMode",
        ),
        (
            cluster.get("enableInTreeAutoscaling") and "DeleteWorkers" in json.dumps(deletion),
            "DeleteWorkers is refused with autoscaling; set workers.min = workers.max, or delete the cluster",
        ),
        (
            token and [int(part) for part in re.findall(r"\d+", version)[:2]] < [2, 52],
            f"token authentication needs ray_version 2.52 or later, got {version!r}",
        ),
    )
    problems = [message for broken, message in rules if broken]
    if problems:
        raise ConfigError("the operator would refuse this RayJob: " + "; ".join(problems))


def _refuse_what_cannot_run(job: str, arguments: list[str]) -> None:
    if job not in JOBS:
        near = difflib.get_close_matches(job, JOBS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(JOBS)}"
        raise ConfigError(f"expected a job that runs on a cluster, got {job!r}; {hint}")
    if any(CREDENTIALS.search(argument) for argument in arguments):
        raise ConfigError("expected arguments without credentials, got a URL that holds some; give them under env")


def _tree(arguments: list[str]) -> dict[str, Any] | None:
    """What the first argument and its overrides give, when it is a YAML file of ours."""
    if not arguments or "://" in arguments[0] or Path(arguments[0]).suffix not in {".yaml", ".yml"}:
        return None
    overrides = [argument for argument in arguments[1:] if "=" in argument and not argument.startswith("-")]
    return load_tree(arguments[0], overrides)


def _refuse_what_no_worker_holds(tree: dict[str, Any], target: ClusterTarget) -> None:
    """Ray would wait for such a node without a word, until the deadline."""
    asked = tree.get("cluster")
    asked = asked if isinstance(asked, dict) else {}
    has = {"cpus": size(target.workers.limits.cpu), "gpus": float(target.workers.gpus)}
    for name, most in has.items():
        one = asked.get(f"{name}_per_worker", 0)
        number = isinstance(one, int | float)
        if number and one > most:
            raise ConfigError(
                f"expected cluster.{name}_per_worker of at most {most:g}, as a worker of the cluster target has, got "
                f"{one:g}; lower it, or raise the target's workers"
            )
        count = asked.get("workers", 1)
        if number and one and isinstance(count, int) and count > int(most // one) * target.workers.max:
            raise ConfigError(
                f"{count} x {one:g} {name} are asked for, {target.workers.max} workers of the cluster target have "
                f"{most:g} each; lower cluster.workers, or raise workers.max"
            )


def _revision() -> str | None:
    """The commit of this checkout, `-dirty` when it holds more; None outside a checkout, as in the image."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cluster(target: ClusterTarget, labels: dict[str, str]) -> dict[str, Any]:
    workers = target.workers
    cluster: dict[str, Any] = {
        "rayVersion": target.ray_version,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": workers.min < workers.max,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},  # no work beside the cluster's own brain
            "template": _template("ray-head", target, target.head, labels),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers.replicas,
                "minReplicas": workers.min,
                "maxReplicas": workers.max,
                "rayStartParams": {},
                "template": _template("ray-worker", target, workers, labels),
            }
        ],
    }
    if cluster["enableInTreeAutoscaling"]:
        # Its container is the operator's own, which a `restricted` namespace would refuse as it comes.
        cluster["autoscalerOptions"] = {"idleTimeoutSeconds": 120, "securityContext": unprivileged()}
        cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] = True
    return cluster


def _submitter(target: ClusterTarget, labels: dict[str, str]) -> dict[str, Any]:
    """The pod that hands the entrypoint to Ray; written out because the operator's own has no security context."""
    small = {"cpu": "500m", "memory": "1Gi"}
    template = _template("ray-job-submitter", target, target.head, labels)
    template["spec"]["restartPolicy"] = "Never"
    container = template["spec"]["containers"][0]
    del container["env"]  # it needs no secrets of ours
    container["resources"] = {"requests": small, "limits": dict(small)}
    return template


def _template(name: str, target: ClusterTarget, pod: Pod, labels: dict[str, str]) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": pod.gpus} if pod.gpus else {}
    plain = {"INSTRUNET_STORAGE": target.storage, "MLFLOW_TRACKING_URI": target.tracking_uri}
    env = [{"name": name, "value": value} for name, value in plain.items() if value]
    refs = [(name, {"name": source.secret, "key": source.key}) for name, source in sorted(target.env.items())]
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "serviceAccountName": target.service_account,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "nodeSelector": dict(pod.node_selector),
            "tolerations": [item.model_dump(exclude_none=True) for item in pod.tolerations],
            "containers": [
                {
                    "name": name,
                    "image": target.image,
                    "env": env + [{"name": name, "valueFrom": {"secretKeyRef": ref}} for name, ref in refs],
                    "resources": {
                        "requests": pod.requests.model_dump() | gpus,
                        "limits": pod.limits.model_dump() | gpus,
                    },
                    "securityContext": unprivileged(),
                }
            ],
        },
    }


def unprivileged() -> dict[str, Any]:
    """What the pod security standard `restricted` asks of each container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
