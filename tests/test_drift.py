"""The drift guard: silent on other recordings of one kind, told in words on data of another."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import soxr
from archives import sound, tag_archive, tiny_bundle, write
from conftest import SHARED
from making import RATE, clip, features_folder, tone
from numpy.typing import NDArray
from scipy.signal import firwin, lfilter

from instrunet.archive import books
from instrunet.archive.units import UnitSpec
from instrunet.audio import io as audio
from instrunet.bundle import Bundle
from instrunet.data import corpora, split
from instrunet.data.split import SplitSpec
from instrunet.drift import QUANTILES, Profile, compare
from instrunet.features import shards
from instrunet.features.featurizer import Featurizer, FrontEnd
from instrunet.features.logmel import LogMelSpec
from instrunet.features.measures import MEASURES, NAMES

PACKS = ("emotion", "instruments", "guitar-notes", "digits", "demo")
# The cheapest front end: what is measured hardly depends on it
CHEAP = FrontEnd(features=(LogMelSpec(n_mels=32, hop_length=1024),), level="none")
N_CLIPS = 240
WIDE = 22_050


def mp3(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lowest constant rate that there is: 8 to 32 kbit/s."""
    file = io.BytesIO()
    sf.write(file, wave, WIDE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.999)
    file.seek(0)
    return sf.read(file, dtype="float32")[0]


OTHERS = {
    "mp3": mp3,
    "below 7 kHz": lambda wave: lfilter(firwin(255, 7000, fs=WIDE), 1.0, wave).astype(np.float32),
    "from 8 kHz": lambda wave: soxr.resample(soxr.resample(wave, WIDE, 8000), 8000, WIDE).astype(np.float32),
    "30 dB quieter": lambda wave: wave * np.float32(10**-1.5),
    "ten times longer": lambda wave: np.tile(wave, 10),
}
SAID = {
    "mp3": "have no energy above",
    "below 7 kHz": "have no energy above 7.",
    "from 8 kHz": "have no energy above 3.9 kHz",
    "30 dB quieter": "are quieter than",
    "ten times longer": "are longer than",
}


def rows(n: int, seed: int = 0, **moved: float) -> list[list[float]]:
    """[n, M]: every measure from 90 to 110, evenly, and some of them moved."""
    found = np.random.default_rng(seed).uniform(90, 110, (n, len(MEASURES)))
    for name, by in moved.items():
        found[:, NAMES.index(name)] += by
    return found.tolist()


PROFILE = Profile.of(rows(2000), [["a"]] * 2000)


def test_quantiles_are_numpys_of_all_and_of_each_class() -> None:
    table = rows(300)
    found = Profile.of(table, [["a"], ["b"], ["a", "b"]] * 100)
    for k, name in enumerate(NAMES):
        assert found.overall[name] == pytest.approx(np.quantile(np.array(table)[:, k], QUANTILES), abs=1e-4)
        of_b = np.delete(np.array(table)[:, k], np.s_[::3])
        assert found.classes["b"][name] == pytest.approx(np.quantile(of_b, QUANTILES), abs=1e-4)
    assert found.n_clips == 300 and set(found.classes) == {"a", "b"}


def test_drift_is_the_largest_distance_outside_in_interquartile_ranges() -> None:
    inside = [100.0] * len(NAMES)
    assert PROFILE.drift(inside) == 0
    far = PROFILE.distances([[134.8, 119.8, *inside[2:]]])[0]  # 109.8 is the 99 % quantile
    assert far[:2] == pytest.approx([2.5, 1.0], rel=0.05) and not far[2:4].any()
    assert PROFILE.drift([134.8, 119.8, *inside[2:]]) == pytest.approx(2.5, rel=0.05)
    assert PROFILE.drift([]) is None


