"""One unit to one row: decoded, windowed, scored; whatever happens, the row says it.

On a core a unit is scored alone, on a device (device.py) with as many as fill a batch; all else is the same. A core
does one thing for many units before the next, so that its caches hold what that needs.

Shapes: W windows, K labels.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa

from instrunet.archive.device import Device
from instrunet.archive.speed import Clock
from instrunet.audio import io
from instrunet.audio.ahead import ahead
from instrunet.bundle import Bundle, Heard
from instrunet.data import places
from instrunet.data.remote import CHUNK

STATUSES = ("tagged", "silent", "too_short", "duplicate", "damaged", "corrupt", "unreadable", "deleted")
BAD = ("damaged", "corrupt", "unreadable")

LONG_S = 300.0  # of sound that a core decodes before it looks at it: 26 MB
FETCHED = 4  # files of a store that come meanwhile

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

Unit = dict[str, Any]  # a row of the work list
Row = dict[str, Any]
Fetched = tuple[Unit, Path | io.DecodeError | None]  # where its file is, why it is nowhere, or None: all is known
Found = tuple[Unit, Any]  # what `ready` made of its sound, why there is none (DecodeError), or None


def tag_all(
    units: list[Unit],
    bundle: Bundle,
    read: io.Read = io.read,
    embed: bool = False,
    clock: Clock | None = None,
    device: Device | None = None,
) -> list[Row]:
    """Their output rows."""
    clock, ears = clock or Clock(), device or _OneByOne(bundle)
    with _Copies(units) as copies:
        fetch, decode = partial(_fetched, copies, clock), partial(_decoded, copies, clock, ears, read, bundle)
        told = partial(_rows, bundle=bundle, hear=partial(ears.hear, embed=embed, clock=clock), embed=embed)
        if device:  # while it works, its decoders do, and its next batch is gathered
            found = ahead(lambda unit: decode(fetch(unit)), units, device.threads)
            made = ahead(told, _batches(found, ears))
        else:
            made = map(told, _batches(map(decode, ahead(fetch, units, n=FETCHED)), ears))
        return [row for rows in made for row in rows]


def tag(unit: Unit, bundle: Bundle, read: io.Read = io.read, embed: bool = False) -> Row:
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


class _OneByOne:
    """What stands for a device on a core."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self.enough = bundle, round(LONG_S * bundle.spec.front.sample_rate)

    def size(self, sound: tuple[io.Sound, float]) -> int:
        return len(sound[0].wave)

    def ready(self, sound: io.Sound, start_s: float) -> tuple[io.Sound, float]:
        return sound, start_s

    def hear(self, sounds: Sequence[tuple[io.Sound, float]], embed: bool, clock: Clock) -> list[Heard]:
        with clock("features"):
            seen = [self._bundle.look(sound, start_s) for sound, start_s in sounds]
        with clock("network"):
            return [self._bundle.judge(one, embed) for one in seen]


class _Copies:
    """The files of units; a store's is fetched once, and kept until the last unit of it has been read."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._left = Counter(unit["uri"] for unit in units if not unit["status"])
        self._locks = {uri: Lock() for uri in self._left}
        self._held: dict[str, tuple[ExitStack, Path]] = {}

    def fetch(self, unit: Unit) -> Path:
        uri = unit["uri"]
        with self._locks[uri]:
            if uri not in self._held:
                held = ExitStack()
                self._held[uri] = held, held.enter_context(places.sound(uri, unit["n_bytes"]))
            return self._held[uri][1]

    def done(self, unit: Unit) -> None:
        """With it, whether it could be fetched or not."""
        uri = unit["uri"]
        with self._locks[uri]:
            self._left[uri] -= 1
            if not self._left[uri]:
                self._put_away(uri)

    def __enter__(self) -> "_Copies":
        return self

    def __exit__(self, *_: object) -> None:
        for uri in [*self._held]:
            self._put_away(uri)

    def _put_away(self, uri: str) -> None:
        held, _ = self._held.pop(uri, (None, None))
        if held:
            held.close()


def _fetched(copies: _Copies, clock: Clock, unit: Unit) -> Fetched:
    if unit["status"]:
        return unit, None
    try:
        with clock("fetch"):
            return unit, copies.fetch(unit)
    except io.DecodeError as error:
        return unit, error


def _decoded(
    copies: _Copies, clock: Clock, ears: Device | _OneByOne, read: io.Read, bundle: Bundle, fetched: Fetched
) -> Found:
    unit, path = fetched
    if path is None:
        return fetched
    try:
        if isinstance(path, io.DecodeError):
            return fetched
        with clock("decode"):
            sound = read(path, bundle.spec.front.sample_rate, unit["start_s"], unit["stop_s"])
            return unit, ears.ready(sound, unit["start_s"])
    except io.DecodeError as error:  # reasons name the object and not its copy
        return unit, io.DecodeError(error.status, str(error).replace(str(path), unit["uri"]))
    finally:
        copies.done(unit)


def _batches(found: Iterable[Found], ears: Device | _OneByOne) -> Iterator[list[Found]]:
    """In order, so many at a time as are enough or a few more."""
    some, n = list[Found](), 0
    for unit, sound in found:
        some.append((unit, sound))
        n += 0 if isinstance(sound, io.DecodeError | None) else ears.size(sound)
        if n >= ears.enough:
            yield some
            some, n = [], 0
    if some:
        yield some


def _rows(found: list[Found], bundle: Bundle, hear: Callable[[list[Any]], list[Heard]], embed: bool) -> list[Row]:
    heard = iter(hear([sound for _, sound in found if not isinstance(sound, io.DecodeError | None)]))
    return [_row(unit, sound, bundle, heard, embed) for unit, sound in found]


def _row(unit: Unit, sound: Any, bundle: Bundle, heard: Iterator[Heard], embed: bool) -> Row:
    row = {name: unit[name] for name in ("unit_id", "uri", "start_s", "stop_s", "status", "error")}
    row |= {"flags": [], "window_start_s": [], "scores": [], "measures": [], "bundle": bundle.fingerprint}
    row |= {"embeddings": []} if embed else {}
    if sound is None:
        return row
    if isinstance(sound, io.DecodeError):
        return row | {"status": sound.status, "error": str(sound)}
    return row | _scored(unit, next(heard))


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
