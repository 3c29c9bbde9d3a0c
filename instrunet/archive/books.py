"""From unit rows to recordings, and the ledger: what went in must have come out, under one status or another.

Shapes: W windows of a recording, K labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.archive import units
from instrunet.archive.tagger import STATUSES
from instrunet.bundle import Bundle
from instrunet.data import parts

UNITS, RECORDINGS, LEDGER = "units", "recordings", "ledger.json"
# A recording with units of several statuses gets the first of these: what could be tagged is, damage is not hidden
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
    ]
)


def close(out: Path, work: pa.Table, bundle: Bundle) -> dict[str, Any]:
    """Write recordings and the ledger from the published units; `closed` says whether everything is accounted for."""
    n_parts = units.n_parts(work)
    path = parts.part_path(out, RECORDINGS, 0)
    parts.write_aside(path, lambda aside: _write_recordings(aside, out, n_parts, bundle))
    ledger = _ledger(work, out, n_parts, pq.read_table(path, columns=["uri", "status", "duration_s"]))
    parts.write_json(out / LEDGER, ledger)
    return ledger


def recordings(out: Path, n_parts: int, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """One row a file. Its units stand together in the work list, so they are read in order and never all at once."""
    rows: list[dict[str, Any]] = []
    for k in range(n_parts):
        for row in pq.read_table(parts.part_path(out, UNITS, k)).to_pylist():
            if rows and rows[0]["uri"] != row["uri"]:
                yield _recording(rows, bundle)
                rows = []
            rows.append(row)
    if rows:
        yield _recording(rows, bundle)


def _recording(rows: list[dict[str, Any]], bundle: Bundle) -> dict[str, Any]:
    status = min((row["status"] for row in rows), key=RANK.index)
    windows = [scores for row in rows for scores in row["scores"]]
    mean = np.array(windows, np.float64).mean(0).astype(np.float32) if windows else None
    return {
        "uri": rows[0]["uri"],
        "status": status,
        "flags": sorted({flag for row in rows for flag in row["flags"]}),
        "duration_s": sum(_seconds(row) for row in rows),
        "labels": bundle.decide(mean) if mean is not None else [],
        "scores": mean.tolist() if mean is not None else [],
        "error": "; ".join(sorted({row["error"] for row in rows if row["error"]})),
    }


def _write_recordings(path: Path, out: Path, n_parts: int, bundle: Bundle) -> None:
    batch: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for row in recordings(out, n_parts, bundle):
            batch.append(row)
            if len(batch) == 10_000:
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))


def _ledger(work: pa.Table, out: Path, n_parts: int, files: pa.Table) -> dict[str, Any]:
    n_units, seconds = dict.fromkeys(STATUSES, 0), dict.fromkeys(STATUSES, 0.0)
    seen: set[str] = set()
    for k in range(n_parts):
        for row in pq.read_table(parts.part_path(out, UNITS, k), columns=_COUNTED).to_pylist():
            n_units[row["status"]] += 1
            seconds[row["status"]] += _seconds(row)
            seen.add(row["unit_id"])
    by_file = {status: files.column("status").to_pylist().count(status) for status in STATUSES}
    expected = set(work.column("unit_id").to_pylist())
    n_files = len(set(work.column("uri").to_pylist()))
    known_s = sum(_seconds(row) for row in work.select(["start_s", "stop_s"]).to_pylist() if row["stop_s"] is not None)
    total_s = sum(seconds.values())
    closed = seen == expected and sum(n_units.values()) == len(work) and len(files) == n_files
    return {
        "closed": bool(closed and total_s >= known_s - 1e-3 * max(1, len(work))),
        "files": {"in": n_files, "out": len(files), "by_status": by_file},
        "units": {"in": len(work), "out": sum(n_units.values()), "by_status": n_units},
        "audio_s": {
            "in": round(known_s, 3),  # as the headers say; a file without a readable length counts when it is decoded
            "out": round(total_s, 3),
            "by_status": {status: round(s, 3) for status, s in seconds.items()},
        },
    }


_COUNTED = ["unit_id", "start_s", "stop_s", "status"]


def _seconds(row: dict[str, Any]) -> float:
    return 0.0 if row["stop_s"] is None else float(row["stop_s"]) - float(row["start_s"])
