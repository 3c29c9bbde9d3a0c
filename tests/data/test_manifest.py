"""The manifest: the same rows however a corpus is listed and wherever it lies, and nothing else taken for one."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from instrunet.data import manifest
from instrunet.data.manifest import SCHEMA, Clip
from instrunet.errors import DataError


def folder(root: Path) -> Path:
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.flac", "c.ogg"):
        sf.write(root / name, 0.1 * rng.standard_normal(4000), 8000)
    (root / "broken.wav").write_bytes(b"no sound")
    return root


def clips(root: Path) -> list[Clip]:
    return [
        Clip(root / "a.wav", ["y", "x", "y"], "g1"),
        Clip(root / "b.flac", ["x"], "g2", split="test"),
        Clip(root / "b.flac", ["z"], "g2", split="test", start_s=0.1, stop_s=0.3),
        Clip(root / "c.ogg", ["y"], "g3"),
        Clip(root / "broken.wav", ["x"], "g4"),
        Clip(root / "missing.wav", ["x"], "g5"),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "corpus")


def test_rows_say_what_the_files_are(root: Path) -> None:
    frame = manifest.make(clips(root), "mine", root).set_index("uri")
    row = frame.loc[str(root / "a.wav")]
    assert (row["start_s"], row["stop_s"], row["labels"], row["group"]) == (0.0, 0.5, ["x", "y"], "g1")
    assert row["sha256"] == hashlib.sha256((root / "a.wav").read_bytes()).hexdigest()
    assert row["n_bytes"] == (root / "a.wav").stat().st_size
    assert frame.loc[str(root / "missing.wav"), "n_bytes"] == 0
    assert set(frame["corpus"]) == {"mine"}
    assert manifest.labels_of(frame) == ["x", "y", "z"]


def test_the_order_of_a_listing_changes_nothing(root: Path) -> None:
    frame = manifest.make(clips(root), "mine", root)
    pd.testing.assert_frame_equal(manifest.make(clips(root)[::-1], "mine", root), frame)
    assert manifest.digest(frame.sample(frac=1, random_state=1)) == manifest.digest(frame)


def test_the_folder_a_corpus_lies_in_changes_no_digest(root: Path, tmp_path: Path) -> None:
    frame = manifest.make(clips(root), "mine", root)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    again = manifest.make(clips(moved), "mine", moved)
    assert manifest.digest(again) == manifest.digest(frame)
    assert list(again["clip_id"]) == list(frame["clip_id"])
    assert set(again["uri"]).isdisjoint(frame["uri"])


@pytest.mark.parametrize("column", ["clip_id", "sha256", "start_s", "stop_s", "labels", "group", "split"])
def test_a_digest_changes_with_every_column_that_matters(root: Path, column: str) -> None:
    frame = manifest.make(clips(root), "mine", root)
    other = frame.copy()
    new = {"start_s": 0.01, "stop_s": 0.02, "labels": ["q"]}.get(column, "q")
    other[column] = [new, *frame[column][1:]]
    assert manifest.digest(other) != manifest.digest(frame)


def test_a_digest_changes_with_the_sound(root: Path) -> None:
    before = manifest.digest(manifest.make(clips(root), "mine", root))
    (root / "missing.wav").write_bytes(b"here after all")
    assert manifest.digest(manifest.make(clips(root), "mine", root)) != before


def test_round_trip_through_parquet(root: Path, tmp_path: Path) -> None:
    frame = manifest.make(clips(root), "mine", root)
    path = manifest.save(frame, tmp_path / "deep" / "manifest.parquet")
    again = manifest.load(path)
    assert pq.read_schema(path).equals(SCHEMA)
    assert manifest.digest(again) == manifest.digest(frame)
    pd.testing.assert_frame_equal(again, frame, check_dtype=False)
    assert all(type(labels) is list for labels in again["labels"])


def test_all_rows_without_a_length_survive_the_round_trip(root: Path, tmp_path: Path) -> None:
    frame = manifest.make(clips(root)[-2:], "mine", root)
    again = manifest.load(manifest.save(frame, tmp_path / "m.parquet"))
    assert again["stop_s"].isna().all()
    assert manifest.digest(again) == manifest.digest(frame)


def test_a_file_that_cannot_be_read_stays_a_row(root: Path) -> None:
    frame = manifest.make(clips(root), "mine", root).set_index("group")
    assert np.isnan(frame.loc["g4", "stop_s"])
    assert frame.loc["g4", "sha256"] == hashlib.sha256(b"no sound").hexdigest()
    assert np.isnan(frame.loc["g5", "stop_s"])
    assert frame.loc["g5", "sha256"] == ""


def test_a_clip_listed_twice_is_refused(root: Path) -> None:
    twice = [*clips(root), Clip(root / "c.ogg", ["z"], "g9")]
    with pytest.raises(DataError, match=r"^mine: .*c\.ogg is listed twice \(1 such rows\); list each clip once$"):
        manifest.make(twice, "mine", root)


def test_a_name_that_no_table_can_hold_is_refused(root: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.wav"))
    with pytest.raises(DataError, match=r"expected a file name in UTF-8, got 'caf\\udce9\.wav'; rename the file"):
        manifest.make([Clip(path, ["x"], "g")], "mine", root)
    assert len(manifest.make([Clip(root / "café\u3000蝉\xa0.wav", ["x"], "g")], "mine", root)) == 1


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a manifest \(Parquet\) at .*, found none; make one with jobs/featu"):
        manifest.load(tmp_path / "none.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("clip_id,uri")
    with pytest.raises(DataError, match=r"text\.parquet is not a Parquet file that can be read: "):
        manifest.load(text)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"clip_id": ["a"], "uri": ["b"]}), other)
    with pytest.raises(DataError, match=r"is no manifest: it lacks the columns start_s, stop_s, labels, group, split"):
        manifest.load(other)
    columns = {name: ["a"] for name in SCHEMA.names}
    pq.write_table(pa.table(columns), other)
    with pytest.raises(DataError, match=r"is no manifest: a column holds another type than it should: "):
        manifest.load(other)


def test_a_truncated_manifest_is_refused(root: Path, tmp_path: Path) -> None:
    path = manifest.save(manifest.make(clips(root), "mine", root), tmp_path / "m.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is not a Parquet file that can be read"):
        manifest.load(path)


def test_group_keys_tell_no_name_but_compare(root: Path) -> None:
    frame = manifest.make(clips(root), "mine", root)
    keys = manifest.group_keys(frame)
    assert len(keys) == 5
    assert not any("g1" in key for key in keys)
    assert manifest.group_keys(frame[:2]) < keys
    assert manifest.group_keys(frame.assign(corpus="other")).isdisjoint(keys)
