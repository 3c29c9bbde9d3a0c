"""MLflow for real: the embedded store, a server on loopback, and servers that are away in each of the usual ways."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from instrunet.errors import ConfigError
from pipelines import tracking
from pipelines.journal import Journal, clean, flatten
from pipelines.tracking import Tracker, TrackingSpec, sync

CANARY = "kanarienvogel"
EPOCHS = 50


class Server(NamedTuple):
    pid: int
    url: str
    folder: Path


@pytest.fixture(autouse=True)
def _own_process_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_dead", {})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One embedded store for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module", autouse=True)
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["subprocess.Popen[bytes]", str, Path]]:
    """A server that starts, 20 s on two busy cores, while the tests before its own wait for dead ones."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command + store, cwd=folder, env=quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process, f"http://127.0.0.1:{port}", folder
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the server and its worker
        process.wait()


@pytest.fixture(scope="module")
def server(launched: tuple["subprocess.Popen[bytes]", str, Path]) -> Server:
    process, url, folder = launched
    wait_for(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default", process, folder / "log")
    return Server(process.pid, url, folder)


def test_embedded_store_holds_all_that_was_tracked(out: Path) -> None:
    bundle = make_bundle(out / "whole")
    with Tracker(TrackingSpec(), out / "whole", out, "task8") as tracker:
        tracker.params({"model": {"name": "task8", "sizes": [1, 2]}, "augment": [{"name": "gain"}], "long": "x" * 9000})
        for step in range(3):
            tracker.metrics(step, {"valid/f1": step / 10, "f1@0.5 é": 1, "loss": float("nan")})
        tracker.tags({"instrunet.restarts": 1})
        tracker.artifacts(bundle / "bundle.json", "report")
        tracker.model(bundle)
    assert tracker.pending == 0
    assert tracker.url == f"mlflow ui --backend-store-uri sqlite:///{out}/mlflow.db"

    client, run = find(f"sqlite:///{out}/mlflow.db", tracker)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "task8")
    assert run.info.artifact_uri.startswith((out / "mlartifacts").as_uri())
    assert run.data.params["model.sizes"] == "[1, 2]" and run.data.params["augment.0.name"] == "gain"
    assert run.data.params["long"] == "x" * 6000
    assert run.data.tags["instrunet.restarts"] == "1"
    assert history(client, run, "valid/f1") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert history(client, run, "f1_0.5 é") == [(0, 1), (1, 1), (2, 1)]
    assert "loss" not in run.data.metrics
    assert Journal(out / "whole").lines[-5]["values"]["loss"] == "nan"
    assert sorted(file.path for file in client.list_artifacts(run.info.run_id)) == ["bundle", "report"]
    version = client.get_model_version_by_alias("task8", "challenger")
    assert (version.run_id, version.source) == (run.info.run_id, f"runs:/{run.info.run_id}/bundle")


