"""A small API server for tests: what `pipelines/submit.py` asks of a real one, over HTTP, with a real one's answers.

It stores objects by resource, checks RayJobs against the operator's CRD (where that is at hand) and built-in kinds
against the client's own models, counts resource versions, serves list, watch (field and label selectors), pod logs,
and refuses: no token 401, no right 403, unknown namespace or kind 404, taken name or stale version 409, unknown
field 400. `Operator` is the other half: it takes up RayJobs, runs their entrypoint as a local process, and takes the
cluster away after its TTL.
"""

import copy
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import crd
import kinds
import pytest
import yaml
from conftest import ROOT

Object = dict[str, Any]
Submit = Callable[..., int]
TOKEN = "canary-5f2e9c"
SERVED = {
    "/apis/ray.io/v1": {"rayjobs": "RayJob", "raycronjobs": "RayCronJob", "rayclusters": "RayCluster"},
    "/apis/batch/v1": {"cronjobs": "CronJob"},
    "/api/v1": {"pods": "Pod", "events": "Event", "nodes": "Node"},
}


class Refusal(Exception):  # noqa: N818, it is an answer
    """A Kubernetes Status; `message` None is the plain text of a server that knows no such path."""

    def __init__(self, status: int, message: str | None) -> None:
        self.status, self.message = status, message


