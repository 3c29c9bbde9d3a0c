"""GTZAN: a thousand excerpts in ten genres, and the published lists without its faults and shared artists."""

import re
from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import Clip
from instrunet.data.readers.common import rows_of, sounds, with_notes
from instrunet.errors import DataError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
GTZAN_NAME = re.compile(rf"(?P<genre>{'|'.join(GENRES)})\.\d{{5}}")


def gtzan(root: Path, lists: bool = True, artists: Path | None = None) -> pd.DataFrame:
    """Genre from the name. With `lists`, only the 930 excerpts of the fault-filtered split, on its sides."""
    files = sounds(root)
    if not files:
        raise DataError(f"expected GTZAN's genre folders (blues/blues.00000.wav) under {root}, found no sound file")
    genres = {path: _genre(path) for path in files}
    groups, sides = _artists(root, artists) if artists else {}, _sides() if lists else {}
    kept = [path for path in files if not lists or path.stem in sides]
    if not kept:
        raise DataError(f"none of the {len(files)} files under {root} is in the published lists; set data.lists=false")
    nobody = [path.stem for path in kept if artists and path.stem not in groups]
    if nobody:
        raise DataError(f"{artists} gives no artist for {nobody[0]}; add a row file,artist for each excerpt")
    clips = [Clip(p, [genres[p]], groups.get(p.stem, p.stem), sides.get(p.stem, "")) for p in kept]
    alone = "" if lists or artists else "excerpts of one artist may fall on both sides of a split; set data.artists"
    n_left = len(files) - len(kept)
    left = f"{n_left} files are not in GTZAN's fault-filtered lists and are left out" if n_left else ""
    return with_notes(manifest.make(clips, "gtzan", root), left, alone)


def _genre(path: Path) -> str:
    match = GTZAN_NAME.fullmatch(path.stem)
    if not match:
        raise DataError(f"expected a name like blues.00000.wav (genres: {' '.join(GENRES)}), got {path.name}")
    if path.parent.name in GENRES and path.parent.name != match["genre"]:
        raise DataError(f"{path.name} lies in the folder {path.parent.name!r}; expected it in {match['genre']!r}")
    return match["genre"]


def _sides() -> dict[str, str]:
    from torchaudio.datasets import gtzan as published  # it brings torch, 2 s

    lists = (("train", published.filtered_train), ("val", published.filtered_valid), ("test", published.filtered_test))
    return {stem: side for side, stems in lists for stem in stems}


def _artists(root: Path, artists: Path) -> dict[str, str]:
    """Artist by excerpt: a table of file,artist, where `blues.00000.wav` and `blues.00000` name the same one."""
    table, known = root / artists, dict[str, str]()
    if not table.is_file():
        raise DataError(f"expected the table of artists (file,artist) at {table}, found none; correct data.artists")
    for place, row in rows_of(table, ("file", "artist")):
        match = GTZAN_NAME.match(Path(row["file"]).name)
        if not match or not row["artist"]:
            raise DataError(f"{place}: expected a file like blues.00000.wav and its artist, got {row['file']!r}")
        known[match.group()] = f"artist/{row['artist']}"
    return known