def test_the_registered_alias_downloads_the_bundle(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    bundle = make_bundle(out / "download")
    with Tracker(TrackingSpec(model="guitar"), out / "download", out, "any") as tracker:
        tracker.model(bundle)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
    got = mlflow.artifacts.download_artifacts("models:/guitar@challenger", dst_path=str(tmp_path))
    assert (Path(got) / "weights.safetensors").read_bytes() == (bundle / "weights.safetensors").read_bytes()


def test_a_run_opened_again_is_continued(out: Path) -> None:
    folder = out / "again"
    first = Tracker(TrackingSpec(), folder, out, "again")  # never closed: its driver was killed
    first.params({"lr": 0.1, "epochs": 2})
    first.metrics(0, {"acc": 0.5})
    first.metrics(1, {"acc": 0.6})
    assert first._outbox is not None
    first._outbox.release()  # as the end of its process does with the lock
    (folder / "tracking.state.json").unlink()  # and it died before it could write this
    with (folder / "tracking.jsonl").open("ab") as journal:
        journal.write(b'{"kind": "metr')  # or this

    with Tracker(TrackingSpec(), folder, out, "again") as second:
        second.params({"lr": 0.1, "epochs": 3})
        for step in range(3):
            second.metrics(step, {"acc": 0.5 + step / 10, "late": step})
        second.model(make_bundle(folder))
        second.model(make_bundle(folder))
    client, run = find(f"sqlite:///{out}/mlflow.db", second)
    assert first.key == second.key and second.pending == 0
    assert [step for step, _ in history(client, run, "acc")] == [0, 1, 2]
    assert [step for step, _ in history(client, run, "late")] == [0, 1, 2]
    assert run.data.params["epochs"] == "2" and run.data.tags["changed.epochs"] == "3"
    assert len(client.search_model_versions("name = 'again'")) == 1
    with Tracker(TrackingSpec(), folder, out, "again") as third:
        assert find(f"sqlite:///{out}/mlflow.db", third)[1].info.status == "RUNNING"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")]
)
def test_how_a_run_ended(out: Path, error: BaseException, status: str) -> None:
    folder = out / type(error).__name__
    with pytest.raises(type(error)), Tracker(TrackingSpec(), folder, out, "ends") as tracker:
        raise error
    run = find(f"sqlite:///{out}/mlflow.db", tracker)[1]
    assert run.info.status == status
    assert run.data.tags["instrunet.error"].startswith(type(error).__name__)


def test_trials_are_children_even_if_they_come_first(out: Path) -> None:
    parent = Tracker(TrackingSpec(), out / "search", out, "search")
    with Tracker(TrackingSpec(), out / "search/1", out, "one", parent=parent.key) as child:
        pass
    with Tracker(TrackingSpec(), out / "search/2", out, "two", parent="f00d") as orphan:
        pass
    parent.close()
    uri = f"sqlite:///{out}/mlflow.db"
    assert find(uri, child)[1].data.tags["mlflow.parentRunId"] == find(uri, parent)[1].info.run_id
    assert find(uri, orphan)[1].data.tags["mlflow.parentRunId"]


def test_a_refused_line_holds_nothing_back(out: Path) -> None:
    with Tracker(TrackingSpec(), out / "refused", out, "refused") as tracker:
        tracker.artifacts(out / "refused/none", "report")
        tracker.metrics(0, {"../bad": 1.0})
        tracker.metrics(1, {"good": 1.0})
    assert tracker.pending == 2
    client, run = find(f"sqlite:///{out}/mlflow.db", tracker)
    assert run.info.status == "FINISHED" and history(client, run, "good") == [(1, 1.0)]
    (out / "refused/none").mkdir()
    assert sync(out / "refused") == (1, 1)


