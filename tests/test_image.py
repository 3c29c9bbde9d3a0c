"""k8s/Dockerfile as far as it can be judged without an engine, and what `ray job submit` sends instead of an image."""

import re
import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

TEXT = (ROOT / "k8s/Dockerfile").read_text(encoding="utf-8")
LINES = [
    re.sub(r"\s+", " ", line.strip())
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if line.strip()
]


def stage(name: str) -> list[str]:
    begins = next(n for n, line in enumerate(LINES) if line.startswith("FROM ") and line.endswith(f" AS {name}"))
    ends = next((n for n in range(begins + 1, len(LINES)) if LINES[n].startswith("FROM ")), len(LINES))
    return LINES[begins:ends]


@pytest.mark.parametrize("name", ["mlflow", "app"])
def test_image_runs_as_a_user_by_number_and_says_how_it_is(name: str) -> None:
    users = [line.split()[1] for line in stage(name) if line.startswith("USER ")]
    assert users == ["1000:1000"], "no USER by number: the pods would be refused as root"
    assert stage(name).index("USER 1000:1000") > max(n for n, line in enumerate(stage(name)) if line.startswith("RUN "))
    assert any(line.startswith("HEALTHCHECK ") for line in stage(name))


def test_the_base_has_a_whole_version_and_everything_follows_the_lock() -> None:
    assert re.fullmatch(r"FROM python:3\.11\.\d+-slim-[a-z]+ AS base", stage("base")[0])
    for line in LINES:
        if "pip install" in line:
            assert "constraints.txt" in line or "--no-deps" in line, line
    assert LINES.index("COPY instrunet ./instrunet") > max(n for n, line in enumerate(LINES) if "-r wanted.txt" in line)


def test_what_is_copied_is_there() -> None:
    for line in LINES:
        if line.startswith("COPY "):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"/.git", "/tests/", "/runs/"} <= set(ignored)


def test_the_torch_of_the_cpu_image_is_the_one_of_the_lock() -> None:
    pattern = re.search(r"grep -E '([^']+)' constraints.txt", TEXT)
    assert pattern
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("==")[0] for line in lock if re.match(pattern[1], line)] == [
        "torch",
        "torchaudio",
        "torchvision",
    ]


def wanted() -> list[str]:
    """The very command of the image, run here."""
    line = next(line for line in LINES if "tomllib" in line)
    command = shlex.split(line.removeprefix("RUN ").split(" > wanted.txt")[0])
    assert command[:2] == ["python", "-c"]
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_nothing_that_only_tests_need_is_installed() -> None:
    found, left = set[str](), [Requirement(line) for line in wanted()]
    while left:
        asked = left.pop()
        key = (asked.name.lower().replace("_", "-"), frozenset(asked.extras))
        if key in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        found.add(key)  # type: ignore[arg-type]
        left += _needs(asked)
    names = {name for name, _ in found}  # type: ignore[misc]
    assert {"torch", "ray", "mlflow", "kubernetes", "s3fs", "timm", "onnx"} <= names
    assert not {"pytest", "moto", "mypy", "ruff", "cel-python", "pytest-xdist", "openvino"} & names


def _needs(asked: Requirement) -> list[Requirement]:
    try:
        lines = requires(asked.name) or []
    except PackageNotFoundError:  # an extra that is not installed here
        return []
    all_of_them = [Requirement(line) for line in lines]
    extras = asked.extras or {""}
    return [r for r in all_of_them if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)]


def test_lint_where_hadolint_is_here() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not here; make image-lint fetches it")
    command = [hadolint, "--failure-threshold", "style", ROOT / "k8s/Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- what `ray job submit --working-dir .` sends


def test_the_working_folder_is_small(tmp_path: Path) -> None:
    """Ray packs it before a job starts and every node fetches it; here by Ray's own function; 512 MiB is its limit."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(ROOT), tmp_path / "sent.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        names = {Path(name).parts[0] for name in sent.namelist()}
        total = sum(item.file_size for item in sent.infolist())
    assert {"jobs", "pipelines", "instrunet", "configs"} <= names
    assert not {".git", ".venv", "runs", "tests", "docs", "benchmarks"} & names
    assert total < 1_500_000, f"{total} bytes; add what no job needs to .rayignore"
