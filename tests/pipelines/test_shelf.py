"""Names of the registry that lead elsewhere one day: a server goes with them, and nobody who asks is turned away."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from archives import sound, write
from conftest import environment, make_place
from mlflow import MlflowClient
from ray.exceptions import ActorDiedError
from test_registry import client, mlflow

from instrunet.bundle import Bundle
from instrunet.data.parts import read_json
from pipelines import registry, serve
from pipelines.shelf import Shelf

__all__ = ["client", "mlflow"]


def held(shelf: Shelf) -> dict[str, str]:
    places = read_json(shelf.file)
    assert places == shelf.places
    return {name: Bundle.load(Path(path)).fingerprint for name, path in places.items()}


def test_a_name_goes_where_its_alias_goes(client: MlflowClient, mlflow: Path, tmp_path: Path) -> None:
    first, second = (Bundle.load(mlflow / f"{k}/bundle").fingerprint for k in (0, 1))
    client.set_registered_model_alias("tiny", "champion", "1")
    shelf = Shelf(["models:/tiny@champion", "models:/tiny/1", str(mlflow / "0/bundle")], tmp_path, "torch")
    assert held(shelf) == {"tiny@champion": first, "tiny/1": first, "0": first} and shelf.moves
    assert shelf.renew() == []
    client.set_registered_model_alias("tiny", "champion", "2")
    assert shelf.renew() == ["tiny@champion"] and shelf.renew() == []
    assert held(shelf) == {"tiny@champion": second, "tiny/1": first, "0": first}
    client.set_registered_model_alias("tiny", "champion", "1")
    assert shelf.renew() == ["tiny@champion"]
    assert held(shelf)["tiny@champion"] == first
    shelf.renew()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "models.json", "tiny@champion-1"]


def test_without_an_alias_nothing_moves(mlflow: Path, tmp_path: Path) -> None:
    assert not Shelf(["models:/tiny/1", str(mlflow / "0/bundle")], tmp_path, "torch").moves


def test_what_cannot_be_had_leaves_the_old_version(
    client: MlflowClient,
    mlflow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.set_registered_model_alias("tiny", "champion", "1")
    shelf = Shelf(["models:/tiny@champion"], tmp_path, "torch")
    before = held(shelf)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nobody listens
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert shelf.renew() == shelf.renew() == [] and held(shelf) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tiny@champion stays at version 1: ")
    client.set_registered_model_alias("tiny", "champion", "2")
    whole = registry.fetched

    def cut(name: str, folder: Path) -> Path:
        path = whole(name, folder)
        (path / "weights.safetensors").write_bytes(b"")
        return path

    with monkeypatch.context() as broken:
        broken.setattr(registry, "fetched", cut)
        assert shelf.renew() == [] and held(shelf) == before
    assert "stays at version 1" in capsys.readouterr().err
    assert shelf.renew() == ["tiny@champion"] and held(shelf) != before
    client.delete_registered_model_alias("tiny", "champion")
    assert shelf.renew() == []  # and an alias that is gone leads where it led
    client.set_registered_model_alias("tiny", "champion", "2")


class Handle:
    """A server that cannot take what has moved when it is first told."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.renew = self

    def remote(self, names: list[str]) -> "Handle":
        self.told.append([*names])
        return self

    def result(self, timeout_s: float) -> None:
        if len(self.told) == 1:
            raise ActorDiedError
        if len(self.told) == 2:
            raise KeyboardInterrupt


def test_a_server_that_is_away_is_told_again(
    client: MlflowClient, mlflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_registered_model_alias("tiny", "champion", "1")
    shelf, handle = Shelf(["models:/tiny@champion"], tmp_path, "torch"), Handle()
    client.set_registered_model_alias("tiny", "champion", "2")
    serve._wait(shelf, handle, 0.01)
    assert handle.told == [["tiny@champion"]] * 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: tiny@champion moved, which the server has yet to take: ") and last == "stopped"


@pytest.mark.ray
def test_a_server_answers_by_the_new_version(client: MlflowClient, mlflow: Path, tmp_path: Path) -> None:
    """Asked all the time; not one answer is missing, and each says by which model it is."""
    client.set_registered_model_alias("tiny", "champion", "1")
    prints = [Bundle.load(mlflow / f"{k}/bundle").fingerprint for k in (0, 1)]
    place = make_place(tmp_path / "instrunet")
    body = write(tmp_path / "a.wav", sound(1.0)).read_bytes()
    expected = {}
    for k, name in enumerate(prints):
        expected[name] = Bundle.load(mlflow / f"{k}/bundle")(tmp_path / "a.wav").scores
    env = environment() | {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    command = [sys.executable, "jobs/serve.py", "models:/tiny@champion", "--port", "0", "--refresh", "0.2"]
    with (place / "err").open("w") as err:
        job = subprocess.Popen(command, cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=err)
    try:
        assert job.stdout
        netloc = job.stdout.readline().strip().removeprefix("http://")
        assert netloc, (place / "err").read_text()

        def ask(method: str, path: str, sent: Any = None) -> Any:
            with closing(http.client.HTTPConnection(netloc, timeout=60)) as link:
                link.request(method, f"/api/{path}", sent)
                reply = link.getresponse()
                assert reply.status == 200
                return json.loads(reply.read())

        def until(version: str) -> list[str]:
            client.set_registered_model_alias("tiny", "champion", version)
            seen, deadline = list[str](), time.monotonic() + 60
            while prints[int(version) - 1] not in seen and time.monotonic() < deadline:
                told = ask("POST", "predict", body)
                assert told["scores"] == pytest.approx(expected[told["fingerprint"]], abs=1e-5)
                seen.append(told["fingerprint"])
            return seen

        assert ask("POST", "predict", body)["fingerprint"] == prints[0]
        for version in ("2", "1"):
            new = prints[int(version) - 1]
            assert until(version)[-1] == new
            (model,) = ask("GET", "models")["models"]
            assert (model["name"], model["fingerprint"]) == ("tiny@champion", new)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=60)
        told = (place / "err").read_text()
        assert job.returncode == 0 and "Traceback" not in told, told
        assert "tiny@champion-2" in told and told.splitlines()[-1] == "stopped"
    finally:
        job.kill()
        job.communicate()
