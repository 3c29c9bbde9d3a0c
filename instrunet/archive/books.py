"""From unit rows to recordings and intervals, and the ledger: what went in must have come out, under one status or
another. Nothing here hears anything: other decisions are the same books under another rule.

Shapes: W windows of a unit or of a recording, K labels.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from instrunet.archive import intervals
from instrunet.archive.tagger import BAD, STATUSES
from instrunet.archive.tagger import SCHEMA as SCHEMA_OF_UNITS
from instrunet.archive.units import WorkList
from instrunet.bundle import Bundle
from instrunet.data import parts, places
from instrunet.decisions import NO_ANSWER
from instrunet.drift import compare
from instrunet.features.measures import NAMES
from instrunet.rule import Rule

UNITS, RECORDINGS, INTERVALS, LEDGER = "units", "recordings", "intervals", "ledger.json"
BATCH = 5_000  # recordings in memory
Row = dict[str, Any]
Recording = tuple[Row, list[Row]]  # a recording and its intervals
_OF_WINDOWS = ["window_start_s", "scores"]
_RANGE = ["unit_id", "start_s", "stop_s"]
# A recording with units of several statuses gets the first of these, and is damaged where only some could be decoded
RANK = ("damaged", "tagged", "corrupt", "unreadable", "silent", "duplicate", "too_short", "deleted")

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


def close(out: Path, work: WorkList, rule: Rule | Bundle, to: Path | None = None) -> dict[str, Any]:
    """Write recordings, intervals and the ledger (into `to`, if given) from the published units of `out`.

    `closed` says whether everything is accounted for.
    """
    rule, to = rule.rule if isinstance(rule, Bundle) else rule, to or out
    tables = [parts.part_path(to, kind, 0) for kind in (RECORDINGS, INTERVALS)]
    made = recordings(out, work.n_parts, rule)
    parts.write_aside(
        tables[0],
        lambda of_recordings: parts.write_aside(
            tables[1], lambda of_intervals: _write_tables(made, of_recordings, of_intervals)
        ),
    )
    files = _read(tables[0], ["status", "measures", "flags"])
    measures = files["measures"].combine_chunks().flatten().to_numpy().reshape(-1, len(NAMES))
    ledger = _ledger(work, out, files["status"]) | {"drift": compare(rule.spec.profile, measures)}
    ledger["no_answer"] = pc.sum(pc.equal(pc.list_flatten(files["flags"]), NO_ANSWER)).as_py() or 0
    ledger["leaky"] = f"LEAKY: {why}" if (why := rule.spec.trained.leaky) else ""
    parts.write_json(to / LEDGER, ledger)
    return ledger


def recordings(out: Path, n_parts: int, rule: Rule | Bundle) -> Iterator[Recording]:
    """One row a file, and its intervals. The units of a file stand together in the work list, so they are read in
    order and never all at once."""
    rule = rule.rule if isinstance(rule, Bundle) else rule
    rows: list[Row] = []
    for k in range(n_parts):
        for row in _unit_rows(parts.part_path(out, UNITS, k)):
            if rows and rows[0]["uri"] != row["uri"]:
                yield _recording(rows, rule)
                rows = []
            rows.append(row)
    if rows:
        yield _recording(rows, rule)


def _recording(rows: list[Row], rule: Rule) -> Recording:
    heard = [row for row in rows if len(row["scores"])]
    windows = np.concatenate([row["scores"] for row in heard]).astype(np.float64) if heard else np.empty(0)
    mean = rule.of_clip(windows) if heard else None
    flags = sorted({flag for row in rows for flag in row["flags"]})
    measures = _measures(rows)
    made = {
        "uri": rows[0]["uri"],
        "status": _status({row["status"] for row in rows}),
        "flags": flags if mean is None else rule.flagged(flags, mean),
        "duration_s": sum(_seconds(row) for row in rows),
        "labels": rule.decide(mean) if mean is not None else [],
        "scores": mean.tolist() if mean is not None else [],
        "measures": measures,
        "drift": rule.drift(measures),
        "error": "; ".join(sorted({row["error"] for row in rows if row["error"]})),
    }
    if not heard:
        return made, []
    starts = np.concatenate([row["window_start_s"] for row in heard]).astype(np.float64)
    ends = np.repeat([row["stop_s"] for row in heard], [len(row["scores"]) for row in heard])
    stops = np.minimum(starts + rule.spec.front.window_s, np.maximum(ends, starts))
    return made, intervals.of_recording(made["uri"], starts, stops, windows, rule)


def _unit_rows(path: Path) -> list[Row]:
    """As Python's own, but for `window_start_s` [W] and `scores` [W, K], which are arrays."""
    table = _read(path, [name for name in SCHEMA_OF_UNITS.names if name != "bundle"]).combine_chunks()
    rows: list[Row] = table.drop_columns(_OF_WINDOWS).to_pylist()
    if not rows:
        return rows
    starts, scores = (table.column(name).chunk(0) for name in _OF_WINDOWS)
    at, flat = scores.offsets.to_numpy(), scores.flatten().flatten().to_numpy(zero_copy_only=False)
    flat, begin = flat.reshape(at[-1] - at[0], -1) if len(flat) else flat, starts.flatten().to_numpy()
    for row, first, stop in zip(rows, at - at[0], at[1:] - at[0], strict=False):
        row |= {"window_start_s": begin[first:stop], "scores": flat[first:stop]}
    return rows