def test_distance_is_that_of_the_distribution_functions() -> None:
    assert PROFILE.apart(rows(2000, 1)).max() < 0.05
    found = dict(zip(NAMES, PROFILE.apart(rows(2000, 1, feature_low=10.5)), strict=True))
    assert found["feature_low"] == pytest.approx(0.5, abs=0.03)  # half of them moved past all the training's
    assert max(found[name] for name in NAMES if name != "feature_low") < 0.05


def test_equal_values_and_tiny_differences_are_no_distance() -> None:
    same = [[100.0] * len(NAMES)] * 50
    nearly = [[100.4] * len(NAMES)] * 50
    profile = Profile.of(same, [["a"]] * 50)
    assert profile.apart(same).max() == profile.apart(nearly).max() == 0
    assert compare(profile, nearly)["warnings"] == []  # type: ignore[index]


def test_few_clips_are_no_distribution() -> None:
    """Each by itself may lie anywhere inside; outside it is told from the first on."""
    for n in (1, 2, 3):
        assert compare(PROFILE, [[91.0] * len(NAMES)] * n)["warnings"] == []  # type: ignore[index]
    assert len(compare(PROFILE, [[91.0] * len(NAMES)] * 20)["warnings"]) >= 3  # type: ignore[index]
    assert len(compare(PROFILE, rows(1, level_db=60.0))["warnings"]) == 1  # type: ignore[index]


def test_a_warning_names_the_statistic_in_words() -> None:
    profile = Profile.of(rows(200, bandwidth_hz=10_800.0), [["a"]] * 200)
    found = compare(profile, [*rows(100, bandwidth_hz=6900.0), []])
    assert found is not None
    assert found["warnings"] == ["95 % of clips have no energy above 7.0 kHz; training had 10.9 kHz"]
    assert found["outside"] == 1.0 and found["n_clips"] == 100  # the silent one has nothing to compare
    assert found["measures"]["bandwidth_hz"] == {"outside": 1.0, "distance": 0.99}
    assert compare(None, rows(3)) is None and compare(profile, [[]]) is None


@cache
def heard(root: Path) -> tuple[pd.DataFrame, list[NDArray[np.float32]], list[list[float]]]:
    """Some clips of a corpus, of the classes that have groups enough to be split, and what they measure."""
    frame = corpora.read(corpora.recognise(root))
    frame = frame[frame["split"] != "official"]
    frame = frame.sample(min(N_CLIPS, len(frame)), random_state=0)
    label = frame["labels"].str[0]
    frame = frame[label.map(frame.groupby(label)["group"].nunique()) >= 3].reset_index(drop=True)
    waves = [audio.read(Path(uri), WIDE).wave for uri in frame["uri"]]
    featurizer = Featurizer(CHEAP)
    return frame, waves, [featurizer.fast(wave).measures for wave in waves]


def splits(root: Path, seed: int) -> tuple[Profile, list[int]]:
    """What is learnt from the training split, and which clips are held out."""
    frame, _, own = heard(root)
    learnt = split.assign(frame, SplitSpec(seed=seed))[0]["split"] == "train"
    rows = [k for k in range(len(frame)) if learnt[k]]
    profile = Profile.of([own[k] for k in rows], [frame["labels"][k] for k in rows])
    return profile, [k for k in range(len(frame)) if not learnt[k]]


@pytest.fixture(params=PACKS)
def root(request: pytest.FixtureRequest, small_corpus: Path) -> Path:
    if request.param == "demo":
        return small_corpus
    path: Path = SHARED / "data" / request.param
    if not path.is_dir():
        pytest.skip(f"needs {path}")
    return path


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_held_out_groups_of_the_same_kind_are_no_drift(root: Path, seed: int) -> None:
    profile, held = splits(root, seed)
    found = compare(profile, [heard(root)[2][k] for k in held])
    assert found is not None and found["n_clips"] > 20
    assert found["warnings"] == [] and found["outside"] < 0.1


