"""Guitar notes: the metadata table of note events, and the annotations of IDMT-SMT-Guitar turned into it."""

import codecs
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.data import manifest, places
from instrunet.data.manifest import Clip
from instrunet.data.readers import idmt
from instrunet.data.readers.common import Row, check_columns, folder_of, inside, rows_of, with_notes
from instrunet.data.readers.tables import check_split
from instrunet.errors import DataError

GUITAR_LABELS = ("harmonic", "dead_note", "general_note")
GUITAR_COLUMNS = (
    *("subset_id", "source_audio", "source_annotation", "event_index", "onset_sec", "offset_sec", "duration_sec"),
    *("pitch_midi", "string_number", "fret_number", "excitation_style", "expression_style", "label_category"),
    *("is_harmonic", "is_dead_note", "is_general_note"),
)
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
EXPRESSIONS = {"HA": "harmonic", "DN": "dead_note"}  # of IDMT-SMT-Guitar; all else is a general note


def guitar_notes(root: Path, table: Path | None = None) -> pd.DataFrame:
    """One clip a note event: onset to offset of `source_audio`, which is its group."""
    path = _table(folder_of(root), table)
    listed = _parquet(path) if path.suffix == ".parquet" else rows_of(path, GUITAR_COLUMNS)
    clips = list(_clips(listed, root))
    if not clips:
        raise DataError(f"{path} lists no note events; add rows of {','.join(GUITAR_COLUMNS[:6])},...")
    return manifest.make(clips, "guitar_notes", root)


def idmt_smt_guitar(root: Path) -> pd.DataFrame:
    listed, n_empty = idmt_table(root)
    empty = f"{n_empty} events end before they begin and are left out" if n_empty else ""
    return with_notes(manifest.make(list(_clips(listed, root)), "idmt_smt_guitar", root), empty)


def idmt_table(root: Path) -> tuple[list[tuple[str, Row]], int]:
    """The annotations as rows of the metadata table, and how many events had no length."""
    events = list(idmt.events(folder_of(root)))
    if not events:
        raise DataError(
            f"expected IDMT-SMT-Guitar's annotations (instrumentRecording/transcription/event, .xml) under {root}, "
            "found none"
        )
    kept = [event for event in events if event.offset_s > event.onset_s]
    return [(event.place, _row(event)) for event in kept], len(events) - len(kept)


def is_guitar_table(folder: Path) -> bool:
    table = folder / "metadata.csv"
    if not table.is_file():
        return (folder / "metadata.parquet").is_file()
    with table.open("rb") as file:
        columns = file.readline(10_000).removeprefix(codecs.BOM_UTF8).decode("latin-1").replace('"', "").strip()
    return {"source_audio", "onset_sec", "offset_sec", "label_category"} <= set(columns.split(","))


def _row(event: idmt.Event) -> Row:
    label = EXPRESSIONS.get(event.fields["expressionStyle"].upper(), "general_note")
    values = (
        *(event.subset, event.audio, event.annotation, str(event.index), repr(event.onset_s), repr(event.offset_s)),
        *(repr(event.offset_s - event.onset_s), event.fields["pitch"], event.fields["stringNumber"]),
        *(event.fields["fretNumber"], event.fields["excitationStyle"], event.fields["expressionStyle"], label),
        *(str(label == each) for each in GUITAR_LABELS),
    )
    return dict(zip(GUITAR_COLUMNS, values, strict=True))


def _clips(listed: Iterable[tuple[str, Row]], root: Path) -> Iterator[Clip]:
    """The notes of a chord are one range of sound, and one clip."""
    seen: dict[tuple[Path, str], Clip] = {}
    for place, row in listed:
        clip = _clip(place, row, root)
        first = seen.setdefault((clip.path, f"{clip.start_s:.6f} {clip.stop_s:.6f}"), clip)  # as precise as a clip's id
        if first is clip:
            yield clip
        elif first.labels != clip.labels:
            raise DataError(
                f"{place}: {row['onset_sec']} to {row['offset_sec']} s of {row['source_audio']} is {first.labels[0]} "
                f"in another row and {clip.labels[0]} here; keep one of them"
            )


def _clip(place: str, row: Row, root: Path) -> Clip:
    name, label = row["source_audio"], row["label_category"]
    if not name:
        raise DataError(f"{place}: source_audio is empty; name a sound file, relative to the folder")
    if label not in GUITAR_LABELS:
        raise DataError(f"{place}: label_category is {label!r}; use one of {', '.join(GUITAR_LABELS)}")
    for each in GUITAR_LABELS:
        told = row[f"is_{each}"]
        if told.lower() not in (TRUE if each == label else FALSE):
            raise DataError(f"{place}: label_category is {label!r} and is_{each} is {told!r}; make them agree")
    start_s, stop_s = _seconds(place, row, "onset_sec"), _seconds(place, row, "offset_sec")
    if not 0 <= start_s < stop_s:
        raise DataError(f"{place}: expected 0 <= onset_sec < offset_sec, got {start_s:g} and {stop_s:g}; correct them")
    path = inside(root, name, place)
    group = path.relative_to(root).as_posix()  # `./a.wav` and `a.wav` are one recording
    return Clip(path, [label], group, check_split(place, row.get("split", "")), start_s, stop_s)


def _seconds(place: str, row: Row, column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{place}: {column} is {row[column]!r}; give seconds, as in 1.25")
    return value


def _table(root: Path, table: Path | None) -> Path:
    """metadata.csv or metadata.parquet in the folder, or the file that `data.table` names, relative to it."""
    choices = [root / table] if table else [root / "metadata.csv", root / "metadata.parquet"]
    found = [path for path in choices if path.is_file()]
    if not found:
        raise DataError(
            f"expected the table of note events at {' or '.join(map(str, choices))}, found none; "
            "name it with data.table=PATH, relative to data.root"
        )
    return found[0]


def _parquet(path: Path) -> list[tuple[str, Row]]:
    try:
        table = pq.read_table(places.source(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from None
    check_columns(table.schema.names, GUITAR_COLUMNS, path)
    return [
        (f"{path} row {n}", {column: "" if value is None else str(value).strip() for column, value in row.items()})
        for n, row in enumerate(table.to_pylist(), start=1)
    ]
