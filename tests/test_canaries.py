"""Six secrets are planted as a user would have them; none is in any of ten places that others may read."""

import argparse
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import tag_archive, tiny_bundle, write_archive
from conftest import ROOT, environment
from kube import TOKEN, Kube, Operator, Refusal, kubeconfig, serving

from instrunet import experiment
from instrunet.archive import books
from instrunet.archive.units import UnitSpec
from instrunet.config import load_tree
from instrunet.data import places
from instrunet.experiment import TrackingSpec
from pipelines import cli, remote, submit
from pipelines.rayjob import manifest, render
from pipelines.schedule import scheduled
from pipelines.target import ClusterTarget
from pipelines.tracking import Tracker

PLANTED = {  # five in the environment, as the shell and Kubernetes give them; the sixth is the kubeconfig's token
    "AWS_ACCESS_KEY_ID": "canary-1-access",
    "AWS_SECRET_ACCESS_KEY": "canary-2-secret",
    "MLFLOW_TRACKING_PASSWORD": "canary-3-mlflow",
    "RAY_AUTH_TOKEN": "canary-4-ray",
    "MLFLOW_TRACKING_URI": "http://user:canary-5-url@127.0.0.1:9",
}
CANARIES = (*PLANTED.values(), TOKEN)
SEARCHED = re.compile("|".join([r"canary-\d-\w+", re.escape(TOKEN)]).encode())
CONFIG = str(ROOT / "configs/smoke.yaml")
WORK = [CONFIG, "train.epochs=2"]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    kube = Kube()
    monkeypatch.setattr(submit, "WATCH_S", 1)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(kube) as address:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, address)))
        yield kube


def target() -> ClusterTarget:
    return ClusterTarget.parse(load_tree(ROOT / "configs/cluster/k8s.yaml"), source="k8s.yaml")


def hits(*found: str | bytes) -> set[bytes]:
    return set(SEARCHED.findall(b"\0".join(part if isinstance(part, bytes) else part.encode() for part in found)))


def files(folder: Path) -> list[bytes]:
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert found
    return found


def test_the_search_finds_all_six() -> None:
    assert len(hits(*CANARIES)) == len(CANARIES) == 6


def test_1_manifest_and_2_cronjob() -> None:
    job = manifest("train", WORK, target())
    assert hits(render(job), render(scheduled(job, "@daily", "cronjob", target()))) == set()


def asked(**other: object) -> argparse.Namespace:
    """What jobs/submit.py hands on."""
    usual = {"job": "train", "arguments": [CONFIG, "--print-config"], "cluster": ROOT / "configs/cluster/k8s.yaml"}
    usual |= {"kind": "cronjob", "schedule": None, "dry_run": False, "wait": False, "follow": False, "run": ""}
    return argparse.Namespace(**(usual | other))


def test_3_dry_run_and_6_config_print(capsys: pytest.CaptureFixture[str]) -> None:
    """With -v, and with the password in the configuration and in the arguments too."""
    url = f"tracking.uri={PLANTED['MLFLOW_TRACKING_URI']}"
    remote.run(asked(dry_run=True, arguments=WORK))
    remote.run(asked(dry_run=True, arguments=WORK, schedule="@daily"))
    assert cli.run(lambda: remote.run(asked(dry_run=True, arguments=[CONFIG, url])), verbose=True) == 2
    words = argparse.Namespace(config=CONFIG, overrides=[url], print_config=True, verbose=True)
    assert cli.run_experiment(words, "train") == 0
    said = capsys.readouterr()
    assert "http://***@127.0.0.1:9" in said.out
    assert "kind: CronJob" in said.out
    assert hits(said.out, said.err) == set()


def test_4_errors_of_the_submitter_and_5_logs(kube: Kube, capsys: pytest.CaptureFixture[str]) -> None:
    for refusal in (Refusal(403, "rayjobs is forbidden"), Refusal(401, "Unauthorized"), Refusal(422, "spec: Invalid")):
        kube.answers.append(refusal)
        assert cli.run(lambda: remote.run(asked()), verbose=True) != 0
    with Operator(kube, ROOT, environment() | PLANTED):
        remote.run(asked(follow=True))
    said = capsys.readouterr()
    assert "refused instrunet/" in said.err
    assert "Complete, SUCCEEDED" in said.err
    assert "learning_rate" in said.out
    assert hits(said.out, said.err, json.dumps(kube.logs), json.dumps(list(kube.objects.values()))) == set()
    assert TOKEN in str(kube.came), "the token was needed, and went where it belongs"


def test_7_mlflow(tmp_path: Path) -> None:
    """All that goes to MLflow goes to the journal first; the server, with a password in its address, is away."""
    tree = experiment.load(CONFIG, [f"tracking.uri={PLANTED['MLFLOW_TRACKING_URI']}"]).model_dump(mode="json")
    with pytest.raises(RuntimeError), Tracker(TrackingSpec(), tmp_path / "run", tmp_path / "out", "smoke") as tracker:
        tracker.params(tree)
        tracker.tags({"store": PLANTED["MLFLOW_TRACKING_URI"]})
        raise RuntimeError(f"cannot reach {PLANTED['MLFLOW_TRACKING_URI']}")
    assert hits(*files(tmp_path)) == set()


def test_8_runtime_env_and_what_is_sent_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its env_vars stand in clear in Ray's logs: nobody sets any. A store's object travels without its credentials."""
    for path in [*(ROOT / "pipelines").glob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        assert not re.search(r"runtime_?env|env_vars", path.read_text(encoding="utf-8"), re.IGNORECASE), path
    assert "runtimeEnvYAML" not in manifest("train", WORK, target())["spec"]
    here = places.located("s3://bucket/folder")
    assert hits(pickle.dumps(here), repr(here), str(here)) == set()


def test_9_bundle_and_10_ledger(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    write_archive(tmp_path / "archive")
    work = tag_archive(tmp_path / "archive", tmp_path / "tags", bundle, UnitSpec())
    books.close(tmp_path / "tags", work, bundle)
    bundle.save(tmp_path / "bundle")
    assert (tmp_path / "tags" / books.LEDGER).is_file()
    assert hits(*files(tmp_path / "bundle"), *files(tmp_path / "tags")) == set()
