"""Features in torch alone against their numpy, and bundles on them as ONNX, waveform to scores."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SHARED
from making import LABELS, tone
from numpy.typing import NDArray

from instrunet import export
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.errors import ConfigError
from instrunet.features import FEATURES, Feature, FeatureSpec
from instrunet.features.cqt import Cqt, CqtSpec
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics, sums_of
from instrunet.features.hpss import Hpss, HpssSpec
from instrunet.features.spectra import magnitudes, slower
from instrunet.features.summary import ROWS, SummarySpec, _tuning, describe
from instrunet.features.traced import TRACED
from instrunet.features.traced.cqt import Slower
from instrunet.features.traced.pitch import Tuning
from instrunet.features.traced.summary import ROUNDING, TracedSummary
from instrunet.models import ModelSpec, Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.models.soundmind import Dense40Spec, SoundMindSpec

RATE = 22_050
CLIPS = SHARED / "data"
NOISE = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * 0.1
SOUNDS = {
    "noise": NOISE,
    "tone": tone(440.0, 1.0, rate=RATE),
    "silence": np.zeros(RATE, np.float32),
    "click": np.eye(1, RATE, 7000, dtype=np.float32)[0],
    "silent ends": np.concatenate([np.zeros(9000, np.float32), NOISE[:9000], np.zeros(12_000, np.float32)]),
    "short": tone(440.0, 500 / RATE, rate=RATE),
    "one sample": NOISE[:1],
}
HPSS = {
    "default": HpssSpec(),
    "margin": HpssSpec(margin=2.5, harmonic_frames=17, percussive_bins=11, power=1.0),
    "longer than the clip": HpssSpec(harmonic_frames=201, hop_length=400),
    "another rate": HpssSpec(sample_rate=16_000, n_fft=1024, hop_length=160, n_mels=40, fmax_hz=8000.0),
}
CQT = {
    "default": CqtSpec(),
    "halved before": CqtSpec(hop_length=256, n_bins=60, fmin_hz=110.0, bins_per_octave=24),
    "halved four times before": CqtSpec(n_bins=30, fmin_hz=55.0),
    "hop runs out of twos": CqtSpec(hop_length=100, n_bins=48, fmin_hz=55.0),
}
# What a bundle hears, and its network
FRONTS: dict[str, tuple[FeatureSpec, ModelSpec]] = {
    "cqt": (CqtSpec(n_bins=48, fmin_hz=261.63), Iteration11Spec(picture=PictureSpec(size=None))),
    "summary": (SummarySpec(quiet_db=80.0), SoundMindSpec()),
    "hpss": (HpssSpec(n_fft=1024, n_mels=16), Iteration11Spec(picture=PictureSpec(size=None))),
}

LENGTHS = {"cqt": "adaptive", "hpss": "adaptive", "summary": "fixed"}


def both(part: Feature, wave: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """In torch, between two other sounds, and by numpy."""
    beside = np.stack([wave[::-1].copy(), wave, np.full_like(wave, 0.5)])
    return TRACED[part.spec.name](part.spec)(torch.from_numpy(beside))[1].numpy(), part.fast(wave)


@pytest.mark.parametrize("setting", HPSS)
@pytest.mark.parametrize("sound", SOUNDS)
def test_hpss(sound: str, setting: str) -> None:
    # Worst: 4e-5, of a logarithm near the floor
    got, want = both(Hpss(HPSS[setting]), SOUNDS[sound])
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-4


@pytest.mark.parametrize("setting", CQT)
@pytest.mark.parametrize("sound", SOUNDS)
def test_cqt(sound: str, setting: str) -> None:
    """Where a sound without noise leaves next to nothing in a bin, its logarithm is that of soxr's own noise."""
    # Worst: 2e-6 of the largest amplitude; of noise alone 2e-5 as logarithms
    got, want = both(Cqt(CQT[setting]), SOUNDS[sound])
    assert got.shape == want.shape
    assert np.abs(np.exp(got) - np.exp(want)).max() < 1e-5 * np.exp(want).max()
    assert sound != "noise" or np.abs(got - want).max() < 1e-4


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 5, 9, 300, 301, 302, 303, 5000])
def test_a_rate_is_lowered_as_by_soxr(n_samples: int, factor: int) -> None:
    """Its begin, where soxr that halves several times leaves something out, and its end, where it rounds."""
    want = slower(NOISE[:n_samples], factor)
    got = Slower(factor)(torch.from_numpy(NOISE[None, :n_samples]))[0].numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-6  # worst: 1.2e-7


def test_each_feature_that_is_numpy_has_a_form_in_torch() -> None:
    assert {name for name in FEATURES if TRACED[name] is not FEATURES[name]} == set(FRONTS)


