"""One unit to one row: decoded, windowed, scored; whatever happens, the row says it.

Shapes: W windows, K labels.
"""

from typing import Any

import pyarrow as pa

from instrunet.audio import io
from instrunet.audio.isolated import ahead
from instrunet.bundle import Bundle
from instrunet.data import places

STATUSES = ("tagged", "silent", "too_short", "duplicate", "damaged", "corrupt", "unreadable", "deleted")
BAD = ("damaged", "corrupt", "unreadable")

SCHEMA = pa.schema(
    [
        ("unit_id", pa.string()),
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("status", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("error", pa.string()),
        ("window_start_s", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.list_(pa.float16()))),
        ("bundle", pa.string()),
        ("measures", pa.list_(pa.float32())),  # in the order of features/measures.py; of a unit without sound none
    ]
)
EMBEDDED = SCHEMA.append(pa.field("embeddings", pa.list_(pa.list_(pa.float16()))))  # of each window, on request


def tag_all(
    units: list[dict[str, Any]], bundle: Bundle, read: io.Read = io.read, embed: bool = False
) -> list[dict[str, Any]]:
    """Their output rows; the next unit is decoded while the network looks at this one."""
    heard = ahead(lambda unit: _heard(unit, bundle, read), units)
    return [_row(unit, sound, bundle, embed) for unit, sound in zip(units, heard, strict=True)]


def tag(unit: dict[str, Any], bundle: Bundle, read: io.Read = io.read, embed: bool = False) -> dict[str, Any]:
    """The output row of a unit; `stop_s` is filled in where only decoding could tell."""
    return _row(unit, _heard(unit, bundle, read), bundle, embed)


def table(rows: list[dict[str, Any]], embed: bool = False) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=EMBEDDED if embed else SCHEMA)


def _heard(unit: dict[str, Any], bundle: Bundle, read: io.Read) -> io.Sound | io.DecodeError | None:
    """Its sound, or why there is none; nothing of a unit whose status is known."""
    if unit["status"]:
        return None
    try:
        with places.sound(unit["uri"], unit["n_bytes"]) as path:
            return read(path, bundle.spec.front.sample_rate, unit["start_s"], unit["stop_s"])
    except io.DecodeError as error:
        return error


def _row(unit: dict[str, Any], heard: io.Sound | io.DecodeError | None, bundle: Bundle, embed: bool) -> dict[str, Any]:
    row = {name: unit[name] for name in ("unit_id", "uri", "start_s", "stop_s", "status", "error")}
    row |= {"flags": [], "window_start_s": [], "scores": [], "measures": [], "bundle": bundle.fingerprint}
    row |= {"embeddings": []} if embed else {}
    if heard is None:
        return row
    if isinstance(heard, io.DecodeError):
        return row | {"status": heard.status, "error": str(heard)}
    return row | _scored(unit, heard, bundle, embed)


def _scored(unit: dict[str, Any], sound: io.Sound, bundle: Bundle, embed: bool) -> dict[str, Any]:
    heard = bundle.hear(sound, unit["start_s"], embed)
    more = {} if heard.embeddings is None else {"embeddings": list(heard.embeddings)}
    return more | {
        "stop_s": unit["start_s"] + heard.duration_s if unit["stop_s"] is None else unit["stop_s"],
        "status": heard.status or "tagged",
        "flags": heard.flags,
        "error": heard.reason,
        "window_start_s": [unit["start_s"] + at for at in heard.window_start_s],
        "scores": heard.scores.tolist(),
        "measures": heard.measures,
    }
