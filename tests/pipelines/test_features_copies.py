"""Copies in the features job: the same however the work is cut, in training alone, and never counted as clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
from making import FRONT, RATE, tone

from instrunet.augment.copies import CopiesSpec, copied, with_copies
from instrunet.data import manifest, parts
from instrunet.data.audit import AuditSpec
from instrunet.features import shards
from instrunet.features.featurizer import Featurizer
from pipelines import audit, features

SPEC = CopiesSpec(n=3)
SPLITS = ("train", "train", "train", "val", "test")


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Ten clips: one of them is silence, one is corrupt."""
    root = tmp_path_factory.mktemp("sound")
    clips = []
    for k in range(10):
        path = root / f"{k}.wav"
        soundfile.write(path, tone(300.0 * 1.15**k, 0.7, k) * (k != 5), RATE)
        if k == 6:
            path.write_bytes(b"RIFF, but that is all that it has of a sound" * 9)
        clips.append(manifest.Clip(path, ["ab"[k % 2]], str(k), SPLITS[k % 5]))
    return manifest.make(clips, "tones", root)


def made(frame: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, per_part: int, copies: CopiesSpec) -> Path:
    return written(with_copies(frame, copies), folder, monkeypatch, per_part, copies)


def written(
    full: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, per_part: int, copies: CopiesSpec
) -> Path:
    """What the job leaves, made without Ray in parts of another size."""
    monkeypatch.setattr(features, "CLIPS_PER_PART", per_part)
    parts.claim(folder, {"job": "features"})
    features._write_manifest(full, folder)
    worker = features.Worker(str(folder), FRONT.model_dump(mode="json"), copies=copies.model_dump(mode="json"))
    n_parts = -(-len(full) // per_part)
    for number in reversed(range(n_parts)):
        worker({"part": number})
    worker.decoder.close()
    features._close(folder, n_parts, 1.0)
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / shards.KIND).glob("part-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_features_do_not_depend_on_how_the_work_is_cut(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(frame, tmp_path / "one", monkeypatch, 64, SPEC)
    many = made(frame, tmp_path / "many", monkeypatch, 3, SPEC)  # every family of four lies in two parts
    assert rows_of(one) == rows_of(many)
    for name in ("errors.parquet", "audit.json", "profile.json"):
        assert (one / name).read_bytes() == (many / name).read_bytes()
    assert features.statistics(one).mean["logmel"] == pytest.approx(features.statistics(many).mean["logmel"], rel=1e-12)


def test_what_is_learnt_is_multiplied_and_nothing_else(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = made(frame, tmp_path / "plain", monkeypatch, 64, CopiesSpec())
    said = capsys.readouterr()
    full = made(frame, tmp_path / "full", monkeypatch, 64, SPEC)
    assert "10 clips, " in said.out and "10 clips and 18 copies, " in capsys.readouterr().out
    for split in ("val", "test"):
        before, after = (shards.load(folder, FRONT, split) for folder in (plain, full))
        assert before.clips == after.clips
        np.testing.assert_array_equal(before.values["logmel"], after.values["logmel"])
    before, after = (shards.load(folder, FRONT, "train") for folder in (plain, full))
    assert len(set(after.clips["clip_id"])) == 4 * len(set(before.clips["clip_id"])) == 16
    own = after.only(set(before.clips["clip_id"]))
    np.testing.assert_array_equal(own.values["logmel"], before.values["logmel"])
    assert features.statistics(full).n_windows == len(after) > features.statistics(plain).n_windows == len(before)
    assert features.profile(full) == features.profile(plain)
    for name in ("errors.parquet", "audit.json", "together.json"):
        assert (full / name).read_bytes() == (plain / name).read_bytes()
    assert audit.read(full, AuditSpec()).line == "audit: clean"
    assert parts.read_json(full / "audit.json")["unchecked"] == 2


def test_a_copy_is_its_clip_through_its_effects(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shards.load(made(frame, tmp_path / "f", monkeypatch, 64, SPEC), FRONT, "train")
    row = with_copies(frame, SPEC).query("clip_id.str.endswith('+2')").iloc[0].to_dict()
    wave = copied(soundfile.read(row["uri"], dtype="float32")[0], RATE, row, SPEC)
    want = Featurizer(FRONT).fast(wave).features["logmel"].astype(np.float16)
    np.testing.assert_array_equal(found.only({row["clip_id"]}).values["logmel"], want)


def test_a_folder_without_copies_keeps_its_name() -> None:
    assert features.Recipe(FRONT).plan() == {"front": FRONT.model_dump(mode="json")}
    assert features.Recipe(FRONT, CopiesSpec(n=0, seed=4)).plan() == features.Recipe(FRONT).plan()
    assert features.Recipe(FRONT, SPEC).plan() != features.Recipe(FRONT, CopiesSpec(n=3, seed=1)).plan()


def test_copies_that_say_so_are_refused_across_splits(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = CopiesSpec(n=1)
    multiplied = with_copies(frame.assign(split="train"), spec)
    at_random = np.where(np.random.default_rng(0).random(len(multiplied)) < 0.7, "train", "test")
    leaky = multiplied.assign(split=at_random, group=multiplied["clip_id"])
    reasons = audit.read(written(leaky, tmp_path / "f", monkeypatch, 64, spec), AuditSpec()).reasons
    assert any(reason.endswith("clips have augmented copies in another split than their own") for reason in reasons)
