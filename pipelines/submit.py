"""What we ask of a cluster's API server, and each refusal as one line. The only file that imports kubernetes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.watch.watch import iter_resp_lines
from urllib3.exceptions import HTTPError

from instrunet.errors import ConfigError, InstrunetError, JobError

TIMEOUT_S = 10.0  # connecting and answering together; an API server that is there needs well under 1 s
WATCH_S = 10  # a watch is asked anew after this; an object that changes is told at once
SILENT_LOG_S = 60.0  # a log that says nothing for so long is asked anew: its connection may be dead

KINDS = {  # group, version, plural
    "RayJob": ("ray.io", "v1", "rayjobs"),
    "RayCronJob": ("ray.io", "v1", "raycronjobs"),
    "CronJob": ("batch", "v1", "cronjobs"),
}
Object = dict[str, Any]


class ExistsError(JobError):
    """An object of that name is there already."""


class MissingError(JobError):
    """No object of that name is there."""


class RefusedError(JobError):
    """No right to it, or no such kind: so it is, or so says a server that has not read its own rules yet."""


class AwayError(JobError):
    """Nothing answers at the API server's address, or it says that it cannot now."""


class Cluster:
    """One namespace of a cluster, through the current context of the kubeconfig or a pod's service account."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._settings = _settings()
        api = client.ApiClient(self._settings)
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def create(self, made: Object) -> Object:
        """A server's own default drops unknown fields in silence: `Strict` refuses them."""
        created: Object = self._ask("create", made, self._objects.create_namespaced_custom_object, made, **_STRICT)
        return created

    def replace(self, made: Object) -> Object:
        """Refused when `made` holds a resourceVersion and someone changed the object since."""
        replace = self._objects.replace_namespaced_custom_object
        updated: Object = self._ask("update", made, replace, made["metadata"]["name"], made, **_STRICT)
        return updated

    def get(self, kind: str, name: str) -> Object:
        got: Object = self._ask("get", _named(kind, name), self._objects.get_namespaced_custom_object, name)
        return got

    def delete(self, kind: str, name: str) -> None:
        delete = self._objects.delete_namespaced_custom_object
        self._ask("delete", _named(kind, name), delete, name, propagation_policy="Background")

    def all(self, kind: str, selector: str) -> list[Object]:
        """Oldest first."""
        listed = self._ask(
            "list", _named(kind, ""), self._objects.list_namespaced_custom_object, label_selector=selector
        )
        found: list[Object] = listed["items"]
        return sorted(found, key=lambda item: item["metadata"]["creationTimestamp"])

    def changes(self, kind: str, name: str) -> Iterator[Object]:
        """The object as it is, after each change, and every WATCH_S at least."""
        while True:
            seen = False
            for event in self._watch(kind, name):
                seen = True
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]
            if not seen:
                yield self.get(kind, name)

    def _watch(self, kind: str, name: str) -> Iterator[Object]:
        options = {"field_selector": f"metadata.name={name}", "watch": True, "timeout_seconds": WATCH_S} | _STREAM
        options |= {"_request_timeout": (TIMEOUT_S, WATCH_S + TIMEOUT_S)}
        answer = self._ask("watch", _named(kind, name), self._objects.list_namespaced_custom_object, **options)
        try:
            yield from (json.loads(line) for line in iter_resp_lines(answer) if line)  # type: ignore[no-untyped-call]
        except HTTPError as error:
            raise self._away(error) from None
        finally:
            answer.close()

    def pods(self, selector: str) -> list[Object]:
        """Oldest first."""
        return self._core_list("pods", self._core.list_namespaced_pod, label_selector=selector)

    def log(self, pod: str, container: str, since_s: int | None, *, follow: bool) -> Iterator[str]:
        """Lines with their time in front; ends with the container, or after SILENT_LOG_S without a line."""
        options = {"container": container, "follow": follow, "timestamps": True} | _STREAM
        options |= {"_request_timeout": (TIMEOUT_S, SILENT_LOG_S)} | ({"since_seconds": since_s} if since_s else {})
        read = self._core.read_namespaced_pod_log
        answer = self._ask("get the log of", _named("Pod", pod), read, pod, self.namespace, **options)
        try:
            yield from iter_resp_lines(answer)  # type: ignore[no-untyped-call]
        except HTTPError:
            return  # asked anew by whoever follows
        finally:
            answer.close()

    def warnings(self, prefix: str) -> list[str]:
        """Complaints about objects whose name begins so; all that a RayJob makes begins with its own."""
        events = self._core_list("events", self._core.list_namespaced_event, field_selector="type=Warning")
        about = [event for event in events if event["involvedObject"].get("name", "").startswith(prefix)]
        return [
            f"{e['involvedObject']['name']}: {e.get('reason', '')}: {_one_line(e.get('message', ''))}" for e in about
        ]

    def largest_gpus(self) -> int | None:
        """Of one node; None where we may not ask, which is usual: nodes belong to no namespace."""
        try:
            answer: Any = self._core.list_node(_preload_content=False, _request_timeout=TIMEOUT_S)
            nodes = json.loads(answer.data)["items"]
        except (client.ApiException, HTTPError, ValueError, KeyError):
            return None
        return max((int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in nodes), default=0)

    def _core_list(self, plural: str, call: Callable[..., Any], **options: Any) -> list[Object]:
        answer = self._ask("list", _named(plural, ""), call, self.namespace, _preload_content=False, **options)
        found: list[Object] = json.loads(answer.data)["items"]
        return sorted(found, key=lambda item: item["metadata"].get("creationTimestamp") or "")

    def _ask(self, verb: str, about: Object, call: Callable[..., Any], *words: Any, **options: Any) -> Any:
        group, version, plural = KINDS.get(about["kind"], ("", "", ""))
        path = (group, version, self.namespace, plural) if group else ()
        try:
            answer = call(*path, *words, **{"_request_timeout": TIMEOUT_S} | options)
            if getattr(answer, "status", 200) in range(400, 600):  # with _preload_content=False nothing is raised
                raise client.ApiException(http_resp=answer)
        except client.ApiException as error:
            raise _refusal(error, verb, about, self.namespace) from None
        except HTTPError as error:
            raise self._away(error) from None
        return answer

    def _away(self, error: HTTPError) -> AwayError:
        came = _one_line(getattr(error, "reason", None) or error)
        return AwayError(
            f"expected the Kubernetes API at {self._settings.host} to answer within {TIMEOUT_S:g} s, got {came}; "
            "check the network and VPN with `kubectl cluster-info`"
        )


