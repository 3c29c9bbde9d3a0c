"""What tests share: a place to work in as a user would, and the demo, run once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stores import Store

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script's `&` leaves it: no job here would hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
LINKED = ("jobs", "configs", "Makefile", "pyproject.toml", "constraints.txt", ".rayignore")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute and more beside a shorter test of the same is for `make soak`.

    The files with Ray in them come first, as they are the long ones: at the end short ones keep both processes busy.
    """
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in long)
    if "INSTRUNET_SOAK" not in os.environ:
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="`make soak` runs it"))


def environment() -> dict[str, str]:
    """A user's shell with the environment activated, and no settings of the machine that runs the tests."""
    ours = ("RAY_", "MLFLOW_", "INSTRUNET_", "KUBECONFIG", "PYTHON", "MAKE", "MFLAGS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    if os.environ.get("PYTHONPATH") == str(ROOT):  # a second checkout, tested with the environment of the first
        kept["PYTHONPATH"] = str(ROOT)
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(command: str, place: Path, timeout: float = 900, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env=environment() | more,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def make_place(folder: Path) -> Path:
    """An empty folder in which the README's commands work."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as the tests' wait for each other's threads: on two busy cores two take 20 times as long."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def told_as_before() -> Iterator[None]:
    """A job run in this process answers SIGTERM from then on; the next test should not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One export of a network for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("INSTRUNET_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("user") / "instrunet")


@pytest.fixture(scope="session")
def demo(place: Path) -> "subprocess.CompletedProcess[str]":
    """`make demo`, as a user types it, but that it never sets up the environment that runs the tests."""
    made = run("make --assume-old=.venv/ready demo", place, timeout=600)
    assert made.returncode == 0, made.stdout + made.stderr
    return made


@pytest.fixture(scope="session")
def demo_bundle(place: Path, demo: "subprocess.CompletedProcess[str]") -> Path:
    (bundle,) = (place / "runs/demo/train").glob("smoke-*/bundle")
    return bundle


@pytest.fixture(scope="session")
def store() -> "Iterator[Store]":
    """An S3 API on loopback; what asks for it gives each test its own bucket."""
    from stores import started

    with started() as running:
        yield running


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus, small: 11 classes, 4 recordings of 2 short clips each, 4 mixtures."""
    from instrunet.data.synth import SynthSpec, write_corpus

    spec = SynthSpec(recordings=4, clips=2, clip_s=1.0, mixtures=4, sample_rate=22_050)
    return write_corpus(spec, tmp_path_factory.mktemp("small") / "corpus")


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path) -> Path:
    """Three of its classes as a folder with metadata.csv."""
    folder = tmp_path_factory.mktemp("csv") / "FOLDER"
    folder.mkdir()
    lines = ["path,label,group"]
    for label in ("cel", "flu", "org"):
        for path in sorted((small_corpus / "IRMAS-TrainingData" / label).glob("*.wav")):
            shutil.copy(path, folder)
            recording = path.stem.split("]")[-1].split("__")[0]
            lines.append(f"{path.name},{label},{label}-{recording}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
