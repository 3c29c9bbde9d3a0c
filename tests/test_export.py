"""ONNX: the same scores from the same samples, any number of sounds of any length, and the facts a server needs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile as sf
import torch
from conftest import ROOT, SHARED
from making import FRONT, LABELS, RATE, draft, tone

from instrunet import export
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.decisions import Curve, Decisions
from instrunet.errors import JobError
from instrunet.models import ModelSpec, Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec, Task8Spec

# The seed's own picture, resized and coloured; and the native grid with batch norm
MODELS: dict[str, ModelSpec] = {
    "task8": Task8Spec(picture=PictureSpec(size=128, colour=True)),
    "iteration11": Iteration11Spec(picture=PictureSpec(size=None)),
}
KINDS = {"task8": "single", "iteration11": "multi"}
RISING, FLAT = Curve(at=(0.1, 0.4, 0.9), to=(0.05, 0.3, 0.95)), Curve(at=(0.2,), to=(0.3,))
CURVES = (RISING, FLAT, Curve(at=(0.0, 1.0), to=(0.1, 0.8)))
DECISIONS = {"iteration11": Decisions(abstain_below=0.3), "task8": Decisions(isotonic=CURVES)}
CLIPS = SHARED / "data" / "instruments"


def made(name: str, **front: Any) -> Bundle:
    """`hop_s` is not `window_s`, so that the place of each window counts."""
    spec = draft(kind=KINDS[name], model=MODELS[name], front=FRONT.model_copy(update={"hop_s": 0.3} | front))
    spec = spec.model_copy(update={"temperature": 1.7, "decisions": DECISIONS[name]})
    if name == "iteration11":
        spec = spec.model_copy(update={"thresholds": (0.25, 0.5, 0.75)})
    torch.manual_seed(0)
    network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():  # running means other than 0 and 1
        network.train()({"logmel": torch.randn(8, *spec.front.shapes()["logmel"]) * 3 - 4})
        network.body.head[-1].weight.mul_(100)  # scores that are not all alike
    return Bundle(spec, network)


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, float]:
    bundle = made(request.param)
    return bundle, *export.to_onnx(bundle, tmp_path_factory.mktemp(request.param))


def answers(path: Path, waves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores", "window_scores"], {"waveform": waves.astype(np.float32)})


def test_parity(exported: tuple[Bundle, Path, float]) -> None:
    # Worst seen: 7e-7 on noise
    bundle, path, difference = exported
    assert difference < 1e-4
    assert export.parity(bundle, path) == difference


@pytest.mark.parametrize("n_samples", [401, 2399, 4000, 4001, 4400, 4401, 6400, 6401, 6800, 6801, 33_333])
def test_a_sound_of_any_length(exported: tuple[Bundle, Path, float], n_samples: int) -> None:
    """Around the lengths at which a window is filled up, and at which there is one more: 4000 samples, every 2400."""
    bundle, path, _ = exported
    wave = np.concatenate([tone(300 + 400 * k, 0.5, seed=k) * 3.0**-k for k in range(9)])[:n_samples]
    said, (scores, windows) = bundle(wave, RATE), answers(path, wave[None])
    assert windows.shape == (1, len(said.window_start_s), len(LABELS))
    np.testing.assert_allclose(windows[0], said.window_scores, atol=1e-4)
    np.testing.assert_allclose(scores[0], list(said.scores.values()), atol=1e-4)


def test_several_sounds_and_silence(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    waves = np.stack([*(tone(300.0 + 400 * k, 1.5, seed=k) * 10.0**-k for k in range(4)), np.zeros(12_000)])
    scores, windows = answers(path, waves)
    for wave, mine, rows in zip(waves[:4], scores, windows, strict=False):
        said = bundle(wave, RATE)
        np.testing.assert_allclose(mine, list(said.scores.values()), atol=1e-4)
        np.testing.assert_allclose(rows, said.window_scores, atol=1e-4)
    assert np.isfinite(scores).all() and np.ptp(scores, axis=0).max() > 0.002  # the sounds are told apart


def test_the_first_window_alone(tmp_path: Path) -> None:
    bundle = made("task8", long="first")
    path, difference = export.to_onnx(bundle, tmp_path)
    _, windows = answers(path, tone(900, 2.0)[None])
    assert difference < 1e-4 and windows.shape[1] == 1


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"real recordings are expected at {CLIPS}")
def test_real_clips_of_several_lengths(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    clips = [bundle.read(file).wave for file in sorted(CLIPS.glob("audio/**/*.*"))[::100][:4]]
    assert len(clips) == 4
    cut = [clip[: round(len(clip) * share)] for clip, share in zip(clips, (1, 0.7, 0.31, 0.05), strict=True)]
    assert export.parity(bundle, path, [Sound(clip) for clip in cut]) < 1e-4


def test_the_facts_travel_with_the_model(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    facts = {p.key: json.loads(p.value) for p in onnx.load(str(path)).metadata_props if p.key.startswith("instrunet.")}
    if bundle.spec.kind == "multi":
        assert facts.pop("instrunet.thresholds") == [0.25, 0.5, 0.75]
        assert facts.pop("instrunet.abstain_below") == 0.3
    assert facts == {
        "instrunet.labels": list(LABELS),
        "instrunet.fingerprint": bundle.fingerprint,
        "instrunet.kind": bundle.spec.kind,
        "instrunet.sample_rate": RATE,
        "instrunet.window": RATE // 2,
        "instrunet.hop": 2400,
    }


def test_the_model_is_whole_and_alone_in_its_folder(exported: tuple[Bundle, Path, float]) -> None:
    _, path, _ = exported
    assert [p.name for p in path.parent.iterdir()] == [export.FILE]
    onnx.checker.check_model(str(path), full_check=True)
    opset = {entry.domain: entry.version for entry in onnx.load(str(path)).opset_import}
    assert opset[""] == export.OPSET


def test_weights_beside_the_graph(exported: tuple[Bundle, Path, float], tmp_path: Path) -> None:
    bundle, path, _ = exported
    for _ in range(2):  # a file that is there is replaced, not added to
        made_, difference = export.to_onnx(bundle, tmp_path, external=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [export.FILE, export.DATA] and difference < 1e-4
    assert (tmp_path / export.DATA).stat().st_mode == made_.stat().st_mode
    sizes = [p.stat().st_size for p in (made_, tmp_path / export.DATA, path)]
    shutil.copytree(tmp_path, tmp_path / "again")
    export.to_onnx(bundle, tmp_path / "again")
    assert [p.name for p in (tmp_path / "again").iterdir()] == [export.FILE]  # with its weights inside
    assert sizes[0] < 0.5 * sizes[2] and abs(sizes[0] + sizes[1] - sizes[2]) < 0.1 * sizes[2]
    wave = tone(900, 1.3)[None]
    np.testing.assert_array_equal(answers(made_, wave)[0], answers(path, wave)[0])


def test_names_and_shapes_of_what_goes_in_and_out(exported: tuple[Bundle, Path, float]) -> None:
    _, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (got, windows) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("waveform", "tensor(float)", ["sounds", "samples"])
    assert (got.name, got.shape) == ("scores", ["sounds", len(LABELS)])
    assert (windows.name, windows.shape[2]) == ("window_scores", len(LABELS))


FRONTS = {
    "adaptive": {"length": "adaptive", "window_s": 1.0},
    "trimmed": {"trim_db": 35.0, "level": "none"},
    "both": {"length": "adaptive", "window_s": 1.0, "trim_db": 20.0, "level": "rms"},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("front", FRONTS)
def test_sounds_keep_their_own_length_and_lose_silent_ends(name: str, front: str, tmp_path: Path) -> None:
    """4,000 samples are the least of an adaptive window, 8,000 its most; silence at the ends, and tones that fade."""
    bundle = made(name, **FRONTS[front])
    path, difference = export.to_onnx(bundle, tmp_path)
    assert difference < 1e-4
    told = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0]
    assert told.shape == [1 if "trim_db" in FRONTS[front] else "sounds", "samples"]
    tones = np.concatenate([tone(300 + 400 * k, 0.5, seed=k) * 3.0**-k for k in range(5)])
    seen = set()
    for n_samples in (401, 3999, 4000, 4001, 5301, 7999, 8000, 8001, 8801, 10_801, 20_000):
        for before, behind in ((0, 0), (3000, 0), (129, 5000)):
            wave = np.concatenate([np.zeros(before, np.float32), tones[:n_samples], np.zeros(behind, np.float32)])
            said, (scores, windows) = bundle(wave, RATE), answers(path, wave[None])
            seen.add(len(said.window_start_s))
            assert windows.shape[1] == len(said.window_start_s), (n_samples, before, behind)
            np.testing.assert_allclose(windows[0], said.window_scores, atol=1e-4)
            np.testing.assert_allclose(scores[0], list(said.scores.values()), atol=1e-4)
    assert len(seen) >= 3


def test_a_model_that_differs_is_not_kept(
    exported: tuple[Bundle, Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, path, _ = exported
    monkeypatch.setattr(export, "_export", lambda _, aside, external: shutil.copy(path, aside))
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(JobError, match="the exported model differs from the bundle by .*, at most 0 is allowed"):
        export.to_onnx(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_docs_runs_without_code_of_ours(
    exported: tuple[Bundle, Path, float], tmp_path: Path
) -> None:
    bundle, path, _ = exported
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / "example.py").write_text(code)
    sf.write(tmp_path / "a.wav", np.stack([tone(900, 1.3), tone(300, 1.3)], axis=1), RATE, subtype="PCM_16")
    spy = "import runpy, sys; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0]);"
    spy += "assert not {'instrunet', 'torch', 'soundfile'} & {*sys.modules}"
    command = [sys.executable, "-c", spy, "example.py", str(path), "a.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, said = json.loads(done.stdout), bundle(tmp_path / "a.wav")
    assert (told["labels"], told["windows"]) == (said.labels, len(said.window_start_s))
    assert told["scores"] == pytest.approx(said.scores, abs=1e-4)