_STRICT: Object = {"field_manager": "instrunet", "field_validation": "Strict"}
_STREAM: Object = {"_preload_content": False}


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


def _named(kind: str, name: str) -> Object:
    return {"kind": kind, "metadata": {"name": name}}


def _refusal(error: Any, verb: str, about: Object, namespace: str) -> InstrunetError:
    """What the API server's answer means for a person."""
    kind, name, said = about["kind"], about["metadata"]["name"], _said(error)
    plural = KINDS.get(kind, ("", "", kind))[2]
    where = f"{namespace}/{name}".rstrip("/")
    came = f"the API server refused {where} ({error.status}): {said}"
    if error.status in (400, 422):
        return ConfigError(
            f"expected a {kind} that the cluster accepts, {came}; mend that field in the cluster configuration, "
            "or install the CRDs of KubeRay 1.7"
        )
    if error.status == 404 and "namespaces" in said:
        return ConfigError(f"expected the namespace {namespace}, {came}; create it, or change `namespace`")
    if error.status == 404 and name and name in said:
        return MissingError(f"expected a {kind} named {where}, found none; see `python jobs/submit.py list`")
    if error.status == 403 and "exceeded quota" in said:
        return JobError(f"expected room in the quota of {namespace}, {came}; stop a job, or ask for a larger quota")
    if error.status == 409 and verb == "create":
        return ExistsError(
            f"expected work that was not submitted before, {came}; see it with `kubectl -n {namespace} get {plural}`, "
            "or delete it there to run it again"
        )
    changes = {
        401: ("valid credentials", "log in to the cluster again"),
        403: (
            f"the right to {verb} {plural} in {namespace}",
            "apply k8s/base/rbac.yaml there, or use a context that may",
        ),
        404: (f"the KubeRay operator and its {kind} kind", "install KubeRay 1.7 with its CRDs"),
        409: ("an object that nobody else is changing", "try again"),
    }
    expected, change = changes.get(error.status, (f"the API server to {verb} it", "try again, or ask who runs it"))
    kind_of = AwayError if error.status >= 500 else RefusedError if error.status in (401, 403, 404) else JobError
    return kind_of(f"expected {expected}, {came}; {change}")


def _said(error: Any) -> str:
    """The message in a Kubernetes Status; the plain reason when a proxy or an older server answered otherwise."""
    try:
        return _one_line(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return _one_line(error.body or error.reason)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
