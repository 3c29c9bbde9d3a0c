"""Every command of the README runs as it stands there."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, make_place, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line.strip()
]
ELSEWHERE = {
    "make demo": "tests/test_demo.py runs it",
    "make test": "it is what runs this test",
    "python jobs/serve.py runs/calibrated": "tests/pipelines/test_serve.py; it ends when it is told to",
    "export RAY_AUTH_MODE=token": "tests/pipelines/test_job_submit.py",
}
SMALLER = {
    "python jobs/tune.py configs/tune/smoke.yaml": " data.synth.recordings=4 data.synth.clips=2",
    "python jobs/train.py configs/irmas.yaml data.root=IRMAS": " train.epochs=2",
}
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path, small_folder: Path) -> Path:
    """A reader's folder, with what the README calls FOLDER, ARCHIVE and IRMAS."""
    place = make_place(tmp_path_factory.mktemp("reader") / "instrunet")
    shutil.copytree(small_folder, place / "FOLDER")
    shutil.copytree(small_corpus, place / "IRMAS")
    shutil.copytree(next(small_corpus.glob("IRMAS-TestingData*")), place / "ARCHIVE")
    (place / "runs/corpora").mkdir(parents=True)
    return place


@pytest.mark.ray
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE and not c.startswith("ray job")])
def test_command(command: str, reader: Path) -> None:
    done = run(command + SMALLER.get(command, ""), reader)
    assert done.returncode == 0, done.stdout + done.stderr
    if "--print-config" not in command and "--dry-run" not in command and "predict" not in command:
        made = Path(done.stdout.splitlines()[-1])
        assert (reader / made).exists(), done.stdout


def test_make_targets_it_names_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "help"} <= set(targets)
    assert all(name in targets for name in re.findall(r"`make ([a-z]+)`", README))


def test_the_table_names_every_job() -> None:
    assert sorted(re.findall(r"\| `jobs/(\w+\.py)", README)) == JOBS


@pytest.mark.parametrize("job", JOBS)
def test_help_tells_a_newcomer(job: str, tmp_path: Path) -> None:
    done = run(f"python {ROOT}/jobs/{job} --help", tmp_path)  # from any folder
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert f"python jobs/{job}" in done.stdout  # an example
    assert not list(tmp_path.iterdir())
