"""Tagging where Ray counts GPUs: the design is chosen by what the cluster has, and a folder stays with its own.

There is no GPU here: Ray is told to count one, and PyTorch's CPU stands for it.
"""

import json
from argparse import Namespace
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from archives import FRONT, sound, tiny_bundle, work_rows, write, write_archive
from conftest import ROOT, make_place, run

from instrunet import runtime
from instrunet.archive import runs, sources, tagger
from instrunet.archive.units import UnitSpec
from instrunet.audio.io import probe
from instrunet.bundle import Bundle
from instrunet.data import parts
from instrunet.errors import ConfigError, DataError, JobError
from instrunet.features.hpss import HpssSpec
from pipelines import cluster, design, tag

JOB = """
import logging, sys
import ray
from pipelines import cluster, cli, design
import jobs.tag
cluster.hush(verbose=False)
quiet = dict(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.init(address="local", num_cpus=4, num_gpus={gpus}, **quiet)
design.GPU = "{gpu}"
sys.exit(jobs.tag.main())
"""


def job(place: Path, words: str, gpus: int = 2, gpu: str = "cpu/fp32") -> tuple[int, str]:
    (place / "job.py").write_text(JOB.format(gpus=gpus, gpu=gpu))
    crashing = {"PYTHONPATH": f"{ROOT / 'tests/crashing'}:{ROOT}", "ONCE": str(place / "once")}
    done = run(f"python job.py bundle archive {words}", place, **crashing)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every status, a file that kills its decoder each time, and one that does so once."""
    place = make_place(tmp_path_factory.mktemp("gpus") / "instrunet")
    tiny_bundle("multi").save(place / "bundle")
    write_archive(place / "archive")
    for k in range(30):
        path = write(place / f"archive/m/{k:02d}.wav", sound(12.0, 200 + 30 * k))  # in all more than a part
        if mark := {5: b"abort at read", 9: b"kill me once"}.get(k):
            content = bytearray(path.read_bytes())
            content[44 : 44 + len(mark)] = mark
            path.write_bytes(content)
    return place


@pytest.mark.ray
@pytest.mark.timeout(200)
def test_actors_take_gpus_and_their_books_close(place: Path) -> None:
    code, said = job(place, "--out tags --unit-s 3 --embeddings --prices gpu_hour=3")
    assert code == 0 and "a GPU hour on 2 GPUs" in said, said
    bundle = Bundle.load(place / "bundle")
    planned = work_rows(place / "archive", UnitSpec(unit_s=3), bundle.fingerprint)
    alone = tagger.table(tagger.tag_all(planned, bundle, embed=True), True).to_pylist()
    rows = pq.read_table(place / "tags/units").to_pylist()
    assert [row["unit_id"] for row in rows] == [row["unit_id"] for row in alone]  # parts in their order
    near = {"scores": 1e-3, "measures": 1e-2, "embeddings": 1e-2}
    for mine, plain in zip(rows, alone, strict=True):
        if mine["uri"].endswith("05.wav"):  # no such decoder is in this process
            assert mine["status"] == "corrupt" and "died of signal 6 (SIGABRT)" in mine["error"]
            continue
        assert without(mine, near) == without(plain, near)
        for name, most in near.items():
            np.testing.assert_allclose(mine[name], plain[name], atol=most, rtol=most)
    report, ledger = (json.loads((place / "tags" / name).read_text()) for name in ("speed.json", "ledger.json"))
    assert ledger["closed"] and ledger["units"]["in"] == len(rows)
    assert report["gpus"] == report["actors"] == 2 and report["cores"] >= 2
    assert report["batch_windows"] and report["audio_h_per_gpu_hour"] > 0 and report["cost"]["job"] > 0
    assert parts.read_json(place / "tags/plan.json")["runtime"] == "cpu/fp32"


def without(row: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.ray
@pytest.mark.timeout(200)
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds CUDA here")
def test_a_gpu_that_torch_does_not_find_is_told(place: Path) -> None:
    code, said = job(place, "--out nothing --unit-s 3", gpus=1, gpu="cuda/fp32")
    assert code == 1 and "error: expected CUDA where Ray gives a GPU" in said, said
    assert "--runtime torch/fp32 into another --out" in said and "Traceback" not in said


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """What a cluster has."""
    there = {"CPU": 8.0, "GPU": 1.0}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "connect", lambda spec, verbose: None)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: there)
    yield there
    torch.set_num_threads(1)


def asked(text: str, bundle: Bundle, out: Path, embeddings: bool = False) -> str:
    return tag._runtime(bundle, Namespace(runtime=text, embeddings=embeddings, verbose=False), out)


def test_gpus_are_taken_where_they_are_unless_another_runtime_is_named(
    tmp_path: Path, having: dict[str, float]
) -> None:
    bundle = tiny_bundle()
    assert {asked(text, bundle, tmp_path) for text in ("torch", "auto", "cuda", "cuda/fp32")} == {"cuda/fp32"}
    assert asked("torch", bundle, tmp_path, embeddings=True) == "cuda/fp32"
    assert asked("torch/fp32", bundle, tmp_path) == runtime.PLAIN
    assert asked("onnxruntime", bundle, tmp_path) == "onnxruntime/fp32"
    having["GPU"] = 0
    assert asked("torch", bundle, tmp_path) == runtime.PLAIN
    with pytest.raises(ConfigError, match="--runtime cuda expects GPUs, the cluster has none now"):
        asked("cuda", bundle, tmp_path)


def test_a_bundle_that_hears_by_numpy_stays_on_cores(tmp_path: Path, having: dict[str, float]) -> None:
    del having
    plain = tiny_bundle()
    front = FRONT.model_copy(
        update={"features": (HpssSpec(sample_rate=8000, n_fft=512, hop_length=256, fmax_hz=4000),)}
    )
    bundle = Bundle(plain.spec.model_copy(update={"front": front}), plain.network)
    assert asked("torch", bundle, tmp_path) == runtime.PLAIN
    with pytest.raises(ConfigError, match="a GPU makes logmel and chroma, this bundle hears by others"):
        asked("cuda", bundle, tmp_path)


@pytest.mark.parametrize("since_last", [False, True])
def test_a_folder_stays_with_what_it_was_begun_with(since_last: bool, tmp_path: Path, having: dict[str, float]) -> None:
    bundle = tiny_bundle()
    write(tmp_path / "in/a.wav", sound(1.0))

    def begin(name: str, where: str) -> Path:
        plan = runs.Job(sources.archive(tmp_path / "in"), bundle.spec, UnitSpec(), probe, where)
        out = tmp_path / name
        if since_last:
            runs.begin_next(runs.home(out, bundle.fingerprint), plan)
        else:
            runs.begin(out, plan)
        return out

    cores, gpus = begin("cores", runtime.PLAIN), begin("gpus", "cuda/fp32")
    assert {asked(text, bundle, cores) for text in ("torch", "auto")} == {runtime.PLAIN}
    having["GPU"] = 0
    assert {asked(text, bundle, gpus) for text in ("torch", "auto", "cuda")} == {"cuda/fp32"}
    with pytest.raises(JobError, match="expected GPUs, as these tags were begun on some"):
        design.of("cuda/fp32", 9, {})
    with pytest.raises(DataError, match="its runtime is .cuda/fp32., this one's is null"):
        begin("gpus", asked("torch/fp32", bundle, gpus))


def test_the_cores_beside_a_gpu_decode_for_it(having: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 64.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 12.0, "GPU": 1.0}]
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    gone = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [*alive, gone])
    having["GPU"] = 3
    made = design.of("cuda/fp32", 100, {})
    assert (made.pool.actors, made.pool.gpus, made.n_decoders, made.cores) == (3, 1, 8, 24)
    assert made.pool.cpus == 4  # half of them, as for actors on cores: Ray Data wants some
    assert design.of("cuda/fp32", 2, {}).pool.actors == 2
    alive[1:] = [{"Alive": True, "Resources": {"GPU": 1.0}}]  # a node that lends no CPU
    made = design.of("cuda/fp32", 100, {})
    assert (made.n_decoders, made.pool.cpus) == (1, 0)
