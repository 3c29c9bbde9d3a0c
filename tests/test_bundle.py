"""The bundle: what is saved is what is loaded, what is broken is refused, and how a sound is decided upon."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile as sf
import torch
from making import FRONT, LABELS, RATE, SMALL, TONES_HZ, draft, tone, tones_folder

import instrunet
from instrunet.audio.io import DecodeError, Sound
from instrunet.bundle import SPEC_FILE, WEIGHTS_FILE, Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.errors import BundleError, ConfigError, DataError
from instrunet.features.featurizer import FrontEnd
from instrunet.models import Network
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.training.fit import Job, fit
from instrunet.training.optim import TrainSpec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows its three tones."""
    home = tmp_path_factory.mktemp("trained")
    folder = tones_folder(home / "tones")
    spec = TrainSpec(epochs=5, batch_size=8, learning_rate=3e-3, precision="fp32")
    fit(Job(draft(folder), spec, folder), lambda _, save: save(_fresh(home / "out")), torch.device("cpu"))
    return home / "out" / "bundle"


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def remade(trained: Path, **other: Any) -> Bundle:
    """The trained network under a changed spec."""
    bundle = Bundle.load(trained)
    return Bundle(BundleSpec.model_validate(bundle.spec.model_dump() | other), bundle.network)


