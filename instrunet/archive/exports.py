"""Recordings and intervals for other programs: OUT/csv, OUT/jsonl, OUT/audacity, OUT/raven, OUT/sidecar; and divided:
OUT/day, by the date in a name (day=2024-05-31), OUT/prefix, by the first folder of the archive, both as Parquet.

Audacity's, Raven's and sidecars hold a file for each recording that was heard, in the folders of its archive: labels
that Audacity imports, Raven's selection tables, and JSON to lie beside the sound.

Formats: Audacity's is start, end and name divided by tabs, in seconds and UTF-8 (its manual, "Importing and Exporting
Labels", https://manual.audacityteam.org/man/importing_and_exporting_labels.html). Raven's is a tab-divided table whose
first seven columns and `Begin Path` are those of Raven Pro and of what BirdNET-Analyzer writes for it
(birdnet_analyzer/analyze/utils.py, RAVEN_TABLE_HEADER); columns that Raven does not know, as our Label, Peak and Mean,
it shows as annotations.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset

from instrunet.archive.books import INTERVALS, RECORDINGS, Row
from instrunet.bundle_spec import BundleSpec
from instrunet.data import parts, places
from instrunet.errors import ConfigError

HEARD = ("tagged", "damaged")
PLAIN = ("uri", "status", "flags", "duration_s", "labels", "error", "drift")
OF_INTERVAL = ("uri", "label", "start_s", "stop_s", "peak", "mean")
RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
Tagged = tuple[Row, list[Row]]


def asked(text: str, out: Path | None = None) -> list[str]:
    """The formats that an argument names; `out` is where they would go."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--format takes {', '.join(FORMATS)}, several divided by commas; got {name!r}")
        if out and name in DIVIDED and places.is_remote(out):
            raise ConfigError(f"--format {name} is written to a disk, got {out}; take jobs/retag.py --to FOLDER")
    return names


def write(out: Path, formats: Iterable[str], spec: BundleSpec, archive: str) -> None:
    """From the tables in `out`; what was written before stays."""
    for name in formats:
        if not parts.is_done(out / name):
            FORMATS[name](out / name, _tagged(out), spec, archive)
            parts.finish(out / name)


def _tagged(out: Path) -> Iterator[Tagged]:
    """Recordings and their intervals: both tables are in the order of the work list."""
    ranges = _rows(parts.part_path(out, INTERVALS, 0))
    ahead = next(ranges, None)
    for row in _rows(parts.part_path(out, RECORDINGS, 0)):
        own = []
        while ahead and ahead["uri"] == row["uri"]:
            own.append(ahead)
            ahead = next(ranges, None)
        yield row, own


def _rows(path: Path) -> Iterator[Row]:
    for batch in pq.ParquetFile(places.source(path)).iter_batches(5000):
        yield from batch.to_pylist()


def _csv(folder: Path, tagged: Iterator[Tagged], spec: BundleSpec, archive: str) -> None:
    def fill(one: Path, other: Path) -> None:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("w", encoding="utf-8", newline="")) for path in (one, other)]
            recordings, intervals = (csv.writer(file, lineterminator="\n") for file in files)
            recordings.writerow([*PLAIN, *(f"score.{label}" for label in spec.labels)])
            intervals.writerow(OF_INTERVAL)
            blank: list[Any] = [""] * len(spec.labels)
            for row, own in tagged:
                plain = [";".join(row[name]) if isinstance(row[name], list) else row[name] for name in PLAIN]
                recordings.writerow([*plain, *(_digits(row["scores"]) or blank)])
                intervals.writerows([_short(each[name]) for name in OF_INTERVAL] for each in own)

    paths = folder / "recordings.csv", folder / "intervals.csv"
    parts.write_aside(paths[0], lambda one: parts.write_aside(paths[1], lambda other: fill(one, other)))


