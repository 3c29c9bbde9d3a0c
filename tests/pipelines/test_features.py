"""Features as parts: so many clips, so many bytes, and the same rows however they are cut."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from making import FRONT, tone
from soundfile import write

from instrunet.data import manifest, parts
from instrunet.data.manifest import Clip
from instrunet.features import shards
from pipelines import features


def frame_of(n_bytes: list[int], uris: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"uri": uris or [str(k) for k in range(len(n_bytes))], "n_bytes": n_bytes})


def sizes(frame: pd.DataFrame) -> list[int]:
    return [part.stop - part.start for part in features.cut(frame)]


def test_a_part_has_so_many_clips() -> None:
    assert sizes(frame_of([0] * 150)) == [64, 64, 22]
    assert sizes(frame_of([])) == []


def test_a_part_has_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BYTES_PER_PART", 100)
    assert sizes(frame_of([50, 50, 1, 99, 1, 500, 1])) == [2, 2, 1, 1, 1]
    assert sizes(frame_of([300] * 6, ["a"] * 6)) == [2, 2, 2]  # the clips of one file share its bytes


def test_uneven_parts_hold_every_clip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(9):
        write(tmp_path / f"{k}.wav", tone(300 + 100 * k, 0.5 + 0.25 * k), 8000)
    clips = [Clip(tmp_path / f"{k}.wav", ["ab"[k % 2]], str(k), "train") for k in range(9)]
    frame = manifest.make(clips, "tones", tmp_path)
    monkeypatch.setattr(features, "BYTES_PER_PART", 60_000)
    plan = features.plan_of(frame, features.Recipe(FRONT))
    parts.claim(tmp_path / "out", plan)
    features._write_manifest(frame, tmp_path / "out")
    worker, bounds = features.Worker(str(tmp_path / "out"), plan["front"]), features.cut(frame)
    assert len({part.stop - part.start for part in bounds}) > 1
    for number, part in enumerate(bounds):
        assert frame["n_bytes"][part].sum() <= 60_000
        assert worker({"part": number}) == {"part": number, "failed": "", "n_clips": part.stop - part.start}
    worker.decoder.close()
    made = [pq.read_table(parts.part_path(tmp_path / "out", shards.KIND, k)) for k in range(len(bounds))]
    ids = [clip_id for table in made for clip_id in dict.fromkeys(table["clip_id"].to_pylist())]
    assert ids == frame["clip_id"].tolist()