def _measures(rows: list[Row]) -> list[float]:
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


def _write_tables(made: Iterator[Recording], of_recordings: Path, of_intervals: Path) -> None:
    with (
        pq.ParquetWriter(of_recordings, SCHEMA, compression="zstd") as rows,
        pq.ParquetWriter(of_intervals, intervals.SCHEMA, compression="zstd") as ranges,
    ):
        while batch := list(islice(made, BATCH)):
            rows.write_table(pa.Table.from_pylist([row for row, _ in batch], schema=SCHEMA))
            found = [row for _, each in batch for row in each]
            ranges.write_table(pa.Table.from_pylist(found, schema=intervals.SCHEMA))


def _ledger(work: WorkList, out: Path, statuses: pa.ChunkedArray) -> dict[str, Any]:
    n_units, seconds = dict.fromkeys(STATUSES, 0), dict.fromkeys(STATUSES, 0.0)
    by_file = {one["values"]: one["counts"] for one in pc.value_counts(statuses).to_pylist()}
    closed, known_s, n_files, last = True, 0.0, 0, None
    for k in range(work.n_parts):
        planned = work.part(k, [*_RANGE, "uri"])
        made = _read(parts.part_path(out, UNITS, k), [*_RANGE, "status"]).to_pylist()
        closed = closed and len(made) == len(planned) and all(map(_accounts_for, made, planned))
        known_s += sum(map(_seconds, planned))
        for row in planned:  # the units of a file stand together
            n_files, last = n_files + (row["uri"] != last), row["uri"]
        for row in made:
            n_units[row["status"]] += 1
            seconds[row["status"]] += _seconds(row)
    return {
        "closed": closed and len(statuses) == n_files,
        "files": {"in": n_files, "out": len(statuses), "by_status": {s: by_file.get(s, 0) for s in STATUSES}},
        "units": {"in": len(work), "out": sum(n_units.values()), "by_status": n_units},
        "audio_s": {
            "in": round(known_s, 3),  # as the headers say; a file without a readable length counts when it is decoded
            "out": round(sum(seconds.values()), 3),
            "by_status": {status: round(s, 3) for status, s in seconds.items()},
        },
    }


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    with pq.ParquetFile(places.source(path)) as file:  # `read_table` takes three times as long for a small one
        return file.read(columns, use_threads=False)


def _accounts_for(made: dict[str, Any], planned: dict[str, Any]) -> bool:
    """In its place and over its range; an end that no header gave may have been found, or not."""
    same = made["unit_id"] == planned["unit_id"] and made["start_s"] == planned["start_s"]
    return bool(same and planned["stop_s"] in (None, made["stop_s"]))


def _seconds(row: dict[str, Any]) -> float:
    return 0.0 if row["stop_s"] is None else float(row["stop_s"]) - float(row["start_s"])
