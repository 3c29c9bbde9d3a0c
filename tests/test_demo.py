"""`make demo` shows what it promises, and what it leaves keeps the contracts."""

import json
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import run

pytestmark = pytest.mark.ray
Done = subprocess.CompletedProcess[str]


@pytest.mark.timeout(700)
def test_held_out_accuracy_is_above_90_percent(demo: Done) -> None:
    found = re.search(r"held-out \((\d+) clips, (\d+) groups, split test\): accuracy ([\d.]+)", demo.stdout)
    assert found, demo.stdout
    assert int(found[1]) >= 60
    assert float(found[3]) > 0.9


def test_the_console_is_calm(demo: Done) -> None:
    """Progress and results, no log lines of Ray or MLflow, no warnings."""
    text = demo.stdout + demo.stderr
    assert len(text.splitlines()) < 60, text
    assert not re.search(r"\(pid=|WARNING|INFO|Traceback|Deprecat|\[E |core_worker", text), text


def test_report_tags_and_record_are_where_it_says(demo: Done, place: Path) -> None:
    named = dict(line.split(maxsplit=1) for line in demo.stdout.splitlines()[-4:])
    assert (place / named["report"]).is_file()
    assert (place / named["bundle"] / "weights.safetensors").is_file()
    assert (place / "runs/demo/mlflow.db").is_file()
    (tags,) = (place / "runs/demo/tags").iterdir()
    ledger = json.loads((tags / "ledger.json").read_text())
    assert ledger["closed"] is True
    assert ledger["files"]["in"] == ledger["files"]["by_status"]["tagged"] == 22
    assert (tags / "_SUCCESS").is_file()
    assert pq.read_table(tags / "recordings").num_rows == 22
    speed = json.loads((tags / "speed.json").read_text())
    assert speed["parts"]["made"] == speed["parts"]["of"] > 0 and speed["cost"] is None
    assert f"{speed['audio_h_per_core_hour']:.0f} hours of sound a core hour" in demo.stdout


def test_the_split_is_by_recording(demo: Done, place: Path) -> None:
    (manifest,) = (place / "runs/demo/features").glob("*/manifest.parquet")
    rows = pq.read_table(manifest, columns=["group", "split"]).to_pylist()
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["split"])
    assert max(len(splits) for splits in sides.values()) == 1
    assert {"train", "val", "test", "official"} == {row["split"] for row in rows}


def test_a_second_run_finds_everything_made(demo: Done, place: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (place / "runs/demo/features").rglob("*") if p.is_file()}
    again = run("python jobs/featurize.py configs/smoke.yaml out=runs/demo data.root=runs/demo/corpus", place)
    assert again.returncode == 0
    assert "made before" in again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in (place / "runs/demo/features").rglob("*") if p.is_file()}


def test_mlflow_holds_the_run_its_report_and_its_model(demo: Done, place: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/runs/demo/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("instrunet").experiment_id])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.name"] == "iteration11"
    assert tracked.data.metrics["test_accuracy"] > 0.9
    assert len(client.get_metric_history(tracked.info.run_id, "val_loss")) == 16
    top = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert {"bundle", "report"} <= top
    assert client.get_model_version_by_alias("smoke", "challenger").run_id == tracked.info.run_id


def test_the_bundle_works_in_two_lines_of_python(demo_bundle: Path, place: Path) -> None:
    clip = next((place / "runs/demo/corpus/IRMAS-TrainingData/org").glob("*.wav"))
    code = f"import instrunet; print(instrunet.load({str(demo_bundle)!r})({str(clip)!r}).labels)"
    done = run(f'python -c "{code}"', place)
    assert done.stdout.strip() == "['org']", done.stderr


def test_its_own_training_data_is_refused_as_a_test(demo_bundle: Path, place: Path) -> None:
    command = f"python jobs/evaluate.py {demo_bundle} configs/smoke.yaml out=runs/demo data.root=runs/demo/corpus"
    refused = run(f"{command} --split train --out runs/leak", place)
    assert refused.returncode == 2
    assert "88 of 88 groups were trained on" in refused.stderr
    assert not (place / "runs/leak").exists()
    allowed = run(f"{command} --split train --out runs/leak --allow-leaks", place)
    assert allowed.returncode == 0
    assert "LEAKY" in allowed.stdout
    assert "LEAKY" in (place / "runs/leak/index.html").read_text()


def test_a_folder_of_another_job_is_refused(demo_bundle: Path, place: Path) -> None:
    (tags,) = (place / "runs/demo/tags").iterdir()
    before = {p: p.stat().st_mtime_ns for p in tags.rglob("*")}
    command = f"python jobs/tag.py {demo_bundle} runs/demo/corpus/IRMAS-TestingData-Part1 --out {tags}"
    refused = run(f"{command} --unit-s 4", place)
    assert refused.returncode == 2
    assert "belongs to another job" in refused.stderr
    again = run(command, place)
    assert (again.returncode, again.stdout.strip()) == (0, str(tags))
    assert "is done" in again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in tags.rglob("*")}
