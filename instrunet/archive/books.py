"""From unit rows to recordings, and the ledger: what went in must have come out, under one status or another.

Shapes: W windows of a recording, K labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instrunet.archive import units
from instrunet.archive.tagger import BAD, STATUSES
from instrunet.bundle import Bundle
from instrunet.data import parts, places
from instrunet.decisions import NO_ANSWER
from instrunet.drift import compare

UNITS, RECORDINGS, LEDGER = "units", "recordings", "ledger.json"
_RANGE = ["unit_id", "start_s", "stop_s"]
# A recording with units of several statuses gets the first of these, and is damaged where only some could be decoded
RANK = ("damaged", "tagged", "corrupt", "unreadable", "silent", "duplicate", "too_short")

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("status", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("duration_s", pa.float64()),
        ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("error", pa.string()),
        ("measures", pa.list_(pa.float32())),
        ("drift", pa.float64()),  # how far outside the training data, see `Profile.drift`
    ]
)


def close(out: Path, work: pa.Table, bundle: Bundle) -> dict[str, Any]:
    """Write recordings and the ledger from the published units; `closed` says whether everything is accounted for."""
    n_parts = units.n_parts(work)
    path = parts.part_path(out, RECORDINGS, 0)
    parts.write_aside(path, lambda aside: _write_recordings(aside, out, n_parts, bundle))
    files = _read(path, ["status", "measures", "flags"])
    ledger = _ledger(work, out, files) | {"drift": compare(bundle.spec.profile, files["measures"].to_pylist())}
    ledger["no_answer"] = sum(NO_ANSWER in flags for flags in files["flags"].to_pylist())
    ledger["leaky"] = f"LEAKY: {why}" if (why := bundle.spec.trained.leaky) else ""
    parts.write_json(out / LEDGER, ledger)
    return ledger


def recordings(out: Path, n_parts: int, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """One row a file. Its units stand together in the work list, so they are read in order and never all at once."""
    rows: list[dict[str, Any]] = []
    for k in range(n_parts):
        for row in _read(parts.part_path(out, UNITS, k)).to_pylist():
            if rows and rows[0]["uri"] != row["uri"]:
                yield _recording(rows, bundle)
                rows = []
            rows.append(row)
    if rows:
        yield _recording(rows, bundle)


def _recording(rows: list[dict[str, Any]], bundle: Bundle) -> dict[str, Any]:
    windows = [scores for row in rows for scores in row["scores"]]
    mean = bundle.of_clip(np.array(windows, np.float64)) if windows else None
    flags = sorted({flag for row in rows for flag in row["flags"]})
    measures = _measures(rows)
    return {
        "uri": rows[0]["uri"],
        "status": _status({row["status"] for row in rows}),
        "flags": flags if mean is None else bundle.flagged(flags, mean),
        "duration_s": sum(_seconds(row) for row in rows),
        "labels": bundle.decide(mean) if mean is not None else [],
        "scores": mean.tolist() if mean is not None else [],
        "measures": measures,
        "drift": bundle.drift(measures),
        "error": "; ".join(sorted({row["error"] for row in rows if row["error"]})),
    }


def _measures(rows: list[dict[str, Any]]) -> list[float]:
    """The median over a recording's units, which are of nearly one length; its duration is their sum."""
    heard = [row["measures"] for row in rows if row["measures"]]
    if not heard:
        return []
    *middle, _ = np.median(heard, axis=0).tolist()
    return [*middle, sum(row[-1] for row in heard)]


def _status(of_units: set[str]) -> str:
    if "tagged" in of_units and of_units & set(BAD):
        return "damaged"
    return min(of_units, key=RANK.index)


def _write_recordings(path: Path, out: Path, n_parts: int, bundle: Bundle) -> None:
    batch: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for row in recordings(out, n_parts, bundle):
            batch.append(row)
            if len(batch) == 10_000:
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _ledger(work: pa.Table, out: Path, files: pa.Table) -> dict[str, Any]:
    n_units, seconds = dict.fromkeys(STATUSES, 0), dict.fromkeys(STATUSES, 0.0)
    by_file = {status: files.column("status").to_pylist().count(status) for status in STATUSES}
    n_files = pc.count_distinct(work.column("uri")).as_py()
    closed, known_s = len(files) == n_files, 0.0
    for k, part in enumerate(units.by_part(work)):
        planned = part.select(_RANGE).to_pylist()
        made = _read(parts.part_path(out, UNITS, k), [*_RANGE, "status"]).to_pylist()
        closed = closed and len(made) == len(planned) and all(map(_accounts_for, made, planned))
        known_s += sum(map(_seconds, planned))
        for row in made:
            n_units[row["status"]] += 1
            seconds[row["status"]] += _seconds(row)
    return {
        "closed": closed,
        "files": {"in": n_files, "out": len(files), "by_status": by_file},
        "units": {"in": len(work), "out": sum(n_units.values()), "by_status": n_units},
        "audio_s": {
            "in": round(known_s, 3),  # as the headers say; a file without a readable length counts when it is decoded
            "out": round(sum(seconds.values()), 3),
            "by_status": {status: round(s, 3) for status, s in seconds.items()},
        },
    }


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(places.source(path), columns=columns)


def _accounts_for(made: dict[str, Any], planned: dict[str, Any]) -> bool:
    """In its place and over its range; an end that no header gave may have been found, or not."""
    same = made["unit_id"] == planned["unit_id"] and made["start_s"] == planned["start_s"]
    return bool(same and planned["stop_s"] in (None, made["stop_s"]))


def _seconds(row: dict[str, Any]) -> float:
    return 0.0 if row["stop_s"] is None else float(row["stop_s"]) - float(row["start_s"])
