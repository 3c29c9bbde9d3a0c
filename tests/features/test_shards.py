"""Clips to rows of features: good ones, bad ones, and what a part's footer says of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from making import FRONT, RATE, clip, features_folder, tone

from instrunet.audio import io
from instrunet.data.parts import part_path
from instrunet.errors import DataError
from instrunet.features import shards
from instrunet.features.featurizer import Featurizer


def sound(path: Path, wave: np.ndarray, labels: list[str], split: str = "train", **other: Any) -> dict[str, Any]:
    sf.write(path, wave, RATE, subtype="FLOAT")
    return clip(path, labels, split, **other)


def make(clips: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(shards.make_part(clips, Featurizer(FRONT)), path)
    return path


def bad_clips(folder: Path) -> list[dict[str, Any]]:
    (folder / "corrupt.wav").write_bytes(b"RIFF, but that is all that it has of a sound" * 9)
    mp3 = folder / "damaged.mp3"  # the one format here whose header still promises what is gone
    sf.write(mp3, tone(440, 5.0), RATE)
    mp3.write_bytes(mp3.read_bytes()[: mp3.stat().st_size // 2])
    return [
        clip(folder / "corrupt.wav", ["a"], "train"),
        sound(folder / "silent.wav", np.full(RATE, 5e-5), ["a"]),
        clip(folder / "missing.wav", ["a"], "train"),
        clip(mp3, ["a"], "train"),
        sound(folder / "empty.wav", np.zeros(0), ["a"]),
    ]


def test_a_clip_gives_a_row_for_each_window(tmp_path: Path) -> None:
    clips = [
        sound(tmp_path / "long.wav", tone(440, 1.2), ["b", "a"], group="player 1"),
        sound(tmp_path / "short.wav", tone(880, 0.2), ["a"], "val"),
    ]
    rows = pq.read_table(make(clips, tmp_path / "part.parquet")).to_pylist()
    assert [row["clip_id"] for row in rows] == ["long", "long", "long", "short"]
    assert [row["start_s"] for row in rows] == pytest.approx([0.0, 0.5, 0.7, 0.0])
    assert {row["status"] for row in rows} == {"ok"} and {row["error"] for row in rows} == {""}
    for row, of in zip(rows, (clips[0], clips[0], clips[0], clips[1]), strict=True):
        assert {name: row[name] for name in shards.COPIED} == {name: of[name] for name in shards.COPIED}


def test_features_are_those_of_the_featurizer_in_half_precision(tmp_path: Path) -> None:
    wave = tone(440, 1.2)
    folder = features_folder(tmp_path / "f", [sound(tmp_path / "a.wav", wave, ["a"])])
    loaded = shards.load(folder, FRONT, "train").values["logmel"]
    want = Featurizer(FRONT).fast(wave).features["logmel"]
    assert loaded.dtype == np.float16 and loaded.shape == want.shape == (3, 16, 16)
    np.testing.assert_array_equal(loaded, want.astype(np.float16))
    assert np.abs(loaded - want).max() < 0.005  # half precision at 8..16 has steps of 1/128


def test_a_range_of_a_file_is_that_range(tmp_path: Path) -> None:
    wave = tone(440, 2.0)
    row = sound(tmp_path / "a.wav", wave, ["a"], start_s=0.5, stop_s=1.0)
    loaded = shards.load(features_folder(tmp_path / "f", [row]), FRONT, "train").values["logmel"]
    want = Featurizer(FRONT).fast(wave[RATE // 2 : RATE]).features["logmel"]
    np.testing.assert_allclose(loaded, want, atol=0.01)


@pytest.mark.parametrize("stop_s", [None, float("nan")])
def test_without_a_stop_a_clip_goes_to_the_end(tmp_path: Path, stop_s: float | None) -> None:
    row = sound(tmp_path / "a.wav", tone(440, 1.5), ["a"], start_s=0.5, stop_s=stop_s)
    assert shards.make_part([row], Featurizer(FRONT)).num_rows == 2


def test_a_bad_clip_is_one_row_that_says_why(tmp_path: Path) -> None:
    clips = [*bad_clips(tmp_path), sound(tmp_path / "good.wav", tone(440, 0.5), ["a"])]
    rows = {row["clip_id"]: row for row in shards.make_part(clips, Featurizer(FRONT)).to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "corrupt": "corrupt",
        "silent": "silent",
        "missing": "unreadable",
        "damaged": "damaged",
        "empty": "too_short",
        "good": "ok",
    }
    for name in ("corrupt", "silent", "missing", "damaged", "empty"):
        assert rows[name]["logmel"] is None and rows[name]["start_s"] is None
        assert rows[name]["error"] and "\n" not in rows[name]["error"]
    assert rows["silent"]["error"] == "no sample above -80 dBFS"
    assert rows["missing"]["error"] == f"expected a sound file at {tmp_path / 'missing.wav'}, found nothing"
    assert rows["empty"]["error"] == "0.000 s of sound, 0.05 s needed"


def test_the_footer_sums_the_part_up(tmp_path: Path) -> None:
    clips = [
        *bad_clips(tmp_path),
        sound(tmp_path / "a.wav", tone(440, 1.0), ["a"]),
        sound(tmp_path / "b.wav", tone(440, 0.25), ["b"], "val"),
    ]
    summary = shards.summary_of(make(clips, tmp_path / "part.parquet"))
    counts = {"n_clips": 7, "n_windows": 3, "n_bad": 5, "n_train_windows": 2, "audio_s": 1.25}
    assert {name: summary[name] for name in counts} == counts
    assert summary["sums"]["logmel"][2] == [2 * 16 * 16]


def test_statistics_are_of_the_training_split_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [
        sound(tmp_path / f"{k}.wav", rng.normal(0, 0.1, RATE), ["a"], split)
        for k, split in enumerate(["train", "val", "train", "test", "val", "train", "official"])
    ]
    folder = features_folder(tmp_path / "f", clips, per_part=2)
    found = shards.statistics_of(folder, 4)
    train = shards.load(folder, FRONT, "train").values["logmel"].astype(np.float64)
    assert found.n_windows == len(train) == 6
    assert found.mean["logmel"][0] == pytest.approx(train.mean(), rel=1e-10)
    assert found.std["logmel"][0] == pytest.approx(train.std(), rel=1e-8)


def test_statistics_of_nothing_are_refused(tmp_path: Path) -> None:
    folder = features_folder(tmp_path / "f", [sound(tmp_path / "v.wav", tone(440, 0.5), ["a"], "val")])
    with pytest.raises(DataError, match="no clip of the training split could be decoded; see errors.parquet"):
        shards.statistics_of(folder, 1)


def test_load_gives_one_split_without_its_bad_clips(tmp_path: Path) -> None:
    clips = bad_clips(tmp_path)
    clips += [
        sound(tmp_path / f"{k}.wav", tone(200.0 + 100 * k, 0.5), [f"label {k}"], split)
        for k, split in enumerate(["train", "val", "test", "train", "val"])
    ]
    folder = features_folder(tmp_path / "f", clips, per_part=3)
    for split, names in {"train": ["0", "3"], "val": ["1", "4"], "test": ["2"], "official": []}.items():
        found = shards.load(folder, FRONT, split)
        assert found.clips["clip_id"] == names and len(found) == len(names)
        assert found.clips["labels"] == [[f"label {name}"] for name in names]
        assert found.values["logmel"].shape == (len(names), 16, 16)
        for name, row in zip(names, found.values["logmel"], strict=True):
            wave = io.read(tmp_path / f"{name}.wav", RATE).wave
            np.testing.assert_array_equal(row, Featurizer(FRONT).fast(wave).features["logmel"][0].astype(np.float16))


def test_a_part_has_the_same_schema_whatever_is_in_it(tmp_path: Path) -> None:
    bad = shards.make_part(bad_clips(tmp_path), Featurizer(FRONT))
    good = shards.make_part([sound(tmp_path / "a.wav", tone(440, 1.0), ["a"])], Featurizer(FRONT))
    none = shards.make_part([], Featurizer(FRONT))
    assert bad.schema == good.schema == none.schema
    assert pa.concat_tables([t.replace_schema_metadata() for t in (bad, good, none)]).num_rows == 7


def test_parts_are_told_by_their_number(tmp_path: Path) -> None:
    clips = [sound(tmp_path / f"{k}.wav", tone(440, 0.5), ["a"]) for k in range(3)]
    folder = features_folder(tmp_path / "f", clips, per_part=1)
    assert shards.summary_of(part_path(folder, shards.KIND, 2))["n_clips"] == 1
