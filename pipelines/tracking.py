"""Tracking: all that a run tells goes to a local journal first, and from there to MLflow as far as MLflow answers.

A dead store costs one try while the run goes on and one in `close`, each at most SERVER_S; `sync` pushes the rest.
A crash between a push and the state pushes lines twice, which changes nothing: a metric keeps its journal's time and
MLflow holds one value per (key, time, step, value); parameters, tags, files and the model version are set again.
"""

import math
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from instrunet.errors import ConfigError
from instrunet.experiment import TrackingSpec
from pipelines import flavour
from pipelines.journal import NAME, Journal, Line, clean, flatten
from pipelines.outbox import Dead, Outbox, Patience, calm, probe

SERVER_S = 4.0  # a healthy server answers in 0.1 s; a second try doubles it, and 10 s is the promise
LONG_S = 60.0  # of `sync`, and of the embedded store: its first call makes the tables, 10 s on two busy cores
QUIET_S = 60.0  # the trials of a search do not each wait for the same dead server
PER_LINE = 20  # 20 values of 6,000 characters, up to 6 bytes each in JSON, fit into MLflow's 1 MB per request
LONGEST_PARAM, LONGEST_TAG = 6000, 5000  # MLflow refuses longer values
KEY, TIME = "instrunet.key", "instrunet.time"  # our tags: of a run, of a model's version
NOISY = ("mlflow", "alembic", "urllib3.connectionpool")
CALM = {  # names as in mlflow/environment_variables.py
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # its import sets the levels of its loggers
}
_dead: Dead = {}  # of this process


class Tracker:
    """One run's tracking, used from the driver; opened again on the same folder it continues the same MLflow run.

    `parent` is the `key` of another tracker. Keep tracked files in the run's folder: `sync` may need them later.
    """

    def __init__(self, spec: TrackingSpec, run_dir: Path, out: Path, name: str, *, parent: str | None = None) -> None:
        self.spec, self.name, self.key = spec, name, ""
        self._outbox: Outbox | None = None
        if spec.enabled:
            out.mkdir(parents=True, exist_ok=True)
            uri = spec.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve()}/mlflow.db"
            run: Line = {"name": clean(name), "experiment": spec.experiment, "parent": parent}
            run |= {"files": (out.resolve() / "mlartifacts").as_uri(), "uri": clean(uri), "pinned": bool(spec.uri)}
            journal = Journal(run_dir)
            self.key = journal.begin(run)
            self._outbox = Outbox(journal, _Mlflow(uri, SERVER_S), _dead, QUIET_S)
            self._outbox.send()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError) if error else nullcontext():  # on a full disk the first error is the one to be told
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._outbox and error:
            tag = {"instrunet.error": clean(f"{type(error).__name__}: {error}")[:500]}
            self._outbox.journal.append("tags", values=tag)
        if self._outbox:
            failed = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
            self._outbox.journal.append("status", status=failed if error else "FINISHED")
        self.close()

    def params(self, tree: Mapping[str, Any]) -> None:
        """Nested parameters under dotted keys. MLflow never changes one: a new value becomes the tag changed.KEY."""
        if self._outbox:
            values, known = dict(flatten(tree, LONGEST_PARAM)), self._outbox.journal.params
            self._values("params", {k: v for k, v in values.items() if k not in known})
            self._values("tags", {f"changed.{k}": v for k, v in values.items() if known.get(k, v) != v})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The first value of a (key, step) stays, so a restarted driver may report it again; nan and inf stay local."""
        if self._outbox:
            new = {k: float(v) for k, v in values.items() if (k, step) not in self._outbox.journal.points}
            if new:
                self._outbox.note(
                    "metrics", step=step, values={k: v if math.isfinite(v) else str(v) for k, v in new.items()}
                )

    def tags(self, values: Mapping[str, Any]) -> None:
        self._values("tags", dict(flatten(values, LONGEST_TAG)))

    def artifacts(self, folder_or_file: Path, to: str) -> None:
        """A folder's content, or a file, under the folder `to`."""
        if self._outbox:
            self._outbox.note("artifacts", path=self._outbox.journal.relative(folder_or_file), to=to)

    def model(self, bundle: Path) -> None:
        """The bundle's folder as the artifact `bundle`, registered as a version of the model, which gets the alias."""
        if self._outbox:
            path, name = self._outbox.journal.relative(bundle), self.spec.model or self.name
            self._outbox.note("model", path=path, to="bundle", name=name, alias=self.spec.alias)

    def close(self) -> None:
        """One more try for what still waits."""
        if self._outbox:
            self._outbox.send(again=True)
            self._outbox.release()

    @property
    def url(self) -> str:
        """What shows the runs: the server's address, or the command that starts one on the embedded store."""
        place = self._outbox.store.place if self._outbox else ""
        return place if place.startswith("http") or not place else f"mlflow ui --backend-store-uri {shlex.quote(place)}"

    @property
    def pending(self) -> int:
        """Lines that MLflow does not have."""
        return len(self._outbox.journal.waiting()) if self._outbox else 0

    def _values(self, kind: str, values: Mapping[str, str]) -> None:
        if self._outbox:
            for start in range(0, len(values), PER_LINE):
                self._outbox.note(kind, values=dict(list(values.items())[start : start + PER_LINE]))