@pytest.mark.parametrize("quiet_db", [None, 80.0])
@pytest.mark.parametrize("sound", ["noise", "tone", "silence", "silent ends", "short", "one sample"])
def test_each_row_of_the_summary(sound: str, quiet_db: float | None) -> None:
    # Worst: 3e-5 of the largest of its row. A click, whose peaks and valleys are all rounding, is no test
    wave = SOUNDS[sound]
    beside = np.stack([wave[::-1].copy(), wave, np.full_like(wave, 0.5)])
    spec = SummarySpec(quiet_db=quiet_db)
    got, want = TracedSummary(spec).describe(torch.from_numpy(beside)), describe(wave, spec)
    for name, rows in want.items():
        if sound == "tone" and name in ROUNDING and not quiet_db:
            continue  # bands without sound
        mine = got[name][1].numpy()
        assert mine.shape == rows.shape == (ROWS[name], 1 + len(wave) // 512)
        for statistic in (np.mean, np.std):
            apart = np.abs(statistic(mine, axis=1) - statistic(rows, axis=1)).max()
            assert apart <= 1e-4 * max(np.abs(rows).max(), 0.1), name


def test_the_tuning_is_that_of_numpy() -> None:
    """A peak on the wrong side of a step's edge would change the chroma of a whole clip."""
    for k, wave in enumerate(NOISE[: 20 * 2048].reshape(4, -1)):
        clip = wave + tone(440 * 2 ** (k / 31), len(wave) / RATE, rate=RATE)
        magnitude = magnitudes(clip, 2048, 512)
        for bins_per_octave in (12, 36):
            step = Tuning(RATE, bins_per_octave)(torch.from_numpy(magnitude)[None])[0]
            assert float(step) / 100 - 0.5 == pytest.approx(_tuning(magnitude, RATE, bins_per_octave))


def test_a_network_on_what_a_graph_cannot_repeat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this network reads summary's contrast and tonnetz, which are in part what"):
        export.to_onnx(made("summary", SummarySpec(), SoundMindSpec()), tmp_path)
    assert list(tmp_path.iterdir()) == []
    export._check_that_a_graph_repeats(made("summary", SummarySpec(), Dense40Spec()))  # it does not read them


def made(name: str, feature: FeatureSpec, model: ModelSpec) -> Bundle:
    """Windows of a second, or of half a second to one; statistics of tones, and scores that are not all alike."""
    front = FrontEnd(features=(feature,), window_s=1.0, hop_s=0.6, length=LENGTHS[name], min_s=0.5)
    heard = [Featurizer(front).fast(tone(300.0 * 2**k, 1.0, seed=k, rate=RATE)) for k in range(4)]
    values = np.concatenate([one.features[name] for one in heard])
    statistics = Statistics.of({name: sums_of(name, values.astype(np.float16))}, len(values))
    spec = BundleSpec(kind="single", labels=LABELS, front=front, model=model, statistics=statistics)
    torch.manual_seed(0)
    network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():
        network.train()({name: torch.from_numpy(values)})  # running means other than 0 and 1
        last, shown = network.eval().body.head[-1], {name: torch.from_numpy(values)}
        last.weight.mul_(3 / network(shown).std(0).mean() if name == "summary" else 30)
        last.bias.sub_(network(shown).mean(0))
    return Bundle(spec, network)


@pytest.fixture(scope="module", params=FRONTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, float]:
    bundle = made(request.param, *FRONTS[request.param])
    return bundle, *export.to_onnx(bundle, tmp_path_factory.mktemp(request.param))


def test_parity_on_noise_of_several_lengths(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, difference = exported
    assert difference < 1e-4
    cut = [Sound(NOISE[:n]) for n in (1, 255, 256, 11_024, 11_025, 11_026, 15_000, 22_049, 22_050, 22_051, 35_280)]
    assert export.parity(bundle, path, cut) < 1e-4


def test_several_sounds_and_silence(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    waves = np.stack([*(tone(300.0 * 2**k, 1.7, seed=k, rate=RATE) * 10.0**-k for k in range(4)), NOISE[:37_485] * 0])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores, windows = session.run(["scores", "window_scores"], {"waveform": waves})
    assert scores.shape == (5, len(LABELS)) and windows.shape[1] == 2
    for wave, mine, rows in zip(waves[:4], scores, windows, strict=False):
        said = bundle(wave, RATE)
        np.testing.assert_allclose(mine, list(said.scores.values()), atol=1e-4)
        np.testing.assert_allclose(rows, said.window_scores, atol=1e-4)
    assert np.isfinite(scores).all() and np.ptp(scores, axis=0).max() > 0.1  # the sounds are told apart


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"real recordings are expected at {CLIPS}")
def test_real_clips(exported: tuple[Bundle, Path, float]) -> None:
    bundle, path, _ = exported
    files = [*sorted(CLIPS.glob("instruments/audio/**/*.*"))[::150], *sorted(CLIPS.glob("emotion/audio/**/*.*"))[::300]]
    assert len(files) >= 6
    # Worst of cqt: 5e-5; where a clip is silent to the last bit, docs/onnx.md says why it may be more
    assert export.parity(bundle, path, [bundle.read(file) for file in files]) < 1e-4
