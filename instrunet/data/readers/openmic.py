"""OpenMIC-2018: ten-second excerpts with instruments as a crowd heard them."""

import json
import math
import re
from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import Clip
from instrunet.data.readers.common import folder_of, rows_of, with_notes
from instrunet.errors import DataError

LABELS = "openmic-2018-aggregated-labels.csv"
KEY = re.compile(r"(?P<track>\d+)_\d+")  # track of the Free Music Archive, and the sample where the excerpt begins
RELEVANCE = 0.5  # the published baseline's threshold


def openmic(root: Path) -> pd.DataFrame:
    """Multi-label: what the crowd heard with relevance 0.5 or more; group = track; the test list is `official`.

    A manifest has no third value, so an instrument that nobody was asked about counts as absent.
    """
    table = folder_of(root) / LABELS
    if not table.is_file():
        raise DataError(f"expected {LABELS} (sample_key,instrument,relevance) in {root}, found none; unpack it there")
    heard = _relevances(table, _classes(root / "class-map.json"))
    positive = {key: [name for name, value in of.items() if value >= RELEVANCE] for key, of in heard.items()}
    official = _keys(root / "partitions" / "split01_test.csv")
    train = _keys(root / "partitions" / "split01_train.csv")
    if shared := official & train:
        raise DataError(f"{min(shared)} is in both lists of {root / 'partitions'}; keep it in one")
    clips = [_clip(root, key, labels, official) for key, labels in positive.items() if labels]
    if not clips:
        raise DataError(f"{table} has no instrument of relevance {RELEVANCE:g} or more; expected 41 thousand rows")
    n_left = len(positive) - len(clips)
    left = f"{n_left} excerpts have no instrument of relevance {RELEVANCE:g} and are left out" if n_left else ""
    return with_notes(manifest.make(clips, "openmic", root), left)


def _clip(root: Path, key: str, labels: list[str], official: set[str]) -> Clip:
    near = [root / "audio" / key[:3] / f"{key}{suffix}" for suffix in (".ogg", ".wav", ".flac", ".mp3")]
    path = next((path for path in near if path.is_file()), near[0])
    return Clip(path, labels, key.split("_")[0], "official" if key in official else "")


def _relevances(table: Path, classes: set[str]) -> dict[str, dict[str, float]]:
    """Relevance by excerpt and instrument; a row that comes again replaces the first."""
    heard: dict[str, dict[str, float]] = {}
    for place, row in rows_of(table, ("sample_key", "instrument", "relevance")):
        key, instrument = _key(place, row["sample_key"]), row["instrument"]
        if not instrument or (classes and instrument not in classes):
            raise DataError(f"{place}: the instrument {instrument!r} is not in class-map.json; correct either")
        try:
            value = float(row["relevance"])
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise DataError(f"{place}: expected a relevance from 0 to 1, got {row['relevance']!r}; correct it")
        heard.setdefault(key, {})[instrument] = value
    return heard


def _classes(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    try:
        classes = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON that can be read: {error}; fetch it again") from None
    if not isinstance(classes, dict) or not classes:
        raise DataError(f"{path} is no class map; expected an object of INSTRUMENT: column")
    return set(classes)


def _keys(path: Path) -> set[str]:
    """The excerpts of a list without a header, one a line; empty where there is no list."""
    if not path.is_file():
        return set()
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").split()
    return {_key(f"{path} line {n}", line) for n, line in enumerate(lines, start=1)}


def _key(place: str, key: str) -> str:
    if not KEY.fullmatch(key):
        raise DataError(f"{place}: expected a sample key like 000046_3840 (track_start), got {key!r}; correct it")
    return key
