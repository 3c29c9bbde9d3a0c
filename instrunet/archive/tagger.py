"""One unit to one row: decoded, windowed, scored; whatever happens, the row says it.

Shapes: W windows, K labels.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from instrunet.archive.speed import Clock
from instrunet.audio import io
from instrunet.audio.isolated import ahead
from instrunet.bundle import Bundle, Heard
from instrunet.data import places
from instrunet.data.remote import CHUNK

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
    units: list[dict[str, Any]],
    bundle: Bundle,
    read: io.Read = io.read,
    embed: bool = False,
    clock: Clock | None = None,
) -> list[dict[str, Any]]:
    """Their output rows; the next unit is decoded while the network looks at this one."""
    clock = clock or Clock()
    with closing(_Copy()) as copy:
        heard = ahead(lambda unit: _heard(unit, bundle, partial(_read, copy, read, clock)), units)
        return [_row(unit, sound, bundle, embed, clock) for unit, sound in zip(units, heard, strict=True)]


def tag(unit: dict[str, Any], bundle: Bundle, read: io.Read = io.read, embed: bool = False) -> dict[str, Any]:
    """The output row of a unit; `stop_s` is filled in where only decoding could tell."""
    (row,) = tag_all([unit], bundle, read, embed)
    return row


def table(rows: list[dict[str, Any]], embed: bool = False) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=EMBEDDED if embed else SCHEMA)


def counts(units: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a part comes to (`speed.COUNTS`). A file counts where it begins; an object is fetched whole, by `CHUNK`s."""
    seconds = [row["stop_s"] - row["start_s"] for row in rows if row["stop_s"] is not None]
    by_uri = {unit["uri"]: unit["n_bytes"] for unit in units if not unit["status"]}
    fetched = [n_bytes for uri, n_bytes in by_uri.items() if places.URL.match(uri)]
    return {
        "files": sum(unit["start_s"] == 0 for unit in units),
        "bad": len({row["uri"] for row in rows if row["status"] in BAD}),
        "audio_s": float(sum(seconds)),
        "gets": sum(max(1, -(-(n_bytes or 0) // CHUNK)) for n_bytes in fetched),
    }


class _Copy:
    """The file of a unit; a store's is fetched once for the units of it that follow each other."""

    def __init__(self) -> None:
        self._held, self._uri, self._path = ExitStack(), "", Path()

    def of(self, unit: dict[str, Any]) -> Path:
        if unit["uri"] != self._uri:
            self.close()
            self._path = self._held.enter_context(places.sound(unit["uri"], unit["n_bytes"]))
            self._uri = unit["uri"]
        return self._path

    def close(self) -> None:
        self._uri = ""
        self._held.close()


def _heard(unit: dict[str, Any], bundle: Bundle, read: Callable[..., io.Sound]) -> io.Sound | io.DecodeError | None:
    """Its sound, or why there is none; nothing of a unit whose status is known."""
    if unit["status"]:
        return None
    try:
        return read(unit, bundle.spec.front.sample_rate, unit["start_s"], unit["stop_s"])
    except io.DecodeError as error:
        return error


def _read(copy: _Copy, read: io.Read, clock: Clock, unit: dict[str, Any], *of: Any) -> io.Sound:
    with clock("fetch"):
        path = copy.of(unit)
    try:
        with clock("decode"):
            return read(path, *of)
    except io.DecodeError as error:  # reasons name the object and not its copy
        raise io.DecodeError(error.status, str(error).replace(str(path), unit["uri"])) from None


def _row(
    unit: dict[str, Any], heard: io.Sound | io.DecodeError | None, bundle: Bundle, embed: bool, clock: Clock
) -> dict[str, Any]:
    row = {name: unit[name] for name in ("unit_id", "uri", "start_s", "stop_s", "status", "error")}
    row |= {"flags": [], "window_start_s": [], "scores": [], "measures": [], "bundle": bundle.fingerprint}
    row |= {"embeddings": []} if embed else {}
    if heard is None:
        return row
    if isinstance(heard, io.DecodeError):
        return row | {"status": heard.status, "error": str(heard)}
    with clock("features"):
        seen = bundle.look(heard, unit["start_s"])
    with clock("network"):
        return row | _scored(unit, bundle.judge(seen, embed))


def _scored(unit: dict[str, Any], heard: Heard) -> dict[str, Any]:
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
