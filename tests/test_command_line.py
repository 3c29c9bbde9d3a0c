"""A user's mistakes: one line that says what was expected, what came and what to change, exit code 2, nothing left."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment, make_place, run


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("wrong") / "instrunet")


@pytest.fixture
def folder(tmp_path: Path, small_folder: Path) -> Path:
    """A small good corpus to spoil."""
    return Path(shutil.copytree(small_folder, tmp_path / "FOLDER"))


def rows(folder: Path) -> list[str]:
    return (folder / "metadata.csv").read_text().splitlines()


def write(folder: Path, lines: list[str]) -> None:
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def refused(here: Path, command: str, *told: str) -> None:
    done = run(command, here)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for text in told:
        assert text in lines[0]
    assert done.stdout == ""
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train.py configs/smoke.yaml train.epoch=3", "unknown field train.epoch; did you mean epochs?"),
        ("train.py configs/smoke.yaml model.name=task9", "did you mean task8?"),
        ("train.py configs/smoke.yaml train.epochs=0", "greater than 0"),
        ("train.py configs/smok.yaml", "did you mean configs/smoke.yaml?"),
        ("featurize.py configs/csv.yaml", "expected a folder of sound at FOLDER, found nothing"),
        ("featurize.py configs/irmas.yaml data.root=jobs", "found no .wav file"),
        ("tune.py configs/smoke.yaml", "a search needs tune.space"),
        ("tag.py nowhere jobs --out runs/tags", "expected a bundle"),
        ("evaluate.py nowhere configs/smoke.yaml --out runs/report", "expected a bundle"),
        ("predict.py nowhere a.wav", "expected a bundle"),
        ("ensemble.py nowhere configs/smoke.yaml --out runs/x", "expected a bundle"),
        ("ensemble.py nowhere --out runs/x", "expected a CONFIG (.yaml) behind the bundles, got none"),
        (
            "tune.py configs/smoke.yaml 'tune={space: {train.epoch: {choice: [1]}}}'",
            "tune.space: unknown field train.epoch; did you mean epochs?",
        ),
        ("export.py nowhere --out runs/x", "expected a bundle"),
        ("submit.py trian configs/smoke.yaml --dry-run", "did you mean train?"),
    ],
)
def test_wrong_arguments(here: Path, command: str, told: str) -> None:
    refused(here, f"python jobs/{command}", told)


def test_arguments_missing(here: Path) -> None:
    done = run("python jobs/tag.py", here)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_verbose_shows_the_traceback(here: Path) -> None:
    done = run("python jobs/train.py configs/smoke.yaml train.epoch=3 -v", here)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_empty_class(here: Path, folder: Path) -> None:
    write(folder, [line.replace(",flu,", ",,") for line in rows(folder)])
    refused(here, f"python jobs/featurize.py configs/csv.yaml data.root={folder}", "the label is empty")


def test_class_with_one_group_only(here: Path, folder: Path) -> None:
    lines = [line if ",flu," not in line else line.rsplit(",", 1)[0] + ",one" for line in rows(folder)]
    write(folder, lines)
    refused(here, f"python jobs/train.py configs/csv.yaml data.root={folder}", "class 'flu' has one group only ('one')")


def test_group_on_both_sides(here: Path, folder: Path) -> None:
    header, *lines = rows(folder)
    split = [f"{line},{'train' if k % 2 else 'test'}" for k, line in enumerate(lines)]
    write(folder, [f"{header},split", *split])
    refused(here, f"python jobs/train.py configs/csv.yaml data.root={folder}", "is in test and train at once")


@pytest.mark.ray
def test_too_many_files_that_are_no_audio(here: Path, folder: Path) -> None:
    """Not the command's mistake but the data's: exit code 1, the reasons kept, nothing under a final name."""
    for path in sorted(folder.glob("*.wav"))[:6]:
        path.write_text("this is text")
    done = run(f"python jobs/featurize.py configs/csv.yaml data.root={folder} out={folder}/runs", here)
    assert done.returncode == 1
    assert "6 of 24 clips are bad (6 corrupt)" in done.stderr
    assert not list(folder.rglob("_SUCCESS"))
    (errors,) = folder.rglob("errors.parquet")
    import pyarrow.parquet as pq

    assert pq.read_table(errors).column("status").to_pylist() == ["corrupt"] * 6


@pytest.mark.parametrize("asked", ["cluster.workers=50", "cluster.gpus_per_worker=8"])
def test_more_than_the_machine_has(asked: str, here: Path, folder: Path) -> None:
    """Said at once, where Ray would wait for ever without a word."""
    done = run(f"python jobs/train.py configs/csv.yaml data.root={folder} out={folder}/runs {asked}", here)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()  # before any feature is made
    assert "are asked for, this machine's Ray has" in line
    assert not list(folder.rglob("runs"))


def test_ctrl_c_while_libraries_are_imported(here: Path) -> None:
    done = run('python -c "import pipelines, os, signal; os.kill(os.getpid(), signal.SIGINT)"; exit $?', ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted; nothing was begun\n")


@pytest.mark.ray
def test_ctrl_c(here: Path, tmp_path: Path, small_folder: Path) -> None:
    command = f"python jobs/train.py configs/csv.yaml data.root={small_folder} out={tmp_path}/runs; exit $?"
    job = subprocess.Popen(
        ["bash", "-c", command],
        cwd=here,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (tmp_path / "runs").exists() and job.poll() is None:  # then Ray starts
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does
    said, told = job.communicate(timeout=60)
    assert job.returncode in (130, -signal.SIGINT), told
    assert said == "" and "Traceback" not in told
    assert told.splitlines()[-1] == "interrupted; what was finished is kept, the same command goes on from there"
