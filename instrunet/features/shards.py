"""Clips to feature rows and back: one Parquet file a part, half-precision, one row a window or one row for a bad clip.

Shapes: N windows, F bands, L frames.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.audio.ahead import ahead
from instrunet.audio.fingerprint import ClipPrint, Ear
from instrunet.augment.copies import CopiesSpec, copied, number_of
from instrunet.data import places
from instrunet.data.parts import part_path
from instrunet.drift import Profile
from instrunet.errors import DataError
from instrunet.features import FRAME_FEATURES
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics, Windows, sums_of

KIND = "shards"
SUMMARY = b"instrunet.summary"
Sums = dict[str, NDArray[np.float64]]  # of the training split, see `sums_of`
COPIED = ("clip_id", "uri", "labels", "group", "split", "corpus")  # go from the manifest with each window


def schema(front: FrontEnd) -> pa.Schema:
    text = [(name, pa.string()) for name in ("clip_id", "uri", "group", "split", "corpus", "status", "error")]
    columns = [
        *text,
        ("labels", pa.list_(pa.string())),
        ("start_s", pa.float64()),
        ("measures", pa.list_(pa.float32())),
    ]
    return pa.schema(columns + [(feature.name, pa.binary()) for feature in front.features])


def make_part(
    clips: Sequence[Mapping[str, Any]],
    featurizer: Featurizer,
    prints: dict[str, ClipPrint] | None = None,
    read: io.Read = io.read,
    copies: CopiesSpec | None = None,
) -> pa.Table:
    """The rows of one part. A clip that gives no sound gives one row that says why; nothing is dropped but its copies.

    `prints`, if given, is filled from the same decode: {clip_id: print}, empty for a clip that cannot be used, and for
    copies, which the audit knows by what they were made of."""
    rows: list[dict[str, Any]] = []
    sums = {name: sums_of(name, np.zeros((0, *shape), np.float16)) for name, shape in featurizer.spec.shapes().items()}
    audio_s = 0.0
    # A clip and its copies are one decode; those that begin a part, whose original ends the one before, another
    families = [list(family) for _, family in groupby(clips, _origin)]
    ears = [Ear() if prints is not None and not number_of(family[0]) else None for family in families]
    rate = featurizer.spec.sample_rate
    heard = ahead(lambda item: _heard(item[0][0], item[1], rate, read), zip(families, ears, strict=True))
    for family, ear, sound in zip(families, ears, heard, strict=True):
        if prints is not None:
            prints |= {clip["clip_id"]: ClipPrint("", b"") for clip in family}
            if ear and not isinstance(sound, io.DecodeError):
                prints[family[0]["clip_id"]] = ear.made()
        for clip in family:
            one = _copy_of(sound, clip, rate, copies) if number_of(clip) else sound
            made, seconds = _clip_rows(clip, one, featurizer, sums) if one else ([], 0.0)
            rows += made
            audio_s += 0.0 if number_of(clip) else seconds
    table = pa.Table.from_pylist(rows, schema=schema(featurizer.spec))
    summary = _summary(clips, rows) | {
        "audio_s": round(audio_s, 6),
        "sums": {name: values.tolist() for name, values in sums.items()},
    }
    return table.replace_schema_metadata({SUMMARY: json.dumps(summary).encode()})


def _summary(clips: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]) -> dict[str, int]:
    """A copy counts as windows, never as a clip: neither the good nor the bad ones are more for being multiplied."""
    n_bad = sum(row["status"] != "ok" for row in rows)
    return {
        "n_clips": sum(not number_of(clip) for clip in clips),
        "n_windows": len(rows) - n_bad,
        "n_bad": n_bad,
        "n_train_windows": sum(row["status"] == "ok" and row["split"] == "train" for row in rows),
    }


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
            sums[name] = sums.get(name, 0.0) + np.array(values)
    if not n_windows:
        raise DataError("no clip of the training split could be decoded; see errors.parquet, and check data.root")
    return Statistics.of(sums, n_windows)


def profile_of(folder: Path) -> Profile:
    """Of the training split alone."""
    columns, wanted = ["clip_id", "labels", "measures"], [("split", "=", "train"), ("status", "=", "ok")]
    clips: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / KIND).glob("part-*.parquet")):
        rows = pq.read_table(places.source(path), columns=columns, filters=wanted).to_pylist()
        clips |= {row["clip_id"]: row for row in rows if row["measures"]}  # each window has its clip's
    return Profile.of([row["measures"] for row in clips.values()], [row["labels"] for row in clips.values()])


@dataclass(frozen=True)
class Features:
    """All windows of one split in memory: `values[name]` is [N, F, L] in half precision.

    `frames` [N] is how many of the L frames are a window's own, or None where all are. What stands in the others does
    not matter: the network fills them.
    """

    values: dict[str, NDArray[np.float16]]
    clips: dict[str, list[Any]]  # clip_id, uri, labels, group, split, start_s, measures: N of each
    frames: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.clips["clip_id"])

    def only(self, clip_ids: Collection[str]) -> "Features":
        """The windows of these clips."""
        return self.take(np.flatnonzero([name in clip_ids for name in self.clips["clip_id"]]))

    def take(self, rows: NDArray[np.int64]) -> "Features":
        clips = {name: [column[row] for row in rows] for name, column in self.clips.items()}
        frames = None if self.frames is None else self.frames[rows]
        return Features({name: values[rows] for name, values in self.values.items()}, clips, frames)


def load(folder: Path, front: FrontEnd, split: str) -> Features:
    paths = sorted((folder / KIND).glob("part-*.parquet"))
    wanted = [("split", "=", split), ("status", "=", "ok")]
    tables = [pq.read_table(places.source(path), filters=wanted) for path in paths]
    table = pa.concat_tables(tables) if tables else schema(front).empty_table()
    order = in_order(table["clip_id"].to_pylist())
    stacked = {name: stack(table[name], shape, order) for name, shape in front.shapes().items()}
    values = {name: found for name, (found, _) in stacked.items()}
    of_frames = [frames for name, (_, frames) in stacked.items() if name in FRAME_FEATURES]
    frames = of_frames[0] if front.length == "adaptive" and of_frames else None
    clips = table.select([*COPIED, "start_s", "measures"]).take(order)
    return Features(values, {name: clips[name].to_pylist() for name in clips.column_names}, frames)


def in_order(clip_ids: list[str]) -> NDArray[np.int64]:
    """Rows by the names of clips, as manifests are: what is learnt does not hang on how the work was cut."""
    names = [clip_id.partition("+") for clip_id in clip_ids]  # of a copy its number, the tenth behind the second
    return np.array(sorted(range(len(names)), key=lambda row: (names[row][0], len(names[row][2]), names[row][2])), int)


def stack(
    column: pa.ChunkedArray, shape: tuple[int, int], order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """A column, [N, F, L], and how many frames each row has of its own."""
    out, frames = np.zeros((len(column), *shape), np.float16), np.zeros(len(column), np.int64)
    values = (value for chunk in column.chunks for value in chunk)
    to = np.arange(len(column)) if order is None else np.argsort(order)
    for row, value in zip(to, values, strict=True):
        own = np.frombuffer(value.as_buffer(), np.float16).reshape(shape[0], -1)
        frames[row] = own.shape[1]
        out[row, :, : own.shape[1]] = own
    return out, frames


def _origin(clip: Mapping[str, Any]) -> Any:
    return clip["twin_of"] if number_of(clip) else clip["clip_id"]


def _copy_of(
    sound: io.Sound | io.DecodeError, clip: Mapping[str, Any], sample_rate: int, copies: CopiesSpec | None
) -> io.Sound | None:
    """None where there is nothing to copy, or nothing left of it: a shift may move all of its sound out."""
    if isinstance(sound, io.DecodeError):
        return None
    assert copies, "a manifest with copies comes with what they are made by"
    made = io.Sound(copied(sound.wave, sample_rate, clip, copies))
    return None if io.verdict(made, sample_rate)[0] else made


def _heard(clip: Mapping[str, Any], ear: Ear | None, sample_rate: int, read: io.Read) -> io.Sound | io.DecodeError:
    """Its sound, or why it has none that may be used."""
    stop_s = None if _missing(clip["stop_s"]) else clip["stop_s"]
    try:
        with places.sound(clip["uri"]) as path:
            sound = read(path, sample_rate, clip["start_s"], stop_s, ear)
        _check(sound, sample_rate)
    except io.DecodeError as error:
        return error
    return sound


def _clip_rows(
    clip: Mapping[str, Any], sound: io.Sound | io.DecodeError, featurizer: Featurizer, sums: Sums
) -> tuple[list[dict[str, Any]], float]:
    base = {name: clip[name] for name in COPIED}
    if isinstance(sound, io.DecodeError):
        return [base | {"status": sound.status, "error": str(sound)}], 0.0
    seen = featurizer.fast(sound.wave)
    half = {name: values.astype(np.float16) for name, values in seen.features.items()}
    if number_of(clip):
        seen = replace(seen, measures=[])  # the profile is of recordings, and a copy is none
    if clip["split"] == "train":
        for name, values in half.items():
            sums[name] += sums_of(name, values)
    return _window_rows(base, seen, half), len(sound.wave) / featurizer.spec.sample_rate


def _window_rows(base: dict[str, Any], seen: Windows, half: dict[str, NDArray[np.float16]]) -> list[dict[str, Any]]:
    return [
        base
        | {"status": "ok", "error": "", "start_s": start_s, "measures": seen.measures}
        | {n: v[w].tobytes() for n, v in half.items()}
        for w, start_s in enumerate(seen.start_s)
    ]


def _check(sound: io.Sound, sample_rate: int) -> None:
    """Training takes whole, sounding clips only: what a damaged or silent one would teach is wrong."""
    status, reason = io.verdict(sound, sample_rate)
    if status:
        raise io.DecodeError(status, reason)


def _missing(value: float | None) -> bool:
    return value is None or np.isnan(value)