class Kube:
    """The state, and the knobs of a test."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[tuple[str, str], Object] = {}  # (resource, name)
        self.events: list[tuple[int, str, str, Object]] = []  # version, resource, type, object
        self.logs: dict[str, list[str]] = {}  # pod: lines with their times
        self.came: list[Object] = []  # each request: verb, path, query, body, token
        self.namespaces = {"instrunet"}
        self.forbidden: set[tuple[str, str]] = set()  # (verb, resource)
        self.unknown: set[str] = set()  # resources whose operator is not installed
        self.answers: list[Refusal] = []  # given instead, one a request, before all else
        self.cut_logs_after: int | None = None  # lines a log stream gives before it breaks
        self.version = 0

    def put(self, resource: str, made: Object, event: str | None = None) -> Object:
        with self.changed:
            key = (resource, made["metadata"]["name"])
            self.version += 1
            made = copy.deepcopy(made)
            made["metadata"]["resourceVersion"] = str(self.version)
            made["metadata"].setdefault("creationTimestamp", now())
            made["metadata"].setdefault("uid", f"uid-{self.version}")
            kind = event or ("MODIFIED" if key in self.objects else "ADDED")
            self.objects[key] = made
            self.events.append((self.version, resource, kind, made))
            self.changed.notify_all()
            return made

    def set_status(self, name: str, **status: Any) -> None:
        """A status that was deleted meanwhile is nobody's."""
        with self.changed:
            there = self.objects.get(("rayjobs", name))
            if there is not None:
                self.put("rayjobs", there | {"status": there.get("status", {}) | status})

    def remove(self, resource: str, name: str) -> None:
        with self.changed:
            gone = self.objects.pop((resource, name))
            self.version += 1
            self.events.append((self.version, resource, "DELETED", gone))
            self.changed.notify_all()

    def warn(self, about: str, reason: str, message: str) -> None:
        event = {"metadata": {"name": f"{about}.{len(self.events)}"}, "type": "Warning", "reason": reason}
        self.put("events", event | {"message": message, "involvedObject": {"name": about}})

    def say(self, pod: str, text: str) -> None:
        with self.changed:
            self.logs.setdefault(pod, []).append(f"{now_ns()} {text}")
            self.changed.notify_all()

    def names(self, resource: str) -> list[str]:
        return sorted(name for of, name in self.objects if of == resource)

    def select(self, resource: str, query: dict[str, str]) -> Callable[[Object], bool]:
        labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        fields = dict(pair.split("=") for pair in query.get("fieldSelector", "").split(",") if pair)

        def holds(item: Object) -> bool:
            known = {"metadata.name": item["metadata"]["name"], "type": item.get("type")}
            return labels.items() <= item["metadata"].get("labels", {}).items() and fields.items() <= known.items()

        return holds

    # --- what a request asks

    def answer(self, verb: str, path: str, query: dict[str, str], body: Object | None) -> Object:
        base, resource, name, sub = self.parse(path)
        self.admit(verb, path, resource, watching="watch" in query)
        if sub:
            raise AssertionError("logs are streamed")
        key, kind = (resource, name), SERVED[base][resource]
        if verb == "GET" and not name:
            items = [item for (of, _), item in self.objects.items() if of == resource]
            return {"kind": f"{kind}List", "items": [i for i in items if self.select(resource, query)(i)]}
        if verb == "POST":
            return self.create(base, resource, body or {}, query)
        if key not in self.objects:
            raise Refusal(404, f'{resource}{"." + base.split("/")[2] if base != "/api/v1" else ""} "{name}" not found')
        if verb == "PUT":
            self.check(base, kind, body or {}, query)
            if (body or {})["metadata"].get("resourceVersion") not in (
                None,
                self.objects[key]["metadata"]["resourceVersion"],
            ):
                raise Refusal(
                    409, f'Operation cannot be fulfilled on {resource} "{name}": the object has been modified'
                )
            kept = {"uid", "creationTimestamp"} & set(self.objects[key]["metadata"])
            meta = {**(body or {})["metadata"], **{k: self.objects[key]["metadata"][k] for k in kept}}
            return self.put(resource, (body or {}) | {"metadata": meta})
        if verb == "DELETE":
            self.remove(*key)
            return {"kind": "Status", "status": "Success"}
        return self.objects[key]

    def parse(self, path: str) -> tuple[str, str, str, str]:
        base = next((base for base in SERVED if path.startswith(base + "/")), None)
        words = path[len(base or "") :].strip("/").split("/")
        if words[0] == "namespaces":
            if len(words) > 2 and words[1] not in self.namespaces:
                raise Refusal(404, f'namespaces "{words[1]}" not found')
            words = words[2:]
        resource, name, sub = [*words, "", ""][:3]
        if base is None or resource not in SERVED[base] or resource in self.unknown:
            raise Refusal(404, None)
        return base, resource, name, sub

    def admit(self, verb: str, path: str, resource: str, *, watching: bool) -> None:
        if self.answers:
            raise self.answers.pop(0)
        named = path.rstrip("/").rpartition("/")[2] != resource
        verbs = {"POST": "create", "PUT": "update", "DELETE": "delete"}
        word = verbs.get(verb) or ("watch" if watching else "get" if named else "list")
        if (word, resource) in self.forbidden:
            raise Refusal(403, f'{resource} is forbidden: User "u" cannot {word} resource "{resource}"')

    def check(self, base: str, kind: str, body: Object, query: dict[str, str]) -> None:
        if query.get("fieldValidation") == "Strict" and kind != "CronJob" and crd.FOLDER.is_dir():
            asked = body | {"metadata": {k: v for k, v in body["metadata"].items() if k in crd.METADATA["properties"]}}
            wrong = crd.problems({k: v for k, v in asked.items() if k != "status"})
        else:
            wrong = kinds.problems(body) if kind == "CronJob" else []
        if f"/{body.get('apiVersion')}" != base.removeprefix("/apis").removeprefix("/api") or body.get("kind") != kind:
            wrong.append(f"the object is no {kind}")
        if wrong:
            raise Refusal(400, "; ".join(wrong))

    def create(self, base: str, resource: str, body: Object, query: dict[str, str]) -> Object:
        self.check(base, SERVED[base][resource], body, query)
        name = body["metadata"]["name"]
        if (resource, name) in self.objects:
            raise Refusal(409, f'{resource} "{name}" already exists')
        return self.put(resource, body)

    def replace(self, resource: str, body: Object, there: Object) -> Object:
        name = there["name"]
        if body["metadata"].get("resourceVersion") not in (None, there["resourceVersion"]):
            raise Refusal(409, f'Operation cannot be fulfilled on {resource} "{name}": the object has been modified')
        kept = {key: there[key] for key in ("uid", "creationTimestamp")}
        return self.put(resource, body | {"metadata": body["metadata"] | kept})

    def watch(self, resource: str, query: dict[str, str]) -> Iterator[Object]:
        """The present state as ADDED, then what changes, until the timeout: as a server does without a version."""
        holds, until = self.select(resource, query), time.monotonic() + float(query.get("timeoutSeconds", 60))
        with self.changed:
            seen = self.version
            present = [item for (of, _), item in self.objects.items() if of == resource and holds(item)]
        yield from ({"type": "ADDED", "object": item} for item in present)
        while (left := until - time.monotonic()) > 0:
            with self.changed:
                self.changed.wait_for(lambda seen=seen: self.version > seen, left)  # type: ignore[misc]
                new = [event for event in self.events if event[0] > seen]
                seen = self.version
            yield from ({"type": t, "object": item} for _, of, t, item in new if of == resource and holds(item))

    def log(self, pod: str, query: dict[str, str]) -> Iterator[str]:
        """Until the pod ends, when followed."""
        shown = 0
        while True:
            with self.changed:
                lines, over = self.logs.get(pod, [])[shown:], self._over(pod)
                if not lines and not over and query.get("follow") == "true":
                    self.changed.wait(0.5)
                    continue
            yield from lines
            shown += len(lines)
            if over or query.get("follow") != "true":
                return

    def _over(self, pod: str) -> bool:
        return self.objects.get(("pods", pod), {}).get("status", {}).get("phase") in (None, "Succeeded", "Failed")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_ns() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.time_ns() % 10**9:09d}Z"