def _jsonl(folder: Path, tagged: Iterator[Tagged], spec: BundleSpec, archive: str) -> None:
    def fill(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as file:
            for row, own in tagged:
                file.write(json.dumps(_object(row, own, spec), ensure_ascii=False) + "\n")

    parts.write_aside(folder / "recordings.jsonl", fill)


def _sidecar(folder: Path, tagged: Iterator[Tagged], spec: BundleSpec, archive: str) -> None:
    for row, own in _heard(tagged):
        parts.write_json(folder / f"{name_of(row['uri'], archive)}.json", _object(row, own, spec))


def _audacity(folder: Path, tagged: Iterator[Tagged], spec: BundleSpec, archive: str) -> None:
    for row, own in _heard(tagged):
        lines = [f"{each['start_s']:.6f}\t{each['stop_s']:.6f}\t{_cell(each['label'])}\n" for each in own]
        _put(folder / f"{name_of(row['uri'], archive)}.txt", lines)


def _raven(folder: Path, tagged: Iterator[Tagged], spec: BundleSpec, archive: str) -> None:
    """A selection is a box in time and frequency: ours are as high as what the model hears."""
    high = f"{spec.front.sample_rate / 2:.1f}"
    for row, own in _heard(tagged):
        lines = ["\t".join([*RAVEN, "Label", "Peak", "Mean", "Begin Path"]) + "\n"]
        for k, each in enumerate(own, 1):
            times = f"{each['start_s']:.6f}", f"{each['stop_s']:.6f}"
            told = _cell(each["label"]), f"{each['peak']:.4f}", f"{each['mean']:.4f}", _cell(row["uri"])
            lines.append("\t".join([str(k), "Spectrogram 1", "1", *times, "0.0", high, *told]) + "\n")
        _put(folder / f"{name_of(row['uri'], archive)}.Table.1.selections.txt", lines)


def _divided(field: str, folder: Path, archive: str) -> None:
    """Both tables of the folder above by a field of their names, as FIELD=VALUE/part-0.parquet."""
    for kind in (RECORDINGS, INTERVALS):
        file = pq.ParquetFile(places.source(parts.part_path(folder.parent, kind, 0)))
        schema = file.schema_arrow.append(pa.field(field, pa.string()))
        batches = (_with(field, batch, archive) for batch in file.iter_batches(5000))
        how = {"format": "parquet", "basename_template": "part-{i}.parquet", "max_partitions": 1 << 20}
        by = dataset.partitioning(pa.schema([(field, pa.string())]), flavor="hive")
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        parts.publish_folder(
            folder / kind,
            partial(dataset.write_dataset, reader, partitioning=by, use_threads=False, max_open_files=500, **how),
        )


def _with(field: str, batch: pa.RecordBatch, archive: str) -> pa.RecordBatch:
    values = pa.array([DIVIDED[field](name_of(uri, archive)) for uri in batch.column("uri").to_pylist()], pa.string())
    return batch.append_column(field, values)


def _day(name: str) -> str:
    found = DATE.search(name)
    return "-".join(found.groups()) if found else "unknown"


def _prefix(name: str) -> str:
    return name.split("/")[0] if "/" in name else "."


DIVIDED: dict[str, Callable[[str], str]] = {"day": _day, "prefix": _prefix}
FORMATS: dict[str, Callable[[Path, Iterator[Tagged], BundleSpec, str], None]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "audacity": _audacity,
    "raven": _raven,
    "sidecar": _sidecar,
    "day": lambda folder, tagged, spec, archive: _divided("day", folder, archive),
    "prefix": lambda folder, tagged, spec, archive: _divided("prefix", folder, archive),
}


def name_of(uri: str, archive: str) -> str:
    """Where a recording's own file lies below a folder: as it lies in its archive, or by all of its path."""
    inside = uri.removeprefix(archive.rstrip("/") + "/")
    parts_ = [part for part in re.split(r"/+", inside.replace("://", "/")) if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts_)


def _heard(tagged: Iterator[Tagged]) -> Iterator[Tagged]:
    return ((row, own) for row, own in tagged if row["status"] in HEARD)


def _object(row: Row, own: list[Row], spec: BundleSpec) -> dict[str, Any]:
    scores = dict(zip(spec.labels, _digits(row["scores"]), strict=False))
    ranges = [{name: _short(value) for name, value in each.items() if name != "uri"} for each in own]
    return {name: row[name] for name in PLAIN} | {"scores": scores, "intervals": ranges}


def _put(path: Path, lines: list[str]) -> None:
    parts.write_aside(path, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))


def _digits(scores: list[float]) -> list[float]:
    return [round(score, 6) for score in scores]


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _cell(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", text)