@pytest.mark.parametrize("kind", OTHERS)
def test_data_of_another_kind_is_told(root: Path, kind: str) -> None:
    if root.name == "digits" and kind in ("below 7 kHz", "from 8 kHz"):
        pytest.skip("it is recorded at 8 kHz")
    profile, held = splits(root, 0)
    featurizer, waves = Featurizer(CHEAP), heard(root)[1]
    found = compare(profile, [featurizer.fast(OTHERS[kind](waves[k])).measures for k in held[:40]])
    assert found is not None and any(SAID[kind] in text for text in found["warnings"]), found


def test_the_profile_is_of_the_training_split_alone_and_of_each_clip_once(tmp_path: Path) -> None:
    clips: list[dict[str, Any]] = []
    for k in range(12):
        path, is_train = tmp_path / f"{k}.wav", k % 2 == 0
        sf.write(path, tone(440, 0.5 + 0.2 * k) * (1.0 if is_train else 0.01), RATE, subtype="FLOAT")
        clips.append(clip(path, ["a" if k < 6 else "b"], "train" if is_train else "val"))
    found = shards.profile_of(features_folder(tmp_path / "f", clips, per_part=5))
    assert found.n_clips == 6
    assert found.overall["duration_s"][3] == pytest.approx(1.5) and found.overall["level_db"][0] > -12
    assert found.classes["a"]["duration_s"][3] == pytest.approx(0.9)
    assert min(found.overall["bandwidth_hz"]) > 3900  # the noise reaches up to half the rate


def noisy(seconds: float, hz: float) -> NDArray[np.float32]:
    """Written in 16 bits a pure tone would have another bandwidth."""
    wave = sound(seconds, hz)
    return wave + 0.01 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)


def guarded(folder: Path) -> Bundle:
    """A bundle that was trained on tones of a second."""
    bundle = tiny_bundle()
    own = [bundle.featurizer.fast(noisy(1.0 + 0.02 * k, 300 + 20 * k)).measures for k in range(20)]
    profile = Profile.of(own, [["bell"]] * 20)
    spec = bundle.spec.model_copy(update={"profile": profile})
    return Bundle.load(Bundle(spec, bundle.network).save(folder))


def test_a_bundle_says_the_drift_of_a_sound(tmp_path: Path) -> None:
    bundle = guarded(tmp_path / "bundle")
    assert bundle(noisy(1.2, 500), 8000).drift == 0
    assert bundle(noisy(30.0, 500), 8000).drift > 10  # type: ignore[operator]
    assert bundle(np.zeros(8000, np.float32), 8000).drift is None
    assert tiny_bundle()(sound(1.2, 500), 8000).drift is None


def test_an_archive_says_the_drift_of_each_recording_and_of_all(tmp_path: Path) -> None:
    bundle = guarded(tmp_path / "bundle")
    for k in range(6):
        write(tmp_path / "in" / f"{k}.wav", noisy(1.1, 320 + 30 * k))
    for k in range(6):
        write(tmp_path / "in" / f"long{k}.wav", noisy(14.0, 320 + 30 * k))
    write(tmp_path / "in/silent.wav", np.zeros(8000, np.float32))
    ledger = books.close(
        tmp_path / "out", tag_archive(tmp_path / "in", tmp_path / "out", bundle, UnitSpec(unit_s=5)), bundle
    )
    read = {Path(row["uri"]).stem: row for row in pq.read_table(tmp_path / "out/recordings").to_pylist()}
    assert max(read[str(k)]["drift"] for k in range(6)) < 0.1 and read["silent"]["drift"] is None
    assert all(read[f"long{k}"]["drift"] > 10 for k in range(6))
    assert read["long0"]["measures"][NAMES.index("duration_s")] == pytest.approx(14.0)
    assert ledger["drift"]["n_clips"] == 12 and ledger["drift"]["outside"] == 0.5
    assert ledger["drift"]["measures"]["duration_s"]["outside"] == 0.5
