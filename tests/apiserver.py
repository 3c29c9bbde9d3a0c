"""A real kube-apiserver with its etcd on loopback, and what of a cluster must stand behind it for a submitter.

`make kube-check` builds the server; INSTRUNET_APISERVER is the folder with it. There is no scheduler and no kubelet:
`Real` has the face of tests/kube.py's `Kube`, so that its `Operator` runs the jobs here, too, and gives their logs at
the address where the server asks the node of a pod for them.
"""

import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import crd
import kustomized
import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kube import now_ns

Object = dict[str, Any]
ROOT = Path(__file__).parent.parent
NAMESPACE, NODE = "instrunet", "laptop"
BASES = dict.fromkeys(("rayjobs", "raycronjobs", "rayclusters"), "/apis/ray.io/v1")
BASES["cronjobs"] = "/apis/batch/v1beta1"
PEOPLE = {  # who they are to the server, and their group
    "admin": ("admin", "system:masters"),
    "submitter": (f"system:serviceaccount:{NAMESPACE}:instrunet-submitter", "system:serviceaccounts"),
    "scheduler": (f"system:serviceaccount:{NAMESPACE}:instrunet-scheduler", "system:serviceaccounts"),
    "pod": (f"system:serviceaccount:{NAMESPACE}:instrunet", "system:serviceaccounts"),
}


