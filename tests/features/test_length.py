"""Windows of their own length: cut, levelled, stored, batched and scored alike in training and in service."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from archives import tag_archive
from making import FRONT, LABELS, RATE, SMALL, TONES_HZ, clip, draft, features_folder, tone
from numpy.typing import NDArray

from instrunet import export
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.bundle import Bundle
from instrunet.errors import ConfigError
from instrunet.features import FRAME_FEATURES, SHARE, shards
from instrunet.features.featurizer import Featurizer, FrontEnd
from instrunet.models import ModelSpec, Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.training.feed import Feed
from instrunet.training.fit import Job, fit
from instrunet.training.optim import TrainSpec

ADAPTIVE = FRONT.model_copy(update={"length": "adaptive", "window_s": 2.0, "hop_s": 2.0, "min_s": 0.5})
SECONDS = (0.2, 0.5, 0.61, 0.9, 1.3, 2.0)  # 0.2 is padded to 0.5, the others keep their length
FRAMES = (16, 16, 20, 29, 41, 63)
POOLED = Iteration11Spec(picture=PictureSpec(size=None, colour=False))
RESIZED = Iteration11Spec(picture=PictureSpec(size=32))
MODELS = pytest.mark.parametrize("model", [POOLED, RESIZED, SMALL], ids=["pooled", "resized", "dense"])


def bundle(model: ModelSpec = POOLED, front: FrontEnd = ADAPTIVE) -> Bundle:
    """Untrained, with its last layer made loud: otherwise all scores would be a third, whatever the sound."""
    spec = draft(model=model, front=front)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():
        network.body.head[-1].weight.mul_(40)
    return Bundle(spec, network)


def of_lengths(folder: Path, seconds: tuple[float, ...], split: str = "train") -> list[dict[str, Any]]:
    """A tone of each length."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for k, length in enumerate(seconds):
        label = LABELS[k % 3]
        path = folder / f"{split}{k:03d}.wav"
        sf.write(path, tone(TONES_HZ[label], length, seed=k), RATE, subtype="FLOAT")
        rows.append(clip(path, [label], split))
    return rows


def padded(values: list[NDArray[np.float32]], n_frames: int, filling: float) -> torch.Tensor:
    wide = [np.pad(v, ((0, 0), (0, n_frames - v.shape[1])), constant_values=filling) for v in values]
    return torch.from_numpy(np.stack(wide))


@pytest.mark.parametrize("seconds", SECONDS[1:])
def test_a_short_sound_is_a_window_of_its_own_length(seconds: float) -> None:
    wave = tone(440, seconds)
    alone = Featurizer(FRONT.model_copy(update={"window_s": seconds, "hop_s": seconds})).fast(wave)
    seen = Featurizer(ADAPTIVE).fast(wave)
    assert seen.start_s == [0.0] and seen.features["logmel"].shape == (1, 16, FRAMES[SECONDS.index(seconds)])
    np.testing.assert_array_equal(seen.features["logmel"], alone.features["logmel"])


@pytest.mark.parametrize("level", ["peak", "rms", "none"])
def test_the_level_is_that_of_the_sound_without_what_fills_it_up(level: str) -> None:
    front = ADAPTIVE.model_copy(update={"level": level})
    wave = tone(440, 0.2)
    own = Featurizer(front.model_copy(update={"min_s": 0.2})).fast(wave).features["logmel"]
    seen = Featurizer(front).fast(wave).features["logmel"]
    assert seen.shape == (1, 16, 16)
    np.testing.assert_array_equal(seen[..., :6], own[..., :6])  # the last frame of `own` already hears its end
    assert (seen[..., 8:] == np.log(np.float32(1e-5))).all()


def test_a_long_sound_is_its_windows_or_its_first() -> None:
    wave = tone(440, 5.0)
    seen = Featurizer(ADAPTIVE).fast(wave)
    assert seen.start_s == [0.0, 2.0, 3.0]
    first = Featurizer(ADAPTIVE.model_copy(update={"long": "first"})).fast(wave)
    assert first.start_s == [0.0]
    np.testing.assert_array_equal(first.features["logmel"][0], seen.features["logmel"][0])
    assert first.features["logmel"].shape == (1, 16, 63)


