"""`ray job submit` of a job of ours to a head that was started by hand."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import environment, make_place, run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head on loopback with a token; the settings by which a client reaches it."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    # Its own folder, and a short one: a socket's path has 107 characters, and the usual folder may know another cluster
    home = tempfile.mkdtemp(prefix="head-", dir="/tmp")
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": home}
    # The agent that starts jobs has one port by default: beside any other Ray of the machine it would take no job, ever
    port, dashboard, agent, metrics = free_port(), free_port(), free_port(), free_port()
    command = (
        f"exec ray start --head --block --num-cpus=4 --port={port} --node-ip-address=127.0.0.1 "
        f"--dashboard-host=127.0.0.1 --dashboard-port={dashboard} "
        f"--dashboard-agent-listen-port={agent} --object-store-memory=500000000 --disable-usage-stats "
        f"--metrics-export-port={metrics} --system-config='{{\"metrics_report_interval_ms\": 500}}'"
    )
    with (folder / "log").open("w") as log:
        job = subprocess.Popen(
            ["bash", "-c", command], env=environment() | settings, stdout=log, stderr=log, start_new_session=True
        )
    client = settings | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "METRICS": f"127.0.0.1:{metrics}"}
    try:
        _wait_until_it_takes_jobs(client, folder, job)
        yield client
    finally:
        os.killpg(job.pid, signal.SIGTERM)
        try:
            job.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_it_takes_jobs(client: dict[str, str], folder: Path, job: "subprocess.Popen[bytes]") -> None:
    """Its port answers some seconds before the agent that starts jobs does."""
    said = ""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        tried = run("ray job submit -- true", folder, **client)
        if tried.returncode == 0:
            return
        said = tried.stdout + tried.stderr
        assert job.poll() is None, (folder / "log").read_text()
        time.sleep(1)
    raise AssertionError(f"the head took no job within three minutes: {said}{(folder / 'log').read_text()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("client") / "instrunet")


def test_train(head: dict[str, str], place: Path, small_folder: Path) -> None:
    """The README's way, on a small folder."""
    command = f"python jobs/train.py configs/csv.yaml data.root={small_folder} train.epochs=2 out=$PWD/runs"
    done = run(f"ray job submit --working-dir . -- {command}", place, **head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    (bundle,) = (place / "runs/train").glob("csv-*/bundle")
    assert str(bundle) in done.stdout


def test_prometheus_sees_a_tagging_at_work(head: dict[str, str], place: Path, small_folder: Path) -> None:
    (bundle,) = (place / "runs/train").glob("csv-*/bundle")
    tag = f"ray job submit --working-dir . -- python jobs/tag.py {bundle} {small_folder} --out {place}/runs/tags"
    job = subprocess.Popen(["bash", "-c", tag], cwd=place, env=environment() | head, stdout=subprocess.DEVNULL)
    seen: dict[str, float] = {}
    while job.poll() is None or seen.get("ray_instrunet_parts_left"):  # what is exported outlives the job a little
        with urllib.request.urlopen(f"http://{head['METRICS']}/metrics", timeout=120) as answer:
            text = answer.read().decode()
        seen |= {m[1]: float(m[2]) for m in re.finditer(r"^(ray_instrunet_\w+)\{.*\} (\S+)$", text, re.MULTILINE)}
        if job.poll() is not None and not re.search("^ray_instrunet", text, re.MULTILINE):
            break
        time.sleep(0.2)
    assert job.wait() == 0
    ledger = json.loads((place / "runs/tags/ledger.json").read_text())
    assert seen["ray_instrunet_files_total"] == ledger["files"]["in"]
    assert seen["ray_instrunet_audio_s_total"] == pytest.approx(ledger["audio_s"]["out"])
    assert seen["ray_instrunet_parts_left"] == 0 and seen.get("ray_instrunet_bad_total", 0) == 0


def test_a_mistake_fails_the_job(head: dict[str, str], place: Path) -> None:
    done = run("ray job submit --working-dir . -- python jobs/train.py configs/csv.yaml train.epoch=2", place, **head)
    assert done.returncode == 1
    assert "unknown field train.epoch; did you mean epochs?" in done.stdout + done.stderr
