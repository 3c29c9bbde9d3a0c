"""The manifest: one row a clip, from any corpus, with everything training needs to know of it."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.audio.io import DecodeError
from instrunet.audio.isolated import Decoder
from instrunet.config import fingerprint
from instrunet.data import places
from instrunet.data.parts import write_aside
from instrunet.errors import DataError

FILE = "manifest.parquet"
SPLITS = ("train", "val", "test", "official")  # official: the published test set of a corpus, never split further

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),  # null: to the end, where no header could say how far that is
        ("labels", pa.list_(pa.string())),
        ("group", pa.string()),
        ("split", pa.string()),
        ("corpus", pa.string()),
        ("sha256", pa.string()),
        ("twin_of", pa.string()),  # of an augmented copy, the clip it was made of; null for an original
        ("n_bytes", pa.int64()),  # of the whole file
        ("traits", pa.list_(pa.string())),  # `genre=pop`: what else is known, by which scores may be told apart
    ]
)
LATER = ("twin_of", "n_bytes", "traits")  # columns that older manifests lack


@dataclass(frozen=True)
class Clip:
    """What a corpus function says of one file; the rest of a manifest's row is read off the file."""

    path: Path
    labels: Sequence[str]
    group: str
    split: str = ""
    start_s: float = 0.0
    stop_s: float | None = None
    traits: Sequence[str] = ()


def make(clips: Sequence[Clip], corpus: str, root: Path) -> pd.DataFrame:
    """Rows for clips, sorted by id, so that a manifest does not depend on the order of a listing."""
    paths = sorted({clip.path for clip in clips})  # a recording may hold thousands of clips and is hashed once
    with Decoder() as decoder, ThreadPoolExecutor(8) as pool:  # hashing and header reads leave the interpreter lock
        files = dict(zip(paths, pool.map(lambda path: _look(path, decoder), paths), strict=True))
    rows = [_row(clip, corpus, root, files[clip.path]) for clip in clips]
    frame = pd.DataFrame(rows, columns=SCHEMA.names).sort_values("clip_id", ignore_index=True)
    frame["twin_of"] = frame["twin_of"].astype("string")  # a column of nulls has no type of its own
    twice = frame.loc[frame["clip_id"].duplicated(), "uri"]
    if len(twice):
        raise DataError(f"{corpus}: {twice.iloc[0]} is listed twice ({len(twice)} such rows); list each clip once")
    return frame


def save(frame: pd.DataFrame, path: Path) -> Path:
    table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    return write_aside(path, lambda aside: pq.write_table(table, aside))


def load(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"expected a manifest (Parquet) at {path}, found none; make one with jobs/featurize.py CONFIG")
    try:
        table = pq.read_table(places.source(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from None
    missing = [name for name in SCHEMA.names if name not in (*table.schema.names, *LATER)]
    for name in set(LATER) - set(table.schema.names):
        table = table.append_column(name, pa.nulls(len(table), SCHEMA.field(name).type))
    if missing:
        raise DataError(f"{path} is no manifest: it lacks the columns {', '.join(missing)}")
    try:
        frame: pd.DataFrame = table.select(SCHEMA.names).cast(SCHEMA).to_pandas()
    except pa.ArrowException as error:
        raise DataError(f"{path} is no manifest: a column holds another type than it should: {error}") from None
    frame["labels"] = [list(labels) for labels in frame["labels"]]
    frame["twin_of"] = frame["twin_of"].astype("string")
    return frame


def digest(frame: pd.DataFrame) -> str:
    """What the rows say, whatever folder the sound lies in: a corpus that moves keeps its features."""
    columns = ("clip_id", "sha256", "start_s", "stop_s", "labels", "group", "split")
    rows = [[_plain(row[c]) for c in columns] + _twin(row) for row in frame.to_dict("records")]
    return fingerprint(sorted(rows))


def _twin(row: Mapping[Any, Any]) -> list[str]:
    """Only of copies, so that a corpus without any keeps the digest it had."""
    return [row["twin_of"]] if isinstance(row.get("twin_of"), str) else []


def labels_of(frame: pd.DataFrame) -> list[str]:
    return sorted({label for labels in frame["labels"] for label in labels})


def group_keys(frame: pd.DataFrame) -> set[str]:
    """Names of recordings that can be compared between corpora: hashed, so that a bundle tells nobody's name."""
    return {group_key(*pair) for pair in set(zip(frame["corpus"], frame["group"], strict=True))}


def group_key(corpus: str, group: str) -> str:
    return hashlib.sha256(f"{corpus}\0{group}".encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes; empty where it cannot be read, which the decoder will say with its reason."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@dataclass(frozen=True)
class _File:
    sha256: str = ""
    n_bytes: int = 0
    duration_s: float | None = None


def _look(path: Path, decoder: Decoder) -> _File:
    """What a file says of itself; one that cannot be had says nothing."""
    try:
        with places.sound(path) as local:
            return _File(sha256_of(local), local.stat().st_size if local.is_file() else 0, _duration(local, decoder))
    except DecodeError:
        return _File()


def _row(clip: Clip, corpus: str, root: Path, file: _File) -> dict[str, Any]:
    stop_s = clip.stop_s if clip.stop_s is not None else file.duration_s
    inside = clip.path.relative_to(root).as_posix()
    try:
        inside.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 come as lone surrogates, which no Parquet file takes
        raise DataError(f"expected a file name in UTF-8, got {inside!r}; rename the file") from None
    return {
        "clip_id": _clip_id(inside, clip.start_s, stop_s),
        "uri": str(clip.path.absolute()),
        "start_s": clip.start_s,
        "stop_s": stop_s,
        "labels": sorted(set(clip.labels)),
        "group": clip.group,
        "split": clip.split,
        "corpus": corpus,
        "sha256": file.sha256,
        "twin_of": None,
        "n_bytes": file.n_bytes,
        "traits": list(clip.traits),
    }


def _clip_id(inside: str, start_s: float, stop_s: float | None) -> str:
    stop = "end" if stop_s is None else f"{stop_s:.6f}"
    return hashlib.sha256(f"{inside}|{start_s:.6f}|{stop}".encode()).hexdigest()[:20]


def _duration(path: Path, decoder: Decoder) -> float | None:
    try:
        return decoder.probe(path).duration_s
    except DecodeError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