class Real:
    """The server; `names`, `objects.get`, `set_status`, `put`, `remove` and `say` are those of `Kube`, as its admin."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.ports = dict(zip(("etcd", "peer", "api"), free_ports(3), strict=True))
        self.tokens = {name: secrets.token_hex(16) for name in PEOPLE}
        self.certificate, self.key = certificate(folder)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: dict[str, list[str]] = {}
        self.changed, self.over = threading.Condition(), set[str]()
        self.objects = self
        self.asks = requests.Session()
        self.asks.trust_env, self.asks.verify = False, str(self.certificate)
        self.asks.headers["Authorization"] = f"Bearer {self.tokens['admin']}"

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.ports['api']}"

    # --- processes

    def start(self, program: str) -> None:
        etcd, peer, api = (f"127.0.0.1:{port}" for port in self.ports.values())
        words = {
            "etcd": [
                *("--data-dir", self.folder / "etcd", "--listen-client-urls", f"http://{etcd}"),
                *("--advertise-client-urls", f"http://{etcd}", "--listen-peer-urls", f"http://{peer}"),
            ],
            "kube-apiserver": [
                *(f"--etcd-servers=http://{etcd}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"),
                *(f"--secure-port={api.split(':')[1]}", f"--cert-dir={self.folder}", "--authorization-mode=RBAC"),
                *(f"--tls-cert-file={self.certificate}", f"--tls-private-key-file={self.key}"),
                *(f"--service-account-key-file={self.key}", f"--service-account-signing-key-file={self.key}"),
                *("--service-account-issuer=https://127.0.0.1", f"--token-auth-file={self.people()}"),
                *("--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"),
                "--kubelet-preferred-address-types=InternalIP",
            ],
        }[program]
        with (self.folder / f"{program}.log").open("ab") as log:
            self.running[program] = subprocess.Popen([self.programs / program, *words], stdout=log, stderr=log)

    def stop(self, program: str, number: int = signal.SIGTERM) -> None:
        process = self.running.pop(program)
        process.send_signal(number)
        process.wait(60)

    def ready(self, within_s: float = 60) -> None:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            try:
                if self.asks.get(f"{self.address}/readyz", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
        tail = (self.folder / "kube-apiserver.log").read_text(encoding="utf-8").splitlines()[-5:]
        raise AssertionError("\n".join(["the server is not ready", *tail]))

    def people(self) -> Path:
        path = self.folder / "tokens.csv"
        lines = [f"{self.tokens[name]},{user},{name},{group}\n" for name, (user, group) in PEOPLE.items()]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def kubeconfig(self, who: str) -> Path:
        cluster = {"server": self.address, "certificate-authority": str(self.certificate)}
        document = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": who, "user": {"token": self.tokens.get(who, "none")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": who}}],
        }
        path = self.folder / f"{who}.kubeconfig"
        head = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        path.write_text(yaml.safe_dump(head | document), encoding="utf-8")
        return path

    # --- what it holds

    def ask(self, verb: str, path: str, body: Object | None = None, **query: str) -> Object:
        answer = self.asks.request(verb, self.address + path, json=body, params=query, timeout=30)
        if not answer.ok:
            raise requests.HTTPError(f"{verb} {path}: {answer.status_code} {answer.text}", response=answer)
        found: Object = answer.json()
        return found

    def path(self, resource: str, name: str = "") -> str:
        return f"{BASES.get(resource, '/api/v1')}/namespaces/{NAMESPACE}/{resource}/{name}".rstrip("/")

    def names(self, resource: str) -> list[str]:
        return sorted(item["metadata"]["name"] for item in self.ask("GET", self.path(resource))["items"])

    def get(self, key: tuple[str, str]) -> Object | None:
        try:
            return self.ask("GET", self.path(*key))
        except requests.HTTPError as error:
            if error.response.status_code == 404:
                return None
            raise

    def set_status(self, name: str, **status: Any) -> None:
        there = self.get(("rayjobs", name))
        if there is not None:
            changed = there | {"status": there.get("status", {}) | status}
            self.ask("PUT", self.path("rayjobs", name) + "/status", changed)

    def put(self, resource: str, made: Object) -> None:
        """Of a cluster or a pod that the `Operator` names, all that a server wants to know."""
        name = made["metadata"]["name"]
        there = self.get((resource, name))
        if resource == "rayclusters" and there is None:
            job = self.get(("rayjobs", name.rpartition("-c")[0]))
            assert job
            spec = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": job["spec"]["rayClusterSpec"]}
            self.ask("POST", self.path(resource), spec | {"metadata": made["metadata"]})
        if resource == "pods":
            container = {"name": "ray-job-submitter", "image": "ray"}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": made["metadata"]}
            spec = {"containers": [container], "nodeName": NODE, "restartPolicy": "Never"}
            there = there or self.ask("POST", self.path(resource), pod | {"spec": spec})
            self.ask("PUT", self.path(resource, name) + "/status", there | {"status": made["status"]})
            with self.changed:
                self.logs.setdefault(name, [])
                if made["status"]["phase"] != "Running":
                    self.over.add(name)
                self.changed.notify_all()

    def remove(self, resource: str, name: str) -> None:
        self.ask("DELETE", self.path(resource, name))

    def say(self, pod: str, text: str) -> None:
        with self.changed:
            self.logs.setdefault(pod, []).append(f"{now_ns()} {text}")
            self.changed.notify_all()

    def log(self, pod: str, *, follow: bool) -> Iterator[str]:
        shown = 0
        while True:
            with self.changed:
                lines, over = self.logs.get(pod, [])[shown:], pod in self.over
                if not lines and follow and not over:
                    self.changed.wait(0.5)
                    continue
            yield from lines
            shown += len(lines)
            if over or not follow:
                return


@contextmanager
def served(programs: Path, folder: Path) -> Iterator[Real]:
    """With KubeRay's kinds, our namespace and our roles, and one node; nothing is left running."""
    real = Real(programs, folder)
    kubelet = Kubelet(real)
    thread = threading.Thread(target=kubelet.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        for program in ("etcd", "kube-apiserver"):
            real.start(program)
        real.ready()
        furnish(real, kubelet.server_port)
        yield real
    finally:
        for program in list(real.running):
            real.stop(program, signal.SIGKILL)
        kubelet.shutdown()
        thread.join()
        kubelet.server_close()


def furnish(real: Real, kubelet_port: int) -> None:
    for path in sorted(crd.FOLDER.glob("*.yaml")):
        tree = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        real.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", as_of_2020(tree))
    base = kustomized.rendered(ROOT / "k8s/overlays/dev")
    paths = {"Namespace": "/api/v1/namespaces", "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    paths |= {"Role": f"{rbac}/roles", "RoleBinding": f"{rbac}/rolebindings"}
    for item in base:
        if item["kind"] in paths:
            real.ask("POST", paths[item["kind"]], item)
    real.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    node = real.ask("GET", f"/api/v1/nodes/{NODE}")
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        "allocatable": {"cpu": "2", "nvidia.com/gpu": "2"},
    }
    real.ask("PUT", f"/api/v1/nodes/{NODE}/status", node | {"status": status})
    waited = time.monotonic() + 30
    while time.monotonic() < waited and not all(known(real, name) for name in BASES):
        time.sleep(0.2)


def known(real: Real, resource: str) -> bool:
    try:
        real.ask("GET", real.path(resource))
    except requests.HTTPError:
        return False
    return True


def as_of_2020(tree: Object) -> Object:
    """A CRD for a server that knows no CEL and no empty default; of its versions the one that we speak."""
    tree["spec"]["versions"] = [version for version in tree["spec"]["versions"] if version["name"] == "v1"]
    _older(tree)
    return tree


def _older(node: Any) -> None:
    for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        _older(child)
    if not isinstance(node, dict):
        return
    node.pop("x-kubernetes-validations", None)
    if node.get("default") == "" and "type" in node:
        node.pop("default")
    keys = node.get("x-kubernetes-list-map-keys")
    if keys:
        item = node["items"]
        stated = {*item.get("required", ()), *(k for k, v in item["properties"].items() if v.get("default"))}
        if not stated.issuperset(keys):
            node.pop("x-kubernetes-list-map-keys")
            node.pop("x-kubernetes-list-type", None)


class Kubelet(ThreadingHTTPServer):
    """Where the server asks for the logs of the node's pods."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, real: Real) -> None:
        super().__init__(("127.0.0.1", 0), Logs)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(real.certificate, real.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.real = real

    def handle_error(self, *_: Any) -> None:
        pass


class Logs(BaseHTTPRequestHandler):
    server: Kubelet
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802, http.server finds it so
        url = urlsplit(self.path)
        _, pod, _ = url.path.removeprefix("/containerLogs/").split("/")
        follow = parse_qs(url.query).get("follow") == ["true"]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in self.server.real.log(pod, follow=follow):
                text = line.encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def certificate(folder: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself; its key signs tokens, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.pem", folder / "server.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    text = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*text))
    paths[1].chmod(0o600)
    return paths


def free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()
