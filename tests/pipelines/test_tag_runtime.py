"""Tagging on another runtime: by name or chosen, told where decisions may differ, held by the plan. No Ray."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from archives import make_work, sound, tiny_bundle, write

from instrunet import runtime
from instrunet.archive import books, runs, sources
from instrunet.archive.speed import STAGES
from instrunet.archive.units import UnitSpec
from instrunet.audio.io import probe
from instrunet.audio.isolated import Limits
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Parity
from instrunet.data import parts
from instrunet.errors import ConfigError, DataError
from pipelines import tag

ELSEWHERE = ["torch/fp32", "onnxruntime/fp32", "openvino/bf16"]


@pytest.fixture(scope="module", autouse=True)
def as_it_was(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One export for all tests, and torch's threads as they were."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runtime")
    bundle = Bundle.load(tiny_bundle("multi").save(home / "bundle"))
    for k in range(3):
        write(home / f"in/{k}.wav", sound(3.0, 250 + 200 * k))
    for where in ELSEWHERE:
        make_work(home / "in", home / where.replace("/", "-"), UnitSpec(), bundle.fingerprint)
    return home


def scores(home: Path, where: str) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    out = home / where.replace("/", "-")
    worker = tag.Worker(str(out), str(home / "bundle"), Limits(), where=where)
    with worker.decoder:
        made = worker({"part": 0})
        tried = worker.tried()
    assert (made["failed"], made["files"], made["audio_s"]) == ("", 3, 9.0)
    assert set(STAGES) < set(made) and made["network"] > 0
    assert set(tried) == set(STAGES) and tried["decode"] > 0
    rows = pq.read_table(parts.part_path(out, books.UNITS, 0)).to_pylist()
    return np.array([window for row in rows for window in row["scores"]], np.float32)


def test_scores_are_the_same_wherever_the_network_runs(home: Path) -> None:
    plain, onnx, half = (scores(home, where) for where in ELSEWHERE)
    assert plain.shape == (9, 3)
    np.testing.assert_allclose(onnx, plain, atol=1e-3)  # as stored, in half precision
    np.testing.assert_allclose(half, plain, atol=0.05)
    assert not (half == plain).all(), "it did run there"


def asked(text: str, home: Path, bundle: Bundle, embeddings: bool = False, out: str = "nowhere") -> str:
    return tag._runtime(bundle, Namespace(runtime=text, embeddings=embeddings, verbose=False), home / out)


def test_what_is_asked_for_by_name_is_taken_with_a_warning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle("multi")
    assert asked("torch", home, bundle) == runtime.PLAIN and asked("onnxruntime", home, bundle) == "onnxruntime/fp32"
    assert capsys.readouterr().err == ""
    assert asked("openvino/bf16", home, bundle) == "openvino/bf16"
    assert "decides as the bundle does has not been measured; jobs/export.py BUNDLE" in capsys.readouterr().err
    asked("openvino/bf16", home, knowing(bundle, changed=2))
    assert "changed 2 of 9 decisions" in capsys.readouterr().err
    asked("openvino/bf16", home, knowing(bundle, changed=0))
    assert capsys.readouterr().err == ""


def knowing(bundle: Bundle, changed: int) -> Bundle:
    found = Parity(runtime="openvino", precision="bf16", n_clips=9, changed=changed, largest=0.01)
    return Bundle(bundle.spec.model_copy(update={"runtimes": (found,)}), bundle.network)


def test_auto_takes_what_decides_alike_and_stays_with_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = knowing(tiny_bundle("multi"), changed=1)
    chosen = asked("auto", home, bundle)
    assert chosen in {"/".join(one) for one in runtime.trusted(bundle)} - {"openvino/bf16"}
    assert f"the network runs on {chosen}" in capsys.readouterr().err
    assert asked("auto", home, bundle, embeddings=True) == runtime.PLAIN
    job = runs.Job(sources.archive(home / "in"), bundle.spec, UnitSpec(), probe, "openvino/bf16")
    runs.begin(home / "begun", job)
    assert asked("auto", home, bundle, out="begun") == "openvino/bf16"
    with pytest.raises(DataError, match="belongs to another job: its runtime is .openvino/bf16., this one's is null"):
        runs.begin(home / "begun", job._replace(runtime=runtime.PLAIN))


@pytest.mark.parametrize(
    ("text", "embeddings", "said"),
    [
        ("tensorrt", False, "expected a runtime of torch, onnxruntime, openvino or auto, got 'tensorrt'"),
        ("openvino/fp8", False, "expected a precision of fp32, bf16, int8 behind openvino/, got 'fp8'"),
        ("onnxruntime/bf16", False, "onnxruntime runs fp32 and int8, got 'bf16'"),
        ("openvino", True, "--embeddings are torch's alone"),
    ],
)
def test_what_there_is_not_is_refused(text: str, embeddings: bool, said: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        asked(text, home, tiny_bundle(), embeddings)
