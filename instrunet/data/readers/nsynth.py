"""NSynth: single notes of a thousand instruments, examples.json beside a folder of audio."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import Clip
from instrunet.data.readers.common import folder_of, inside
from instrunet.errors import DataError

SIDES = {"nsynth-train": "train", "nsynth-valid": "val", "nsynth-test": "test"}  # no instrument of train in another


def nsynth(root: Path) -> pd.DataFrame:
    """Label = instrument family, group = instrument. The published sides are kept where all three are there."""
    tables = example_files(folder_of(root))
    if not tables:
        raise DataError(f"expected NSynth's examples.json (beside audio/) in {root} or a folder of it, found none")
    sides = {table.parent.name: SIDES.get(table.parent.name, "") for table in tables}
    whole = set(sides.values()) == set(SIDES.values())
    clips = [clip for table in tables for clip in _clips(table, root, sides[table.parent.name] if whole else "")]
    if not clips:
        raise DataError(f"{tables[0]} lists no notes; expected an object of NOTE: its fields")
    return manifest.make(clips, "nsynth", root)


def example_files(root: Path) -> list[Path]:
    return [path for path in (root / "examples.json", *sorted(root.glob("*/examples.json"))) if path.is_file()]


def _clips(table: Path, root: Path, side: str) -> Iterator[Clip]:
    for note, fields in _examples(table).items():
        place = f"{table} note {note!r}"
        if not isinstance(fields, dict):
            raise DataError(f"{place}: expected an object of fields, got {type(fields).__name__}; correct the file")
        label, group = (_text(place, fields, key) for key in ("instrument_family_str", "instrument_str"))
        path = (table.parent / "audio" / f"{note}.wav").relative_to(root)
        yield Clip(inside(root, str(path), place), [label], group, side)


def _text(place: str, fields: dict[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: expected a text in {key}, got {value!r}; correct the file")
    return value


def _examples(table: Path) -> dict[str, object]:
    try:
        examples = json.loads(table.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{table} is not JSON that can be read: {error}; fetch it again") from None
    if not isinstance(examples, dict):
        raise DataError(f"{table} holds a {type(examples).__name__}; expected an object of NOTE: its fields")
    return examples