def test_a_late_sync_does_not_take_the_alias_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    spec = TrackingSpec(model="race")
    with Tracker(spec, out / "old", out, "old") as old:
        old.model(make_bundle(out / "old"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
    with Tracker(spec, out / "new", out, "new") as new:
        new.model(make_bundle(out / "new"))
    assert sync(out / "old")[1] == 0
    client, run = find(f"sqlite:///{out}/mlflow.db", new)
    assert client.get_model_version_by_alias("race", "challenger").run_id == run.info.run_id
    assert len(client.search_model_versions("name = 'race'")) == 2


def test_two_processes_never_push_one_journal(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    holder = Tracker(TrackingSpec(), out / "held", out, "held")
    with Tracker(TrackingSpec(), out / "held", out, "held") as other:
        other.metrics(0, {"acc": 0.5})
    assert other.pending == 2 and "another process is pushing this journal" in caplog.text
    holder.metrics(1, {"acc": 0.6})
    holder.close()
    client, run = find(f"sqlite:///{out}/mlflow.db", holder)
    assert history(client, run, "acc") == [(0, 0.5), (1, 0.6)]


def test_off_means_off(tmp_path: Path) -> None:
    with Tracker(TrackingSpec(enabled=False), tmp_path / "run", tmp_path / "out", "off") as tracker:
        tracker.params({"a": 1})
        tracker.metrics(0, {"acc": 1.0})
        tracker.model(tmp_path)
    assert (tracker.pending, tracker.url, list(tmp_path.iterdir())) == (0, "", [])


@pytest.mark.parametrize("kind", ["refused", "silent", "500", "silent after the probe", "dripping"])
def test_a_dead_server_costs_little_and_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    with dead_server(kind) as uri:
        spec, start = TrackingSpec(uri=uri), time.monotonic()
        train(spec, tmp_path)
        cost_s = time.monotonic() - start
    assert cost_s < 10, cost_s
    assert [line["step"] for line in Journal(tmp_path / "run").lines if line["kind"] == "metrics"] == [*range(EPOCHS)]


def test_trials_share_the_wait_for_a_dead_server(tmp_path: Path) -> None:
    with dead_server("black hole") as uri:
        start = time.monotonic()
        for trial in range(20):
            with Tracker(TrackingSpec(uri=uri), tmp_path / str(trial), tmp_path, "trial") as tracker:
                tracker.metrics(0, {"acc": 0.5})
        assert time.monotonic() - start < 10
        assert tracker.pending == 3


def test_sync_pushes_what_a_dead_server_missed(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    tracker = train(TrackingSpec(), tmp_path)
    n_lines = len(Journal(tmp_path / "run").lines)
    assert tracker.pending == n_lines
    assert sync_job(tmp_path) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    capsys.readouterr()
    assert sync_job(tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert sync(tmp_path) == (0, 0)

    client, run = find(server.url, tracker)
    assert [step for step, _ in history(client, run, "acc")] == [*range(EPOCHS)]
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert client.get_model_version_by_alias("dead", "challenger").run_id == run.info.run_id
    assert sorted(f.path for f in client.list_artifacts(run.info.run_id, "bundle")) == [
        *(f"bundle/{name}" for name in sorted(("bundle.json", "weights.safetensors", *FLAVOUR))),
    ]


def test_a_server_that_stops_in_the_middle(tmp_path: Path, server: Server) -> None:
    spec = TrackingSpec(uri=server.url)
    with Tracker(spec, tmp_path / "run", tmp_path, "stopped") as tracker:
        tracker.metrics(0, {"acc": 0.0})
        assert tracker.pending == 0
        os.killpg(server.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            for step in range(1, EPOCHS):
                tracker.metrics(step, {"acc": float(step)})
            tracker.model(make_bundle(tmp_path / "run"))
            tracker.close()
            cost_s = time.monotonic() - start
        finally:
            os.killpg(server.pid, signal.SIGCONT)
    assert cost_s < 10, cost_s
    assert sync(tmp_path)[1] == 0
    client, run = find(server.url, tracker)
    assert history(client, run, "acc") == [(step, float(step)) for step in range(EPOCHS)]
    assert run.info.status == "FINISHED"


def test_no_secret_is_written(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = server.url.replace("://", f"://user:{CANARY}@")
    with pytest.raises(ValueError), Tracker(TrackingSpec(uri=uri), tmp_path / "run", tmp_path, "secret") as tracker:
        tracker.params({"s3": {"secret_key": CANARY, "endpoint": f"https://a:{CANARY}@host/x"}, "api_token": [CANARY]})
        tracker.params({"list": [{"PASSWORD": CANARY}], "urls": [f"http://x?access_token={CANARY}"]})
        tracker.tags({"where": f"s3://{CANARY}@bucket", "credentials": {"a": CANARY}})
        raise ValueError(f"cannot reach https://user:{CANARY}@host")
    assert tracker.pending == 0 and CANARY not in tracker.url
    files = [*(tmp_path / "run").iterdir(), *server.folder.glob("mlflow.db*"), server.folder / "log"]
    assert [f.name for f in files if CANARY.encode() in f.read_bytes()] == []
    assert sync(tmp_path) == (0, 0)
    Journal(tmp_path / "run").append("tags", values={"late": "1"})
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        sync(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert sync(tmp_path) == (1, 0)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("http://user:p@ss@host:5000/a", "http://***@host:5000/a"),
        ("http://user:pa/ss@host", "http://***@host"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("s3://bucket/data@v2/x", "s3://bucket/data@v2/x"),
        ("?X-Amz-Signature=abc&x=1", "?X-Amz-Signature=***&x=1"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_flatten_keeps_every_leaf() -> None:
    tree = {"a": {"b": 1, "c": None}, "d": [{"e": True}, 2], "f": [1, 2], "g": {}, "h": Path("/x")}
    assert dict(flatten(tree, 10)) == {
        **{"a.b": "1", "a.c": "null", "d.0.e": "true", "d.1": "2", "f": "[1, 2]", "g": "{}", "h": '"/x"'}
    }


def test_the_users_environment_comes_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    with Tracker(TrackingSpec(), out / "environment", out, "environment"):
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def train(spec: TrackingSpec, out: Path) -> Tracker:
    with Tracker(spec, out / "run", out, "dead") as tracker:
        tracker.params({"lr": 0.1})
        for step in range(EPOCHS):
            tracker.metrics(step, {"acc": step / EPOCHS})
        tracker.model(make_bundle(out / "run"))
    assert tracker.pending > 0
    return tracker


FLAVOUR = ("MLmodel", "conda.yaml", "instrunet.zip", "python_env.yaml", "requirements.txt")
FLAVOUR += ("input_example.json", "serving_input_example.json")
SPEC = {"labels": ["a"], "kind": "single", "model": {"name": "task8"}, "front": {"features": [{"sample_rate": 8000}]}}


def make_bundle(folder: Path) -> Path:
    bundle = folder / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "bundle.json").write_text(json.dumps(SPEC))
    (bundle / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
    return bundle


def find(uri: str, tracker: Tracker) -> tuple[Any, Any]:
    """The one run with the tracker's key: more would be a duplicate."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("instrunet")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`instrunet.key` = '{tracker.key}'")
    return client, run


def history(client: Any, run: Any, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def sync_job(out: Path) -> int:
    import importlib.util

    spec = importlib.util.spec_from_file_location("sync_job", Path("jobs/sync.py"))
    assert spec and spec.loader
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sync.py", str(out)])
        return int(job.main())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(6000):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


class dead_server:  # noqa: N801 - used like a function
    """A server that is away: its URI, for as long as the block runs."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.http: http.server.ThreadingHTTPServer | None = None
        self.listener = socket.socket()

    def __enter__(self) -> str:
        if self.kind == "refused":
            return f"http://127.0.0.1:{free_port()}"
        if self.kind == "black hole":
            # A full backlog drops SYNs, as a firewall does.
            self.listener.bind(("127.0.0.1", 0))
            self.listener.listen(0)
            self.fillers = [socket.socket() for _ in range(3)]
            for filler in self.fillers:
                filler.setblocking(False)
                filler.connect_ex(self.listener.getsockname())
            return f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        if self.kind == "silent":
            self.listener.bind(("127.0.0.1", 0))
            self.listener.listen(100)
            return f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(self.kind))
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.http.server_port}"

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for filler in getattr(self, "fillers", []):
            filler.close()
        if self.http:
            self.http.shutdown()
            self.http.server_close()


def handler(kind: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if kind == "500":
                self.answer(500, b"{}")
            elif "get-by-name" in self.path and kind == "silent after the probe":
                self.answer(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')
            elif kind == "dripping":  # each byte is in time, the answer never
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                for _ in range(30):
                    self.wfile.write(b"X-A: b\r\n")
                    time.sleep(1)
            else:
                time.sleep(30)

        do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