def test_every_feature_has_its_length() -> None:
    front = FrontEnd.model_validate({"features": [{"name": n} for n in FRAME_FEATURES], "length": "adaptive"})
    seen = Featurizer(front).fast(tone(440, 0.7, rate=front.sample_rate))
    shapes = front.shapes(round(0.7 * front.sample_rate))
    assert {name: v.shape[1:] for name, v in seen.features.items()} == shapes
    assert {frames for _, frames in shapes.values()} == {1 + 15_435 // 512}


def test_a_minimum_over_the_maximum_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        FrontEnd.parse({"length": "adaptive", "min_s": 4.0, "window_s": 3.0}, "x.yaml")
    assert str(error.value) == "x.yaml: min_s must be at most window_s, the maximum; got 4 and 3"


def test_shards_keep_each_length_and_statistics_hear_no_padding(tmp_path: Path) -> None:
    clips = of_lengths(tmp_path / "sound", SECONDS)
    folder = features_folder(tmp_path / "f", clips, ADAPTIVE)
    held = shards.load(folder, ADAPTIVE, "train")
    assert held.values["logmel"].shape == (6, 16, 63) and held.frames is not None
    assert tuple(held.frames) == FRAMES
    own = [Featurizer(ADAPTIVE).fast(io.read(Path(c["uri"]), RATE).wave).features["logmel"][0] for c in clips]
    for row, n_frames, want in zip(held.values["logmel"], FRAMES, own, strict=True):
        np.testing.assert_array_equal(row[:, :n_frames], want.astype(np.float16))
    everything = np.concatenate([w.astype(np.float16).astype(np.float64).ravel() for w in own])
    found = shards.statistics_of(folder, 1)
    assert found.mean["logmel"][0] == pytest.approx(everything.mean(), rel=1e-9)
    assert found.std["logmel"][0] == pytest.approx(everything.std(), rel=1e-9)
    fixed = shards.load(features_folder(tmp_path / "g", clips, FRONT), FRONT, "train")
    assert fixed.frames is None


def feed(n: int = 53) -> Feed:
    """Row k holds the value k in 10 to 62 frames of its own."""
    frames = np.random.default_rng(0).integers(10, 63, n)
    values = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None], (n, 2, 63)).copy()
    names = [str(k) for k in range(n)]
    clips = {"clip_id": names, "uri": names, "labels": [[LABELS[0]]] * n}
    return Feed(shards.Features({"logmel": values}, clips, frames), LABELS, "train")


def plan(seed: int, batch_size: int) -> TrainSpec:
    return TrainSpec(seed=seed, batch_size=batch_size, specaugment=None)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_batch_is_as_long_as_its_longest_row_on_every_worker(world: int) -> None:
    made = feed()
    each = [list(made.epoch(plan(1, 8), 2, (rank, world))) for rank in range(world)]
    assert {len(mine) for mine in each} == {7}
    rows = []
    for step in zip(*each, strict=True):
        index = [int(v) for batch in step for v in batch.features["logmel"][:, 0, 0]]
        longest = int(made.frames[index].max())
        for batch in step:
            assert batch.features["logmel"].shape[2] == longest
            mine = batch.features["logmel"][:, 0, 0].numpy().astype(int)
            np.testing.assert_allclose(batch.features[SHARE] * longest, made.frames[mine], rtol=1e-6)
        rows += index
    assert sorted(set(rows)) == list(range(53)) and len(rows) == 56


def test_batches_gather_lengths_and_their_order_is_that_of_seed_and_epoch() -> None:
    made = feed(400)

    def orders(seed: int, epoch: int) -> list[list[int]]:
        batches = made.epoch(plan(seed, 16), epoch, (0, 1))
        return [b.features["logmel"][:, 0, 0].int().tolist() for b in batches]

    first = orders(0, 0)
    assert first == orders(0, 0) and first != orders(0, 1) and first != orders(1, 0)
    wasted = np.mean([1 - made.frames[b].mean() / made.frames[b].max() for b in first])
    assert wasted < 0.15  # 0.11; 0.38 where batches are drawn at random
    longest = [int(made.frames[b].max()) for b in first]
    assert longest != sorted(longest)