def sync(out: Path) -> tuple[int, int]:
    """Push what waits in every journal under `out`: (lines pushed, lines that still wait)."""
    if not out.is_dir():
        raise ConfigError(f"expected an output folder at {out}, found none; give the OUT of a training run")
    pushed = waiting = 0
    dead: Dead = {}  # 500 runs on one dead server are one wait, not 500
    for path in sorted(out.rglob(NAME)):
        journal = Journal(path.parent)
        uri = _sync_uri(journal)
        outbox = Outbox(journal, _Mlflow(uri, LONG_S), dead, math.inf)
        before = len(journal.waiting())
        if before and "***" in uri:
            raise ConfigError(f"expected where to push {path}, it holds {uri!r}; set MLFLOW_TRACKING_URI")
        outbox.send()
        outbox.release()
        pushed, waiting = pushed + before - len(journal.waiting()), waiting + len(journal.waiting())
    return pushed, waiting


class _Mlflow:
    """The store: one MLflow run, found by the journal's key or made."""

    def __init__(self, uri: str, seconds: float) -> None:
        self.uri, self.is_server = uri, uri.startswith("http")
        self.place = re.sub(r"(?<=://)[^/]*@", "", clean(uri)).rstrip("/")
        self.seconds = seconds if self.is_server else LONG_S
        self.calm = partial(calm, CALM | {"MLFLOW_HTTP_REQUEST_TIMEOUT": f"{self.seconds:.0f}"}, NOISY)
        self.client: Any = None  # a MlflowClient, made in `open` with the run's id

    def open(self, journal: Journal, patience: Patience) -> None:
        if self.is_server:  # before the import, which costs 3 to 6 s; not /health, which answers without the database
            query = urlencode({"experiment_name": journal.header["experiment"]})
            patience.call(partial(probe, f"{self.place}/api/2.0/mlflow/experiments/get-by-name?{query}"))
        from mlflow import MlflowClient  # in the caller's thread: two threads that import can lock each other out

        self.client = MlflowClient(self.uri)
        if not journal.state["run_id"]:
            journal.save(run_id=patience.call(partial(self._find_or_make, journal.header)))
        self.run_id = str(journal.state["run_id"])

    def push(self, folder: Path, lines: list[Line]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client, line, batch = self.client, lines[0], partial(self.client.log_batch, self.run_id, synchronous=True)
        match line["kind"]:
            case "run":  # a child may have made it without knowing its name
                client.update_run(self.run_id, name=line["name"])
            case "params":
                batch(params=[Param(_key(k), v) for k, v in line["values"].items()])
            case "tags":
                batch(tags=[RunTag(_key(k), v) for k, v in line["values"].items()])
            case "metrics":
                values = [(k, v, x["time"], x["step"]) for x in lines for k, v in x["values"].items()]
                points = [Metric(_key(k), v, at, step) for k, v, at, step in values if not isinstance(v, str)]
                for start in range(0, len(points), 1000):  # MLflow's limit
                    batch(metrics=points[start : start + 1000])
            case "status" if line["status"] == "RUNNING":
                client.update_run(self.run_id, "RUNNING")
            case "status":
                client.set_terminated(self.run_id, line["status"], line["time"])
            case "artifacts" | "model":
                path = folder / line["path"]
                (client.log_artifacts if path.is_dir() else client.log_artifact)(self.run_id, str(path), line["to"])
                if line["kind"] == "model":
                    with TemporaryDirectory(prefix="instrunet-") as more:
                        client.log_artifacts(self.run_id, str(flavour.write(path, Path(more))), line["to"])
                    self._register(line)

    def refuses(self, error: Exception, line: Line) -> bool:
        """4xx, but for a login or a limit that may pass; and files, which may go elsewhere than the rest (S3)."""
        status = getattr(error, "get_http_status_code", lambda: 500)()
        files = line["kind"] in ("artifacts", "model") and not isinstance(error, TimeoutError)
        return files or (400 <= status < 500 and status not in (401, 403, 408, 429))

    def _find_or_make(self, header: Line) -> str:
        experiment = self._experiment(header["experiment"], None if self.is_server else header["files"])
        parent, tags, start_ms = header["parent"], {KEY: header["key"]}, header["time"]
        if parent:
            tags["mlflow.parentRunId"] = self._run(experiment, parent, {KEY: parent}, start_ms)
        return self._run(experiment, header["name"], tags, start_ms)

    def _experiment(self, name: str, files: str | None) -> str:
        with suppress(Exception):  # it is there, as a rule; of two that make it at once the second finds it below
            if not self.client.get_experiment_by_name(name):
                self.client.create_experiment(name, artifact_location=files)
        return str(self.client.get_experiment_by_name(name).experiment_id)

    def _run(self, experiment: str, name: str, tags: dict[str, str], start_ms: int) -> str:
        query, oldest = f"tags.`{KEY}` = '{tags[KEY]}'", ["attributes.start_time ASC"]
        found = self.client.search_runs([experiment], query, max_results=1, order_by=oldest)
        run = found[0] if found else self.client.create_run(experiment, start_ms, tags, name)
        return str(run.info.run_id)

    def _register(self, line: Line) -> None:
        """One version per run; the alias goes to the newest bundle, so a late `sync` never takes it back."""
        name, client, source = line["name"], self.client, f"runs:/{self.run_id}/bundle"
        with suppress(Exception):  # it is there; anything else that is wrong shows below
            client.create_registered_model(name)
        made = [v for v in client.search_model_versions(f"run_id = '{self.run_id}'") if v.name == name]
        version = (made or [client.create_model_version(name, source, self.run_id, await_creation_for=0)])[0].version
        client.set_model_version_tag(name, version, TIME, str(line["time"]))
        held = client.get_registered_model(name).aliases.get(line["alias"])
        if not held or int(client.get_model_version(name, held).tags.get(TIME, 0)) <= line["time"]:
            client.set_registered_model_alias(name, line["alias"], version)


def _sync_uri(journal: Journal) -> str:
    """What the configuration says, or else what the environment says now, or else what it said then."""
    uri = str(journal.header.get("uri", "***"))
    known = journal.header.get("pinned") and "***" not in uri
    return uri if known else os.environ.get("MLFLOW_TRACKING_URI") or uri


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]  # what MLflow allows
