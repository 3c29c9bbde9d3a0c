"""A store on loopback: moto's S3 behind a proxy that fails, stalls, throttles and cuts short, as a test asks it to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

SECRET = "not-to-be-seen-anywhere"  # noqa: S105
Fault = Callable[[str, str, int], str]  # (method, path, how many requests before) -> what to do, "" for nothing
BUSY = b"<Error><Code>%s</Code><Message>please reduce your request rate</Message></Error>"


def settings(port: int, timeout_s: float = 2, tries: int = 5) -> dict[str, str]:
    """What a user's environment says."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "INSTRUNET_STORE_TIMEOUT_S": str(timeout_s),
        "INSTRUNET_STORE_TRIES": str(tries),
    }


class Store:
    """A bucket to look into from the side, without the code under test."""

    def __init__(self, port: int) -> None:
        self.port = port
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)

    def bucket(self, name: str) -> str:
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def upload(self, folder: Path, url: str) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.write(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def write(self, url: str, content: bytes) -> None:
        self.client.put_object(Bucket=url.split("/")[2], Key=url.split("/", 3)[3], Body=content)

    def read(self, url: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=url.split("/")[2], Key=url.split("/", 3)[3])["Body"].read()
        return content

    def download(self, url: str, folder: Path) -> Path:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                path = folder / item["Key"].removeprefix(prefix).lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.read(f"s3://{bucket}/{item['Key']}"))
        return folder


@contextmanager
def started() -> Iterator[Store]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Store(server.get_host_and_port()[1])
    finally:
        server.stop()


class Proxy(ThreadingHTTPServer):
    """In front of a store; `fault` says of each request what becomes of it."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.port = upstream, int(self.server_address[1])
        self.fault: Fault = lambda method, path, n: ""
        self.seen: list[tuple[str, str, str]] = []  # method, path, what became of it
        self.over = threading.Event()
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is what these tests are about."""


@contextmanager
def proxied(store: Store) -> Iterator[Proxy]:
    proxy = Proxy(store.port)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            fault = self.server.fault(self.command, self.path, len(self.server.seen))
            self.server.seen.append((self.command, self.path, fault))
        if fault == "stall":
            self.server.over.wait(60)
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        elif fault in ("500 InternalError", "503 SlowDown"):
            code, name = fault.split()
            self._answer(int(code), [], BUSY % name.encode())
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes, fault: str) -> None:
        upstream = HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self._answer(answer.status, answer.getheaders(), content, fault)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, fault: str = "") -> None:
        """`cut`: half of the body, then the end. `short`: half of it, and a length that says so. `slow`: in drops."""
        if fault == "short":
            content = content[: len(content) // 2]
        self.send_response_only(status)
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(content)))
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if fault == "cut":
            content, self.close_connection = content[: len(content) // 2], True
        if self.command != "HEAD":
            self._write(content, 200 if fault == "slow" else len(content))

    def _write(self, content: bytes, n: int) -> None:
        for at in range(0, len(content), max(n, 1)):
            self.wfile.write(content[at : at + n])
            if n < len(content) and self.server.over.wait(0.05):
                return

    def log_message(self, *args: object) -> None:
        """Quiet."""
