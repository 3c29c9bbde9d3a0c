"""Runtimes: one answer from each, the fastest of those that decide alike, and a bundle that knows which those are."""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import RATE, sound, tiny_bundle, write
from conftest import ROOT, run

from instrunet import export, parity, runtime
from instrunet.audio.io import Sound
from instrunet.bundle import SPEC_FILE, WEIGHTS_FILE, Bundle
from instrunet.bundle_files import INT8_FILE
from instrunet.bundle_spec import BundleSpec, Parity
from instrunet.errors import BundleError, ConfigError, DataError, JobError
from pipelines import export as export_job

EVERYWHERE = [("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]

EIGHT = [("onnxruntime", "int8"), ("openvino", "int8")]


pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


def knowing(bundle: Bundle, *alike: tuple[str, str], changed: int = 0) -> Bundle:
    found = tuple(Parity(runtime=r, precision=p, n_clips=9, changed=changed, largest=0.01) for r, p in alike)
    return Bundle(bundle.spec.model_copy(update={"runtimes": found}), bundle.network)


def test_all_that_is_installed_is_found() -> None:
    assert list(runtime.everywhere()) == EVERYWHERE


@pytest.mark.parametrize(("where", "precision"), EVERYWHERE)
def test_each_gives_the_same_answer(where: str, precision: str, bundle: Bundle) -> None:
    moved = bundle.on(where, precision)
    assert moved.runs_on == f"{where} {precision}" and moved.fingerprint == bundle.fingerprint
    for seconds in (0.4, 1.0, 4.5):
        ours, theirs = bundle(sound(seconds), RATE), moved(sound(seconds), RATE)
        atol = 1e-4 if precision == "fp32" else 0.05
        np.testing.assert_allclose(theirs.window_scores, ours.window_scores, atol=atol)
        assert list(theirs.scores) == list(ours.scores) and theirs.window_start_s == ours.window_start_s
    assert moved(np.zeros(RATE, np.float32), RATE).status == "silent"
    batches = torch.from_numpy(bundle.featurizer.fast(sound(40.0)).features["logmel"])  # more than one batch of 32
    np.testing.assert_allclose(moved.predict({"logmel": batches}), bundle.predict({"logmel": batches}), atol=atol)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core nothing can be bound to another")
@pytest.mark.parametrize(("where", "precision"), EVERYWHERE)
def test_a_network_is_bound_to_no_core(where: str, precision: str, bundle: Bundle) -> None:
    """Bound by OpenVINO, the networks of all processes of a machine run on the same core, one after the other."""
    moved, seen, done = bundle.on(where, precision), set[frozenset[int]](), threading.Event()
    batch = {"logmel": torch.from_numpy(bundle.featurizer.fast(sound(40.0)).features["logmel"])}
    caller = threading.get_native_id()

    def watch() -> None:
        while not done.is_set():
            seen.add(frozenset(os.sched_getaffinity(caller)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    ends = time.monotonic() + 0.5
    while time.monotonic() < ends:
        moved.predict(batch)
    done.set()
    watcher.join()
    assert seen == {frozenset(os.sched_getaffinity(0))}


GONE = """
import gc, os, signal, sys
sys.path.insert(0, sys.argv[1])
from archives import tiny_bundle
both = [tiny_bundle().on("openvino", "fp32") for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
del both[0]; gc.collect(); both.clear(); gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_answered_when_networks_on_openvino_are_gone(tmp_path: Path) -> None:
    """On processors with AMX: each core of OpenVINO left a stack for signals behind that was no memory any more."""
    more = {"INSTRUNET_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = run(f"{sys.executable} -c '{GONE}' {ROOT / 'tests'}", tmp_path, **more)
    assert (done.returncode, done.stderr) == (3, "")


QUIET = """
import sys
sys.path.insert(0, sys.argv[1])
from archives import tiny_bundle
tiny_bundle().on("openvino", "fp32")
"""


def test_nobody_is_told_that_openvino_is_in_use(tmp_path: Path) -> None:
    """Its telemetry gives the user a number, kept in the home folder, before it sends anything."""
    more = {"INSTRUNET_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = run(f"{sys.executable} -c '{QUIET}' {ROOT / 'tests'}", tmp_path, **more)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(
    ("where", "precision", "said"),
    [
        ("tensorrt", "fp32", "expected a runtime of torch, onnxruntime, openvino or auto, got 'tensorrt'"),
        ("onnxruntime", "bf16", "onnxruntime runs fp32 and int8, got 'bf16'; torch and openvino run it"),
    ],
)
def test_what_there_is_not_is_refused(where: str, precision: str, said: str, bundle: Bundle) -> None:
    with pytest.raises(ConfigError) as error:
        bundle.on(where, precision)
    assert str(error.value) == said


def test_what_is_not_installed_names_its_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtime.NEEDS, "openvino", ("openvino_that_is_not_there",))
    with pytest.raises(ConfigError) as error:
        bundle.on("openvino")
    assert str(error.value) == "openvino is not installed; run: pip install 'instrunet[openvino,onnx]'"
    assert ("openvino", "fp32") not in runtime.trusted(bundle)


def test_a_graph_that_answers_otherwise_is_refused(cached: Path, bundle: Bundle) -> None:
    """As when the cache holds the network of another bundle."""
    other = tiny_bundle("multi")
    with torch.no_grad():
        other.network.body.head[-1].weight.neg_()
    for one in (bundle, other):
        one.on("onnxruntime")
    (mine,), (theirs,) = (list(cached.glob(f"{runtime._key(b)}*.onnx")) for b in (bundle, other))
    kept = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(JobError, match=r"onnxruntime differs from the bundle by .*, at most 0.0001 is allowed"):
        bundle.on("onnxruntime")
    mine.write_bytes(kept)


def test_another_precision_is_not_taken_unless_it_is_known_to_decide_alike(bundle: Bundle) -> None:
    plain = [("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32")]
    assert list(runtime.trusted(bundle)) == plain
    assert list(runtime.trusted(knowing(bundle, ("openvino", "bf16"), changed=1))) == plain
    assert list(runtime.trusted(knowing(bundle, ("openvino", "bf16")))) == [*plain, ("openvino", "bf16")]


def test_auto_takes_the_fastest_and_remembers(cached: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    known = knowing(bundle, ("openvino", "bf16"))
    took = {("torch", "fp32"): 3.0, ("onnxruntime", "fp32"): 2.0, ("openvino", "fp32"): 2.5, ("openvino", "bf16"): 1.0}
    tried: list[tuple[str, str]] = []

    def seconds(bundle: Bundle, run: object, budget_s: float, n_windows: int) -> float:
        assert budget_s == runtime.PROBE_S / 4
        return took[tried[-1]]

    run_on = runtime.run_on
    monkeypatch.setattr(runtime, "run_on", lambda b, *one: tried.append(one) or run_on(b, *one))
    monkeypatch.setattr(runtime, "_seconds", seconds)
    assert known.on().runs_on == "openvino bf16" and len(tried) == 4 + 1
    assert known.on().runs_on == "openvino bf16" and len(tried) == 4 + 2  # what was found is kept
    (kept,) = cached.glob("fastest-*.json")
    assert json.loads(kept.read_text())["ms"]["openvino/bf16"] == 1000
    kept.write_text("{")
    assert known.on().runs_on == "openvino bf16" and len(tried) == 4 + 2 + 4 + 1


def test_the_probe_ends_in_time(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: each run takes 0.03 s, and a slow one is run three times at least."""
    now = [0.0]
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])

    def runs_of(each_s: float) -> tuple[float, int]:
        ran: list[int] = []

        def run(batch: object) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
            ran.append(1)
            now[0] += each_s
            return np.zeros((1, 2), np.float32)

        return runtime._seconds(bundle, run, 0.1), len(ran)

    assert runs_of(0.03) == (pytest.approx(0.03), 5)
    assert runs_of(9.0) == (9.0, 4)


def test_parity_is_measured_on_clips(bundle: Bundle) -> None:
    clips = [Sound(sound(1.5, hz)) for hz in (200, 300, 450)] + [Sound(np.zeros(0, np.float32))]
    found = {(p.runtime, p.precision): p for p in parity.measured(bundle, clips)}
    assert list(found) == EVERYWHERE and {p.n_clips for p in found.values()} == {3}
    assert found["torch", "fp32"].largest == 0 == found["torch", "fp32"].changed
    assert 0 < found["openvino", "bf16"].largest < 0.05
    assert found["onnxruntime", "fp32"].largest < 1e-4
    with pytest.raises(DataError, match="no clip gave any sound"):
        parity.measured(bundle, clips[3:])


def test_eight_bits_travel_in_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int8 needs ranges from real clips"):
        bundle.on("onnxruntime", "int8")
    clips = [Sound(sound(2.0, 150 + 40 * k)) for k in range(12)]
    known = parity.noted(bundle, clips)
    saved = Bundle(known.spec, known.network, known.int8).save(tmp_path / "bundle")
    assert sorted(path.name for path in saved.iterdir()) == [SPEC_FILE, INT8_FILE, WEIGHTS_FILE]
    loaded = Bundle.load(saved)
    assert loaded.int8 == known.int8 and loaded.fingerprint == Bundle.load(bundle.save(tmp_path / "plain")).fingerprint
    assert {(p.runtime, p.precision) for p in loaded.spec.runtimes} == {*EVERYWHERE, *EIGHT}
    assert {p.n_clips for p in loaded.spec.runtimes} == {9}  # three of the twelve gave the ranges
    for where in ("onnxruntime", "openvino"):
        moved = loaded.on(where, "int8")
        apart = [np.subtract(moved.decided(c).window_scores, bundle.decided(c).window_scores) for c in clips]
        assert 0 < np.abs(apart).max() < 0.15
    content = (saved / INT8_FILE).read_bytes()
    (saved / INT8_FILE).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"int8.onnx is not the file that bundle.json was sealed with"):
        Bundle.load(saved)
    (saved / INT8_FILE).unlink()
    with pytest.raises(BundleError, match=r"int8.onnx cannot be read"):
        Bundle.load(saved)
    plain = Bundle(loaded.spec, loaded.network).save(tmp_path / "without")  # as calibration leaves it
    assert INT8_FILE not in {path.name for path in plain.iterdir()} and Bundle.load(plain).int8 == b""


def test_a_changed_decision_is_counted(bundle: Bundle) -> None:
    """A clip that is answered by a hair, which any other number would undo."""
    clip = Sound(sound(1.5))
    best = max(bundle.decided(clip).scores.values())
    from instrunet.decisions import Decisions

    spec = bundle.spec.model_copy(update={"decisions": Decisions(abstain_below=best)})
    found = {(p.runtime, p.precision): p for p in parity.measured(Bundle(spec, bundle.network), [clip])}
    assert found["torch", "fp32"].changed == 0
    bf16 = Bundle(spec, bundle.network).on("openvino", "bf16").decided(clip)
    assert found["openvino", "bf16"].changed == ("no_answer" in bf16.flags)


def test_the_job_leaves_a_bundle_that_knows(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, clips = bundle.save(tmp_path / "bundle"), tmp_path / "clips"
    for k in range(3):
        write(clips / f"{k}.wav", sound(1.5, 200 + 90 * k))
    (clips / "letter.wav").write_text("dear reader")
    told = {"bundle": saved, "out": tmp_path / "out", "clips": str(clips), "external_weights": True}
    args = argparse.Namespace(**told, verbose=False)
    assert export_job.run(args) == tmp_path / "out" / export.FILE
    noted = Bundle.load(tmp_path / "out/bundle")
    assert {(p.runtime, p.precision) for p in noted.spec.runtimes} == {*EVERYWHERE, *EIGHT}
    assert noted.fingerprint == Bundle.load(saved).fingerprint
    assert "and 3 clips" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is there already"):
        export_job.run(args)


def test_a_bundle_that_knows_nothing_is_what_it_was(bundle: Bundle, tmp_path: Path) -> None:
    text = (bundle.save(tmp_path / "b") / SPEC_FILE).read_text()
    assert "runtimes" not in json.loads(text)
    known = BundleSpec.parse(
        json.loads(text)
        | {"runtimes": [{"runtime": "torch", "precision": "bf16", "n_clips": 1, "changed": 0, "largest": 0.0}]},
        "bundle.json",
    )
    assert known.fingerprint() == Bundle.load(tmp_path / "b").fingerprint
