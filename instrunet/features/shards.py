"""Clips to feature rows and back: one Parquet file a part, half-precision, one row a window or one row for a bad clip.

Shapes: N windows, F bands, L frames.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.data import places
from instrunet.data.parts import part_path
from instrunet.errors import DataError
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics, Windows

KIND = "shards"
SUMMARY = b"instrunet.summary"
Sums = dict[str, NDArray[np.float64]]
COPIED = (
    "clip_id",
    "uri",
    "labels",
    "group",
    "split",
    "corpus",
)  # columns that travel from the manifest with each window


def schema(front: FrontEnd) -> pa.Schema:
    text = [(name, pa.string()) for name in ("clip_id", "uri", "group", "split", "corpus", "status", "error")]
    columns = [*text, ("labels", pa.list_(pa.string())), ("start_s", pa.float64())]
    return pa.schema(columns + [(feature.name, pa.binary()) for feature in front.features])


def make_part(clips: Sequence[Mapping[str, Any]], featurizer: Featurizer) -> pa.Table:
    """The rows of one part. A clip that gives no sound gives one row that says why; nothing is dropped."""
    rows: list[dict[str, Any]] = []
    sums: Sums = {
        feature.name: np.zeros(3) for feature in featurizer.spec.features
    }  # training split: sum, squares, count
    audio_s = 0.0
    for clip in clips:
        made, seconds = _clip_rows(clip, featurizer, sums)
        rows += made
        audio_s += seconds
    n_bad = sum(row["status"] != "ok" for row in rows)
    n_train = sum(row["status"] == "ok" and row["split"] == "train" for row in rows)
    summary = {
        "n_clips": len(clips),
        "n_windows": len(rows) - n_bad,
        "n_bad": n_bad,
        "n_train_windows": n_train,
        "audio_s": round(audio_s, 6),
        "sums": {name: values.tolist() for name, values in sums.items()},
    }
    table = pa.Table.from_pylist(rows, schema=schema(featurizer.spec))
    return table.replace_schema_metadata({SUMMARY: json.dumps(summary).encode()})


def summary_of(path: Path) -> dict[str, Any]:
    """What a part's footer says of it, without reading the part."""
    value: dict[str, Any] = json.loads(pq.read_schema(places.source(path)).metadata[SUMMARY])
    return value


def statistics_of(folder: Path, n_parts: int) -> Statistics:
    sums: Sums = {}
    n_windows = 0
    for k in range(n_parts):
        summary = summary_of(part_path(folder, KIND, k))
        n_windows += summary["n_train_windows"]
        for name, values in summary["sums"].items():
            sums[name] = sums.get(name, np.zeros(3)) + np.array(values)
    if not n_windows:
        raise DataError("no clip of the training split could be decoded; see errors.parquet, and check data.root")
    return Statistics.of({name: (v[0], v[1], int(v[2])) for name, v in sums.items()}, n_windows)


@dataclass(frozen=True)
class Features:
    """All windows of one split in memory: `values[name]` is [N, F, L] in half precision."""

    values: dict[str, NDArray[np.float16]]
    clips: dict[str, list[Any]]  # clip_id, uri, labels, group, split, start_s: N of each

    def __len__(self) -> int:
        return len(self.clips["clip_id"])


def load(folder: Path, front: FrontEnd, split: str) -> Features:
    paths = sorted((folder / KIND).glob("part-*.parquet"))
    tables = [pq.read_table(path, filters=[("split", "=", split), ("status", "=", "ok")]) for path in paths]
    table = pa.concat_tables(tables) if tables else schema(front).empty_table()
    values = {name: _stack(table[name], shape) for name, shape in front.shapes().items()}
    return Features(values, {name: table[name].to_pylist() for name in (*COPIED, "start_s")})


def _stack(column: pa.ChunkedArray, shape: tuple[int, int]) -> NDArray[np.float16]:
    out = np.empty((len(column), *shape), np.float16)
    row = 0
    for chunk in column.chunks:
        for value in chunk:
            out[row] = np.frombuffer(value.as_buffer(), np.float16).reshape(shape)
            row += 1
    return out


def _clip_rows(clip: Mapping[str, Any], featurizer: Featurizer, sums: Sums) -> tuple[list[dict[str, Any]], float]:
    base = {name: clip[name] for name in COPIED}
    stop_s = clip["stop_s"]
    try:
        with places.sound(clip["uri"]) as path:
            sound = io.read(path, featurizer.spec.sample_rate, clip["start_s"], None if _missing(stop_s) else stop_s)
        _check(sound, featurizer.spec.sample_rate)
    except io.DecodeError as error:
        return [base | {"status": error.status, "error": str(error)}], 0.0
    seen = featurizer.fast(sound.wave)
    half = {name: values.astype(np.float16) for name, values in seen.features.items()}
    if clip["split"] == "train":
        _add(sums, half)
    return _window_rows(base, seen, half), len(sound.wave) / featurizer.spec.sample_rate


def _window_rows(base: dict[str, Any], seen: Windows, half: dict[str, NDArray[np.float16]]) -> list[dict[str, Any]]:
    return [
        base | {"status": "ok", "error": "", "start_s": start_s} | {n: v[w].tobytes() for n, v in half.items()}
        for w, start_s in enumerate(seen.start_s)
    ]


def _check(sound: io.Sound, sample_rate: int) -> None:
    """Training takes whole, sounding clips only: what a damaged or silent one would teach is wrong."""
    status, reason = io.verdict(sound, sample_rate)
    if status:
        raise io.DecodeError(status, reason)


def _add(sums: Sums, half: dict[str, NDArray[np.float16]]) -> None:
    for name, values in half.items():
        wide = values.astype(np.float64)
        sums[name] += (wide.sum(), (wide**2).sum(), wide.size)


def _missing(value: float | None) -> bool:
    return value is None or np.isnan(value)
