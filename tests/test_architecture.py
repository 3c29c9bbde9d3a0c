"""The promises of docs/ARCHITECTURE.md and STYLE that a test can hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

TOP = {
    *("jobs", "pipelines", "instrunet", "k8s", "configs", "tests", "benchmarks", "docs"),
    *("pyproject.toml", "constraints.txt", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
}
OUTSIDE = {"ray", "mlflow", "kubernetes"}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of the project's files")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def imports(path: Path) -> set[str]:
    """Every module a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_top_level_is_what_the_readers_expect() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} == TOP


def test_the_library_knows_no_ray_mlflow_or_kubernetes() -> None:
    assert {p: packages(p) & (OUTSIDE | {"pipelines"}) for p in (ROOT / "instrunet").rglob("*.py")} == {
        p: set() for p in (ROOT / "instrunet").rglob("*.py")
    }


@pytest.mark.parametrize(
    ("package", "only"), [("mlflow", ["registry.py", "tracking.py"]), ("kubernetes", ["submit.py"])]
)
def test_few_files_know(package: str, only: list[str]) -> None:
    assert sorted(p.name for p in (ROOT / "pipelines").glob("*.py") if package in packages(p)) == only


def test_jobs_are_thin() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= 30, path
        assert not packages(path) & OUTSIDE, path


def test_files_are_short() -> None:
    files = [p for folder in ("instrunet", "pipelines", "jobs", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 250} == {}


def test_importing_the_library_imports_no_torch_or_ray() -> None:
    code = "import sys, instrunet; print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_a_bundle_imports_no_ray_or_mlflow() -> None:
    code = "import sys, instrunet.bundle; print(sorted({'ray', 'mlflow', 'librosa'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_names_a_path_of_a_machine() -> None:
    for path in tracked():
        if path.suffix in (".py", ".md", ".yaml", ".toml") or path.name == "Makefile":
            text = path.read_text(encoding="utf-8")
            assert f"/{'work'}/" not in text, path
            assert f"/{'root'}/" not in text, path


def test_make_help_lists_the_targets() -> None:
    done = run("make help", ROOT)
    assert {"setup", "lint", "types", "test", "demo", "lock"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_the_lock_holds_every_dependency() -> None:
    """A fresh machine gets one set of packages: what pyproject.toml asks for is pinned, torch and torchaudio alike.

    The extra `umap` is left out: it would cost each report of the tests 15 s.
    """
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    extras = [name for extra, names in project["optional-dependencies"].items() if extra != "umap" for name in names]
    asked = {_name(line) for line in project["dependencies"] + extras}
    assert asked - {name.lower() for name in pins} == set()
    assert pins["torch"].split(".")[:2] == pins["torchaudio"].split(".")[:2]


def _name(requirement: str) -> str:
    for mark in "[<>=!~;":
        requirement = requirement.split(mark)[0]
    return requirement.strip().lower()