class Handler(BaseHTTPRequestHandler):
    server: "Server"
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        kube = self.server.kube
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        token = self.headers.get("Authorization")
        kube.came.append({"verb": self.command, "path": url.path, "query": query, "body": body, "token": token})
        try:
            if token != f"Bearer {TOKEN}":
                raise Refusal(401, "Unauthorized")
            if url.path.endswith("/log") or query.get("watch", "").lower() == "true":
                self.stream(url.path, query)
            else:
                self.reply(201 if self.command == "POST" else 200, kube.answer(self.command, url.path, query, body))
        except Refusal as refusal:
            status = {"kind": "Status", "code": refusal.status, "message": refusal.message}
            self.reply(refusal.status, status if refusal.message is not None else None)

    do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815, http.server finds them so

    def stream(self, path: str, query: dict[str, str]) -> None:
        kube = self.server.kube
        _, resource, name, _ = kube.parse(path)
        kube.admit("GET", path, resource, watching="watch" in query)
        lines: Iterator[str] = kube.log(name, query) if name else map(json.dumps, kube.watch(resource, query))
        cut, kube.cut_logs_after = (kube.cut_logs_after, None) if name else (None, kube.cut_logs_after)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, line in enumerate(lines):
                if number == cut:
                    self.close_connection = True
                    return  # without the last chunk: a broken connection
                text = line.encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has gone
            self.close_connection = True

    def reply(self, status: int, answer: Object | None) -> None:
        text = b"404 page not found\n" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if answer is None else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, kube: Kube) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kube = kube


@contextmanager
def serving(kube: Kube) -> Iterator[str]:
    """Its address; nothing is left running."""
    server = Server(kube)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(folder: Path, server: str) -> Path:
    entry = {"cluster": {"server": server}, "name": "c"}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": TOKEN}}]
    document = {"clusters": [entry], "contexts": [context], "users": users, "current-context": "c"}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config"} | document), encoding="utf-8")
    return path


class Operator:
    """Does with a RayJob what KubeRay does, as far as a submitter sees it; the job is a process of this machine."""

    def __init__(self, kube: Kube, folder: Path, environment: dict[str, str]) -> None:
        self.kube, self.folder, self.environment = kube, folder, environment
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.ends = threading.Event()
        self.clock_s, self.due = 0.0, list[tuple[float, str]]()

    def __enter__(self) -> "Operator":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        self.thread.join()

    def run(self) -> None:
        while not self.ends.wait(0.05):
            for name in self.kube.names("rayjobs"):
                rayjob = self.kube.objects.get(("rayjobs", name))
                if rayjob and not rayjob.get("status"):
                    self.take_up(name, rayjob["spec"])

    def take_up(self, name: str, spec: Object) -> None:
        tries = spec.get("backoffLimit", 0) + 1
        for attempt in range(tries):
            cluster, pod = f"{name}-c{attempt}", f"{name}-s{attempt}"
            self.kube.set_status(name, jobDeploymentStatus="Initializing", rayClusterName=cluster, startTime=now())
            self.kube.put("rayclusters", {"metadata": {"name": cluster}})
            meta = {"name": pod, "labels": {"job-name": name}}
            self.kube.put("pods", {"metadata": meta, "status": {"phase": "Running"}})
            self.kube.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
            code = self.work(spec["entrypoint"], pod)
            self.kube.put("pods", {"metadata": meta, "status": {"phase": "Failed" if code else "Succeeded"}})
            again = code != 0 and attempt + 1 < tries
            if again:
                self.kube.remove("rayclusters", cluster)
            elif spec.get("shutdownAfterJobFinishes"):
                self.due.append((self.clock_s + spec.get("ttlSecondsAfterFinished", 0), cluster))
            self.kube.set_status(name, **self.outcome(code, attempt, again=again), endTime=now())
            if not again:
                return

    @staticmethod
    def outcome(code: int, attempt: int, *, again: bool) -> Object:
        if code == 0:
            return {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "message": "Job finished."}
        said = f"Job entrypoint command failed with exit code {code}, last available logs (truncated)"
        failed = {"jobStatus": "FAILED", "reason": "AppFailed", "message": said, "failed": attempt + 1}
        return failed | {"jobDeploymentStatus": "Retrying" if again else "Failed"}

    def advance(self, seconds: float) -> None:
        """Time goes by for finished jobs: what is past its TTL is taken away."""
        self.clock_s += seconds
        for item in [item for item in self.due if item[0] <= self.clock_s]:
            self.due.remove(item)
            self.kube.remove("rayclusters", item[1])

    def work(self, entrypoint: str, pod: str) -> int:
        command = shlex.split(entrypoint.replace("$$", "$"))  # the kubelet, then two shells that undo each other
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                self.kube.say(pod, line.rstrip("\n"))
                if self.ends.is_set():
                    os.killpg(process.pid, 9)
            return process.wait()


def sender(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Submit:
    """`python jobs/submit.py ...` in this process, with changes of the cluster's file; its exit code."""
    spec = importlib.util.spec_from_file_location("jobs_submit", ROOT / "jobs/submit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cluster = yaml.safe_load((ROOT / "configs/cluster/k8s.yaml").read_text(encoding="utf-8"))

    def call(*words: str, **target: Any) -> int:
        (folder / "k8s.yaml").write_text(yaml.safe_dump(cluster | {"ttl_s": 0, "backoff_limit": 0} | target))
        monkeypatch.setattr(sys, "argv", ["jobs/submit.py", *words, "--cluster", str(folder / "k8s.yaml")])
        done: int = module.main()
        return done

    return call