def test_evaluation_batches_have_one_length() -> None:
    made = feed()
    seen = [(index, batch) for index, batch in made.rows(8, (0, 1))]
    assert all(len(set(made.frames[index])) == 1 and bool((b.features[SHARE] == 1).all()) for index, b in seen)
    assert sorted(int(k) for index, _ in seen for k in index) == list(range(53))


@MODELS
def test_what_stands_in_the_padding_changes_nothing(model: ModelSpec) -> None:
    network = bundle(model).network
    own = [np.random.default_rng(k).normal(-4, 3, (16, n)).astype(np.float32) for k, n in enumerate(FRAMES)]
    share = torch.tensor(FRAMES) / 63
    with torch.no_grad():
        silence, noise = (network({"logmel": padded(own, 63, v), SHARE: share}) for v in (-11.5, 1e3))
    assert torch.equal(silence, noise)


@MODELS
def test_scores_in_a_padded_batch_are_near_those_alone(model: ModelSpec) -> None:
    """Exact where the body is given the whole grid; where it pools, maps beside the padding are a little different."""
    made = bundle(model)
    waves = [tone(TONES_HZ[LABELS[k % 3]], s, seed=k) for k, s in enumerate(SECONDS)]
    seen = [made.featurizer.fast(wave) for wave in waves]
    alone = np.concatenate([made.scores(windows) for windows in seen])
    features = padded([w.features["logmel"][0] for w in seen], 63, 0.0)
    with torch.no_grad():
        batch = made.network({"logmel": features, SHARE: torch.tensor(FRAMES) / 63}).softmax(1).numpy()
    assert np.ptp(alone, axis=0).max() > 0.1  # the scores do move with the sound
    assert np.abs(alone - batch).max() < (0.1 if model is POOLED else 1e-5)


@MODELS
def test_evaluation_gives_what_service_gives(tmp_path: Path, model: ModelSpec) -> None:
    clips = of_lengths(tmp_path / "sound", (*SECONDS, 4.4))
    held = shards.load(features_folder(tmp_path / "f", clips, ADAPTIVE), ADAPTIVE, "train")
    made = bundle(model)
    found = made.predict({"logmel": torch.from_numpy(held.values["logmel"])}, frames=held.frames)
    alone = np.concatenate([made.hear(io.read(Path(c["uri"]), RATE)).scores for c in clips])
    np.testing.assert_allclose(found, alone, atol=2e-3)  # features are stored in half precision
    assert len(found) == 9


@pytest.mark.parametrize("model", [POOLED, SMALL], ids=["pooled", "dense"])
def test_it_learns(tmp_path: Path, model: ModelSpec) -> None:
    lengths = tuple(np.random.default_rng(0).uniform(0.2, 2.4, 30))
    clips = of_lengths(tmp_path / "s", lengths) + of_lengths(tmp_path / "s", lengths[:9], "val")
    folder = features_folder(tmp_path / "f", clips, ADAPTIVE)
    job = Job(draft(folder, model=model, front=ADAPTIVE), TrainSpec(epochs=6, batch_size=8), folder)
    found = fit(job, lambda metrics, save: None, torch.device("cpu"))
    assert max(m["val_accuracy"] for m in found.history) == 1.0


def test_too_short_a_minimum_for_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs a picture of at least 16 x 16, got 16 x 10 .*front.min_s"):
        bundle(front=ADAPTIVE.model_copy(update={"min_s": 0.3}))


def test_it_exports(tmp_path: Path) -> None:
    """On noise from a fifth of a window to five; more in tests/test_export.py."""
    assert export.to_onnx(bundle(), tmp_path)[1] < 1e-4


def test_the_first_seconds_are_those_of_the_file_and_not_of_each_unit(tmp_path: Path) -> None:
    made = bundle(front=ADAPTIVE.model_copy(update={"long": "first"}))
    (tmp_path / "in").mkdir()
    sf.write(tmp_path / "in/a.wav", tone(440, 7.0), RATE)
    tag_archive(tmp_path / "in", tmp_path / "out", made, UnitSpec(unit_s=3.0))
    rows = pq.read_table(sorted((tmp_path / "out/units").iterdir())).to_pylist()
    assert [len(row["scores"]) for row in rows] == [1, 0, 0]
    assert {row["status"] for row in rows} == {"tagged"}
    np.testing.assert_allclose(rows[0]["scores"][0], made(tmp_path / "in/a.wav").window_scores[0], rtol=1e-3)
