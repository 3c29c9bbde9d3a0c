"""The 392 numbers against librosa called one by one, their names, and features standing beside each other."""

import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from making import tone
from numpy.typing import NDArray

from instrunet.config import fingerprint
from instrunet.data.synth import SynthSpec, render_clip
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment
from instrunet.features import FEATURES, FRAME_FEATURES, shards
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics
from instrunet.features.summary import ROWS, Summary, SummarySpec, describe, names
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec, Task8Spec

RATE = 22_050
CLASSES = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
NOISE = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * 0.1
ODD = {
    "short": tone(440.0, 300 / RATE, rate=RATE),
    "one sample": NOISE[:1],
    "one frame more": NOISE[:2048],
    "silence": np.zeros(RATE, np.float32),
    "constant": np.ones(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "half silent": np.concatenate([np.zeros(RATE, np.float32), NOISE[:RATE]]),
    "alternating zeros": np.tile(np.float32([0.0, 1e-12, -1e-12, 0.1, 0.0, -0.1]), 5000),
}


def played(k: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(render_clip(SynthSpec(sample_rate=RATE), CLASSES[k], 1, 1).mean(0), dtype=np.float32)


def one_by_one(wave: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float64]:
    """As the seed does: each description on its own, with librosa's defaults."""
    feature = librosa.feature
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of short sounds, and of silence, which has no tuning
        rows = [
            feature.mfcc(y=wave, sr=rate, n_mfcc=40),
            feature.chroma_stft(y=wave, sr=rate),
            feature.melspectrogram(y=wave, sr=rate),
            feature.spectral_contrast(y=wave, sr=rate),
            feature.tonnetz(y=wave, sr=rate),
            feature.zero_crossing_rate(wave),
            feature.spectral_centroid(y=wave, sr=rate),
            feature.spectral_rolloff(y=wave, sr=rate),
        ]
    return np.concatenate([statistic(row, axis=1) for row in rows for statistic in (np.mean, np.std)])


def ours(wave: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float32]:
    return Summary(SummarySpec(sample_rate=rate)).fast(wave)[:, 0]


def relative(got: NDArray[np.floating], want: NDArray[np.floating]) -> float:
    return float((np.abs(got - want) / np.maximum(np.abs(want), 1e-9)).max())


@pytest.mark.parametrize("k", range(11))
def test_equals_librosa(k: int) -> None:
    # Worst of the 392 x 11: 2e-5; of 300 other sounds 4e-4, of a number that is 0.0001
    assert relative(ours(played(k)), one_by_one(played(k))) < 1e-3


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_equals_librosa_at_other_rates(rate: int) -> None:
    # Worst: 1e-4
    assert relative(ours(NOISE, rate), one_by_one(NOISE, rate)) < 1e-3


@pytest.mark.parametrize("sound", ODD)
def test_equals_librosa_on_odd_sounds(sound: str) -> None:
    """Against the largest number of its kind: some are 0 but for rounding here, such as the deviation of one frame."""
    # Worst: 3e-6
    got, want = ours(ODD[sound]), one_by_one(ODD[sound])
    assert np.isfinite(got).all()
    at = 0
    for name, n in ROWS.items():
        kind = slice(at, at := at + 2 * n)
        assert np.abs(got[kind] - want[kind]).max() <= 1e-5 * max(np.abs(want[kind]).max(), 0.1), name


def test_what_is_quiet_may_count_as_nothing() -> None:
    """The silent half of a clip has no tonnetz then, and no valley is deeper than so much below the loudest."""
    plain, spec = SummarySpec(), SummarySpec(quiet_db=80.0)
    half = np.concatenate([NOISE[:RATE], np.zeros(3 * RATE, np.float32)])
    got, want = describe(half, spec), describe(half, plain)
    silent = slice(3 * len(got["tonnetz"][0]) // 4, None)
    assert np.abs(want["tonnetz"][:, silent]).max() > 0.01 and not got["tonnetz"][:, silent].any()
    loud = slice(0, RATE // 512 - 4)
    np.testing.assert_allclose(got["tonnetz"][:, loud], want["tonnetz"][:, loud], atol=1e-6)
    np.testing.assert_allclose(describe(NOISE, spec)["contrast"], describe(NOISE, plain)["contrast"], atol=1e-4)
    note = describe(tone(440.0, 1.0, rate=RATE), spec)["contrast"]
    assert note.max() <= 40.1 < describe(tone(440.0, 1.0, rate=RATE), plain)["contrast"].max()  # 10 log10 of 1e4
    assert all(np.array_equal(got[name], want[name]) for name in ROWS if name not in ("contrast", "tonnetz"))


def test_bundles_from_before_keep_their_fingerprint() -> None:
    assert SummarySpec().fingerprint() == fingerprint({"name": "summary", "sample_rate": RATE})
    assert SummarySpec(quiet_db=80).fingerprint() != SummarySpec().fingerprint()
    assert SummarySpec.parse(SummarySpec(quiet_db=80).model_dump(), "x") == SummarySpec(quiet_db=80)


def test_every_number_has_a_name() -> None:
    found = names()
    assert len(found) == len(set(found)) == 392
    assert [found[k] for k in (0, 39, 40, 79, 80, 104, 231, 360, 374, 386, 391)] == [
        *("mfcc_00_mean", "mfcc_39_mean", "mfcc_00_std", "mfcc_39_std", "chroma_00_mean", "mel_000_mean"),
        *("mel_127_mean", "contrast_0_mean", "tonnetz_0_mean", "zero_crossings_mean", "rolloff_std"),
    ]
    assert {name: 2 * n for name, n in ROWS.items()} == {
        **{"mfcc": 80, "chroma": 24, "mel": 256, "contrast": 14, "tonnetz": 12},
        **{"zero_crossings": 2, "centroid": 2, "rolloff": 2},
    }


def test_a_name_is_what_it_says() -> None:
    found = dict(zip(names(), ours(tone(440.0, 1.0, rate=RATE)), strict=True))
    assert found["chroma_09_mean"] == max(found[f"chroma_{k:02d}_mean"] for k in range(12))  # A
    assert found["zero_crossings_mean"] == pytest.approx(2 * 440 / RATE, rel=0.3)
    assert found["rolloff_mean"] > found["centroid_mean"] > 440


@pytest.mark.parametrize("n_samples", [1, 255, 256, 22_050])
def test_shape_does_not_depend_on_the_length(n_samples: int) -> None:
    spec = SummarySpec()
    assert Summary(spec).fast(NOISE[:n_samples]).shape == spec.shape(n_samples) == (392, 1)


def test_a_rate_below_the_highest_band_is_refused() -> None:
    with pytest.raises(ConfigError, match="sample_rate: input should be greater than 12800, got 8000"):
        SummarySpec.parse({"sample_rate": 8000}, "x.yaml")


def test_half_precision_holds_them() -> None:
    """The largest is the energy of a full-scale square wave, 20,774; half precision ends at 65,504."""
    loudest = np.sign(np.sin(2 * np.pi * 250 * np.arange(RATE) / RATE)).astype(np.float32)
    assert np.isfinite(ours(loudest).astype(np.float16)).all()


@pytest.fixture
def front() -> FrontEnd:
    return FrontEnd.model_validate({"features": [{"name": name} for name in FEATURES], "window_s": 1.0, "hop_s": 1.0})


def test_features_stand_beside_each_other(front: FrontEnd) -> None:
    featurizer = Featurizer(front)
    cut = NOISE.reshape(3, RATE)
    fast, module = featurizer.fast(NOISE).features, featurizer(torch.from_numpy(cut))
    assert list(fast) == list(module) == ["logmel", "cqt", "chroma", "hpss", "summary"]
    for name, shape in front.shapes().items():
        assert fast[name].shape == module[name].shape == (3, *shape)
        assert fast[name].dtype == np.float32
        np.testing.assert_allclose(module[name], fast[name], rtol=1e-4, atol=1e-4)
    assert {front.shapes()[name][1] for name in FRAME_FEATURES} == {1 + RATE // 512}


def test_features_stand_beside_each_other_in_a_part(front: FrontEnd, tmp_path: Path) -> None:
    import soundfile as sf

    sf.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    row = {"clip_id": "a", "uri": str(tmp_path / "a.wav"), "start_s": 0.0, "stop_s": None, "labels": ["x"]}
    table = shards.make_part([row | {"group": "a", "split": "train", "corpus": "c"}], Featurizer(front))
    assert table.num_rows == 3 and set(FEATURES) < set(table.column_names)
    assert len(table["summary"][0].as_py()) == 392 * 2


@pytest.mark.parametrize("name", FRAME_FEATURES)
def test_a_network_looks_at_any_frame_feature(name: str) -> None:
    front = FrontEnd.model_validate({"features": [{"name": name}]})
    statistics = Statistics(mean={name: (0.5,)}, std={name: (2.0,)}, n_windows=1)
    network = Network(Task8Spec(picture=PictureSpec(size=16, colour=False)), front, statistics, 3).eval()
    assert network({name: torch.zeros(2, *front.shapes()[name])}).shape == (2, 3)


@pytest.mark.parametrize("features", [("summary",), ("summary", "logmel")])
def test_a_picture_network_refuses_the_rest(features: tuple[str, ...]) -> None:
    front = FrontEnd.model_validate({"features": [{"name": name} for name in features]})
    statistics = Statistics(mean=dict.fromkeys(features, (0.0,)), std=dict.fromkeys(features, (1.0,)), n_windows=1)
    with pytest.raises(ConfigError) as error:
        Network(Task8Spec(), front, statistics, 3)
    assert str(error.value) == (
        f"task8 looks at a picture of a sound; front.features is {', '.join(features)}: "
        "set it to one or more of logmel, cqt, chroma, hpss"
    )


def test_stacked_features_are_one_picture_each_normalised_by_its_own() -> None:
    front = FrontEnd.model_validate({"features": [{"name": "logmel"}, {"name": "chroma"}]})
    statistics = Statistics(
        mean={"logmel": (-5.0,), "chroma": (0.5,)}, std={"logmel": (2.0,), "chroma": (0.25,)}, n_windows=1
    )
    network = Network(Iteration11Spec(picture=PictureSpec(size=None, colour=False)), front, statistics, 3).eval()
    seen: list[torch.Tensor] = []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    shapes = front.shapes()
    network({"logmel": torch.full((2, *shapes["logmel"]), -3.0), "chroma": torch.zeros(2, *shapes["chroma"])})
    assert seen[0].shape == (2, 1, 128 + 12, shapes["logmel"][1])
    assert (seen[0][:, 0, :128] == 1.0).all() and (seen[0][:, 0, 128:] == -2.0).all()


def test_features_of_other_hops_are_no_picture() -> None:
    tree = {"front": {"features": [{"name": "logmel", "hop_length": 256}, {"name": "hpss"}]}}
    with pytest.raises(ConfigError, match="same number of frames a window, got logmel 259, hpss 130: give them one"):
        Experiment.parse(tree, "x.yaml")


def test_an_unknown_feature_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown features.0 'cqtt'; did you mean cqt?"):
        FrontEnd.parse({"features": [{"name": "cqtt"}]}, "x.yaml")
