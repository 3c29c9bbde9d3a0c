"""One unit to one row: decoded, windowed, scored; whatever happens, the row says it.

Shapes: W windows, K labels.
"""

from typing import Any

import pyarrow as pa

from instrunet.audio import io
from instrunet.bundle import Bundle
from instrunet.data import places

STATUSES = ("tagged", "silent", "too_short", "duplicate", "damaged", "corrupt", "unreadable")
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
        ("scores", pa.list_(pa.list_(pa.float32()))),
        ("bundle", pa.string()),
    ]
)


def tag(unit: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    """The output row of a unit; `stop_s` is filled in where only decoding could tell."""
    row = {name: unit[name] for name in ("unit_id", "uri", "start_s", "stop_s", "status", "error")}
    row |= {"flags": [], "window_start_s": [], "scores": [], "bundle": bundle.fingerprint}
    if unit["status"]:
        return row
    try:
        with places.sound(unit["uri"], unit["n_bytes"]) as path:
            sound = io.read(path, bundle.spec.front.sample_rate, unit["start_s"], unit["stop_s"])
    except io.DecodeError as error:
        return row | {"status": error.status, "error": str(error)}
    return row | _scored(unit, sound, bundle)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _scored(unit: dict[str, Any], sound: io.Sound, bundle: Bundle) -> dict[str, Any]:
    heard = bundle.hear(sound)
    return {
        "stop_s": unit["start_s"] + heard.duration_s if unit["stop_s"] is None else unit["stop_s"],
        "status": heard.status or "tagged",
        "flags": heard.flags,
        "error": heard.reason,
        "window_start_s": [unit["start_s"] + at for at in heard.window_start_s],
        "scores": heard.scores.tolist(),
    }
