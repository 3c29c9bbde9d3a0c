"""What the readers share: folders and the sound in them, paths that stay inside, small CSV tables, notes."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from instrunet.audio.io import EXTENSIONS
from instrunet.data.packed import SUFFIX
from instrunet.errors import DataError

Row = dict[str, str]


def folder_of(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"expected a folder of sound at {root}, found {'a file' if root.exists() else 'nothing'}")
    return root


def name_of(root: Path) -> str:
    """The corpus's name, by which recordings are known: packing does not change it."""
    return root.resolve().name.removesuffix(SUFFIX)


def sounds(root: Path) -> list[Path]:
    """Files below `root` with a sound's extension; `._x.wav`, a Mac's notes on x.wav, is none."""
    found = (path for path in folder_of(root).rglob("*") if path.suffix.lower() in EXTENSIONS)
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def inside(root: Path, name: str, place: str) -> Path:
    """The file that a table names, which must lie in the folder and be spelt in one way only."""
    # `a/../b.wav` and an absolute path would make the same clip another row
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not (root / path).resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{place}: the path {name!r} leaves the folder; keep the sound inside it and name it relative to it"
        )
    return root / path


def rows_of(table: Path, needed: Sequence[str]) -> list[tuple[str, Row]]:
    """(where it stands, row) for the rows of a CSV file, its cells stripped."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(_rows(csv.DictReader(file), needed, table))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not CSV in UTF-8: {error}; save it as such") from None


def check_columns(there: Sequence[str], needed: Sequence[str], table: Path) -> None:
    missing = [column for column in needed if column not in there]
    if missing:
        listed = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise DataError(f"{table} needs the columns {listed}; it lacks {', '.join(missing)}")


def with_notes(frame: pd.DataFrame, *notes: str) -> pd.DataFrame:
    """Things a user should read before trusting a score; `corpora.notes` gives them back."""
    frame.attrs["notes"] = [note for note in notes if note]
    return frame


def _rows(reader: "csv.DictReader[str]", needed: Sequence[str], table: Path) -> Iterator[tuple[str, Row]]:
    columns = list(reader.fieldnames or ())
    check_columns(columns, needed, table)
    for row in reader:
        yield f"{table} line {reader.line_num}", {column: (row[column] or "").strip() for column in columns}
