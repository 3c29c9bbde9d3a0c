"""Sends a RayJob to a cluster, and turns each refusal into one line. The only file that imports kubernetes."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from instrunet.errors import ConfigError, InstrunetError, JobError
from pipelines.rayjob import JOBS, check, manifest, render
from pipelines.target import ClusterTarget

__all__ = ["JOBS", "ClusterTarget", "check", "manifest", "render", "submit"]

TIMEOUT_S = 10.0  # connecting and answering together; an API server that is there needs well under 1 s


def submit(rayjob: dict[str, Any], target: ClusterTarget) -> str:
    """Create it; `namespace/name`. A second call for the same work is refused by its name, so none runs twice."""
    check(rayjob)
    where = f"{target.namespace}/{rayjob['metadata']['name']}"
    settings = _settings()
    with client.ApiClient(settings) as api:
        try:
            client.CustomObjectsApi(api).create_namespaced_custom_object(
                *("ray.io", "v1", target.namespace, "rayjobs", rayjob),
                field_manager="instrunet",
                field_validation="Strict",  # a server's own default drops unknown fields in silence
                _request_timeout=TIMEOUT_S,
            )
        except client.ApiException as error:
            raise _refusal(error, where, target.namespace) from None
        except HTTPError as error:
            came = _one_line(getattr(error, "reason", None) or error)
            raise JobError(
                f"expected the Kubernetes API at {settings.host} to answer within {TIMEOUT_S:g} s, got {came}; "
                "check the network and VPN with `kubectl cluster-info`"
            ) from None
    return where


def _settings() -> Any:
    """From $KUBECONFIG or ~/.kube/config; inside a pod without either, from the pod's service account."""
    settings = client.Configuration()
    settings.retries = False  # urllib3's own three retries would make 40 s of our 10
    path = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not Path(path).exists():
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(path, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ConfigError(
            f"expected a kubeconfig with a current context at {path}, got {_one_line(error)}; "
            "set KUBECONFIG to one, or use --dry-run"
        ) from None
    return settings


def _refusal(error: Any, where: str, namespace: str) -> InstrunetError:
    """What the API server's answer means for a person."""
    said = _said(error)
    came = f"the API server refused {where} ({error.status}): {said}"
    if error.status in (400, 422):
        return ConfigError(
            f"expected a RayJob that the cluster accepts, {came}; mend that field in the cluster configuration, "
            "or install the CRDs of KubeRay 1.7"
        )
    if error.status == 404 and "namespaces" in said:
        return ConfigError(f"expected the namespace {namespace}, {came}; create it, or change `namespace`")
    changes = {
        401: ("valid credentials", "log in to the cluster again"),
        403: (f"the right to create rayjobs in {namespace}", "apply k8s/rbac.yaml there, or use a context that may"),
        404: ("the KubeRay operator and its RayJob kind", "install KubeRay 1.7 with its CRDs"),
        409: (
            "work that was not submitted before",
            f"see it with `kubectl -n {namespace} get rayjobs`, or delete it there to run it again",
        ),
    }
    expected, change = changes.get(error.status, ("the API server to create it", "try again, or ask who runs it"))
    return JobError(f"expected {expected}, {came}; {change}")


def _said(error: Any) -> str:
    """The message in a Kubernetes Status; the plain reason when a proxy or an older server answered otherwise."""
    try:
        return _one_line(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return _one_line(error.body or error.reason)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