def noise(n: int) -> dict[str, torch.Tensor]:
    return {"logmel": torch.randn(n, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 - 4}


def edit(path: Path, change: dict[str, Any]) -> None:
    tree = json.loads((path / SPEC_FILE).read_text(encoding="utf-8"))
    (path / SPEC_FILE).write_text(json.dumps(tree | change), encoding="utf-8")


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        Bundle.load(path)
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    return str(error.value)


def test_it_knows_what_it_learnt(trained: Path) -> None:
    bundle = instrunet.load(str(trained))
    for label, hz in TONES_HZ.items():
        said = bundle(tone(hz * 1.02, 0.5, seed=99), sample_rate=RATE)
        assert said.labels == [label] and said.scores[label] > 0.8
        assert sum(said.scores.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", [SMALL, Iteration11Spec(picture=SMALL.picture)])
def test_saved_and_loaded_is_the_same_function(tmp_path: Path, model: Any) -> None:
    spec = draft(model=model)
    torch.manual_seed(1)
    network = Network(spec.model, spec.front, spec.statistics, 3)
    with torch.no_grad():  # batch norm's running means must travel too
        network.train()(noise(16))
    bundle = Bundle(spec, network)
    loaded = Bundle.load(bundle.save(tmp_path / "b"))
    np.testing.assert_array_equal(loaded.predict(noise(9)), bundle.predict(noise(9)))
    assert loaded.spec == spec.model_copy(update={"weights_sha256": loaded.spec.weights_sha256})
    again = Bundle.load(loaded.save(tmp_path / "c"))
    assert again.fingerprint == loaded.fingerprint
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes() == (tmp_path / "c" / WEIGHTS_FILE).read_bytes()


def test_the_fingerprint_knows_the_weights(tmp_path: Path) -> None:
    prints = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        spec = draft()
        network = Network(spec.model, spec.front, spec.statistics, 3)
        prints.add(Bundle.load(Bundle(spec, network).save(tmp_path / str(seed))).fingerprint)
    assert len(prints) == 2


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    assert refusal(place) == (
        f"expected a bundle (a folder with bundle.json) at {place}, found none; jobs/train.py makes one"
    )


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / WEIGHTS_FILE).unlink()
    expected = f"{copy / WEIGHTS_FILE} cannot be read: No such file or directory; the bundle is not whole"
    assert refusal(copy) == expected


@pytest.mark.parametrize("damage", ["tampered", "truncated", "empty"])
def test_damaged_weights_are_refused(copy: Path, damage: str) -> None:
    content = bytearray((copy / WEIGHTS_FILE).read_bytes())
    if damage == "tampered":
        content[-100] ^= 1
    cut = {"tampered": len(content), "truncated": len(content) - 1, "empty": 0}[damage]
    (copy / WEIGHTS_FILE).write_bytes(content[:cut])
    expected = f"{copy / WEIGHTS_FILE} is not the file that bundle.json was sealed with; copy the bundle again"
    assert refusal(copy) == expected


def seal(path: Path, content: bytes) -> None:
    import hashlib

    (path / WEIGHTS_FILE).write_bytes(content)
    edit(path, {"weights_sha256": hashlib.sha256(content).hexdigest()})


def test_weights_that_are_no_safetensors_are_refused(copy: Path) -> None:
    seal(copy, b"\x80\x04N.")  # a pickle of None
    assert refusal(copy).startswith(f"{copy / WEIGHTS_FILE} is not a safetensors file: ")


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    seal(copy, safetensors.torch.save({"a": torch.zeros(2)}))
    assert refusal(copy).startswith(f"{copy}: the weights are not those of its network: ")


def test_a_newer_format_is_refused(copy: Path) -> None:
    edit(copy, {"format": 2, "of_tomorrow": True})
    assert refusal(copy) == f"{copy} has bundle format 2; this version reads 1: upgrade instrunet"


def test_an_unknown_field_is_refused_by_its_nearest_name(copy: Path) -> None:
    edit(copy, {"temprature": 2.0})
    assert refusal(copy) == f"{copy / SPEC_FILE}: unknown field temprature; did you mean temperature?"


def test_a_missing_field_is_refused(copy: Path) -> None:
    tree = json.loads((copy / SPEC_FILE).read_text(encoding="utf-8"))
    del tree["statistics"]
    (copy / SPEC_FILE).write_text(json.dumps(tree), encoding="utf-8")
    assert "statistics is required" in refusal(copy)


@pytest.mark.parametrize("text", ["{", "[]", "\ufffd"])
def test_what_is_no_json_object_is_refused(copy: Path, text: str) -> None:
    (copy / SPEC_FILE).write_text(text, encoding="utf-8")
    assert str(copy / SPEC_FILE) in refusal(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["low", "low", "top"]}, "each label may stand once; got low, low, top"),
        ({"thresholds": [0.5, 0.5]}, "thresholds needs 3 numbers, one a label; got 2"),
        (
            {"statistics": {"mean": {}, "std": {}, "n_windows": 1}},
            "statistics needs the mean and std of logmel, which front.features names",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    edit(copy, change)
    assert refusal(copy) == f"{copy / SPEC_FILE}: {message}"


@pytest.mark.parametrize("rate", [RATE, 11_025])
@pytest.mark.parametrize("channels", [1, 2])
def test_array_and_file_agree(trained: Path, tmp_path: Path, rate: int, channels: int) -> None:
    mono = tone(900, 1.3, rate=rate)
    wave = mono if channels == 1 else np.stack([mono, 0.5 * mono], axis=1)
    sf.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    bundle = Bundle.load(trained)
    of_file, of_array = bundle(tmp_path / "a.wav"), bundle(wave, sample_rate=rate)
    assert bundle(str(tmp_path / "a.wav")) == of_file
    assert of_array.labels == of_file.labels == ["middle"]
    assert of_array.window_start_s == of_file.window_start_s
    np.testing.assert_allclose(of_array.window_scores, of_file.window_scores, atol=1e-5)
    assert of_array.duration_s == pytest.approx(of_file.duration_s, abs=2 / RATE)


def test_doubles_and_views_are_as_good(trained: Path) -> None:
    bundle, wave = Bundle.load(trained), tone(900, 0.7)
    frozen = wave.copy()
    frozen.flags.writeable = False
    for other in (wave.astype(np.float64), np.repeat(wave, 2)[::2], frozen):
        assert bundle(other, sample_rate=RATE).window_scores == bundle(wave, sample_rate=RATE).window_scores


def test_an_array_needs_its_rate(trained: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Bundle.load(trained)(tone(900, 0.5))
    assert str(error.value) == "an array needs its sample_rate: bundle(samples, sample_rate=44100)"


@pytest.mark.parametrize("shape", [(), (2, 4000), (1, 4000, 1)])
def test_an_array_of_another_shape_is_refused(trained: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as error:
        Bundle.load(trained)(np.zeros(shape, np.float32), sample_rate=RATE)
    assert str(error.value) == f"expected samples as [T] or [T, C], got an array of shape {shape}; transpose [C, T]"


def test_samples_that_are_no_numbers_are_refused(trained: Path) -> None:
    wave = tone(900, 0.5)
    wave[[3, 70]] = np.nan, np.inf
    with pytest.raises(DataError, match="expected finite samples, got 2 that are not"):
        Bundle.load(trained)(wave, sample_rate=RATE)


@pytest.mark.parametrize(("seconds", "status"), [(0, "too_short"), (0.04, "too_short"), (1, "silent")])
def test_what_cannot_be_heard_is_not_decided(trained: Path, seconds: float, status: str) -> None:
    said = Bundle.load(trained)(np.zeros(int(seconds * RATE), np.float32), sample_rate=RATE)
    assert (said.status, said.labels, said.scores, said.window_scores) == (status, [], {}, [])
    assert said.error


def test_several_windows_are_averaged(trained: Path) -> None:
    bundle = Bundle.load(trained)
    pieces = [tone(TONES_HZ[label], 0.5, seed=k) for k, label in enumerate(("top", "low", "top"))]
    whole = bundle(np.concatenate(pieces), sample_rate=RATE)
    assert whole.window_start_s == pytest.approx([0.0, 0.5, 1.0]) and whole.duration_s == pytest.approx(1.5)
    alone = [bundle(piece, sample_rate=RATE) for piece in pieces]
    for window, one in zip(whole.window_scores, alone, strict=True):
        np.testing.assert_allclose(window, list(one.scores.values()), atol=1e-5)
    mean = np.mean([list(one.scores.values()) for one in alone], axis=0)
    np.testing.assert_allclose(list(whole.scores.values()), mean, atol=1e-5)
    assert list(whole.scores) == list(LABELS) and whole.labels == ["top"]


@pytest.mark.parametrize("length", ["fixed", "adaptive"])
def test_heard_together_is_as_heard_alone(length: str) -> None:
    """Also where sounds shorter than a window keep their own length, and where there is nothing to hear."""
    front = FrontEnd.model_validate(FRONT.model_dump() | {"length": length, "min_s": 0.5, "window_s": 1.0})
    spec = draft(model=Iteration11Spec(picture=SMALL.picture), front=front)
    bundle = Bundle(spec, Network(spec.model, front, spec.statistics, len(LABELS)))
    seconds = (0.6, 1.7, 0.8, 0.6, 0.01, 0.7)
    sounds = [Sound(tone(300.0 + 200 * k, s, seed=k)) for k, s in enumerate(seconds)] + [Sound(np.zeros(RATE, "f4"))]
    for one, together in zip(map(bundle.hear, sounds), bundle.hear_together(sounds), strict=True):
        np.testing.assert_allclose(together.scores, one.scores, atol=1e-6)
        assert (together.status, together.window_start_s, together.measures) == (
            one.status,
            one.window_start_s,
            one.measures,
        )
    assert bundle.hear_together([]) == []


def test_a_single_decision_is_the_best_label(trained: Path) -> None:
    bundle = remade(trained, thresholds=(0.9, 0.9, 0.9))  # a single task has no thresholds to reach
    assert bundle.decide(np.array([0.3, 0.4, 0.3], np.float32)) == ["middle"]


def test_multi_decisions_are_all_labels_at_or_above_their_threshold(trained: Path) -> None:
    scores = np.array([0.5, 0.49, 0.9], np.float32)
    assert remade(trained, kind="multi").decide(scores) == ["low", "top"]
    assert remade(trained, kind="multi", thresholds=(0.51, 0.4, 0.9)).decide(scores) == ["middle", "top"]
    assert remade(trained, kind="multi", thresholds=(0.95, 0.95, 0.95)).decide(scores) == []


def test_multi_scores_are_a_sigmoid_each_over_the_temperature(trained: Path) -> None:
    with torch.inference_mode():
        logits = Bundle.load(trained).network(noise(4)).double().numpy()
    multi = remade(trained, kind="multi", temperature=2.5).predict(noise(4))
    np.testing.assert_allclose(multi, 1 / (1 + np.exp(-logits / 2.5)), atol=1e-6)
    powers = np.exp(logits / 2.5)
    single = remade(trained, temperature=2.5).predict(noise(4))
    np.testing.assert_allclose(single, powers / powers.sum(1, keepdims=True), atol=1e-6)


def test_a_prediction_is_json(trained: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", tone(900, 1.3), RATE)
    said = Bundle.load(trained)(tmp_path / "a.wav")
    tree = json.loads(json.dumps(said.to_dict(), allow_nan=False))
    assert tree == said.to_dict()
    assert set(tree) == {
        *("labels", "scores", "window_start_s", "window_scores", "duration_s", "flags", "status", "error", "drift"),
        "start_s",
    }


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_scores_do_not_depend_on_the_batch(trained: Path, batch_size: int) -> None:
    bundle = Bundle.load(trained)
    np.testing.assert_allclose(bundle.predict(noise(9), batch_size), bundle.predict(noise(9)), atol=1e-5)


def test_half_precision_features_will_do(trained: Path) -> None:
    bundle = Bundle.load(trained)
    half = {name: value.half() for name, value in noise(5).items()}
    np.testing.assert_allclose(bundle.predict(half), bundle.predict(noise(5)), atol=0.01)


def test_a_file_that_is_no_sound_says_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(DecodeError) as error:
        Bundle.load(trained)(tmp_path / "a.wav")
    assert error.value.status == "corrupt"
