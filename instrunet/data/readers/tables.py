"""Corpora of one's own: a folder with metadata.csv, or a folder of class folders."""

from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import SPLITS, Clip
from instrunet.data.readers.common import Row, folder_of, inside, name_of, rows_of, sounds, with_notes
from instrunet.errors import DataError

COLUMNS = ("path", "label", "group", "split")  # of metadata.csv; all others are traits


def csv_folder(root: Path) -> pd.DataFrame:
    table = folder_of(root) / "metadata.csv"
    if not table.is_file():
        raise DataError(
            f"expected metadata.csv (path,label,group) in {root}, found none; write one or use data.name=irmas"
        )
    clips = [_csv_clip(place, row, root) for place, row in rows_of(table, ("path", "label", "group"))]
    if not clips:
        raise DataError(f"{table} lists no clips; add rows of path,label,group")
    return manifest.make(clips, name_of(root), root)


def class_folders(root: Path) -> pd.DataFrame:
    """The first folder's name is the label; groups.csv (path,group) says which files are of one recording."""
    files = sounds(root)
    if not files:
        raise DataError(f"expected class folders of sound under {root} (LABEL/x.wav), found no sound file")
    loose = [path for path in files if path.parent == root]
    if loose:
        raise DataError(
            f"expected every sound of {root} in a folder named as its class, got {loose[0].name} beside them"
        )
    groups = _groups(root)
    names = [path.relative_to(root).as_posix() for path in files]
    ungrouped = [name for name in names if groups and name not in groups]
    if ungrouped:
        raise DataError(f"{root / 'groups.csv'} gives no group for {ungrouped[0]}; add a row path,group for each file")
    clips = [
        Clip(path, [path.relative_to(root).parts[0]], groups.get(name, name))
        for path, name in zip(files, names, strict=True)
    ]
    unknown = f"no grouping is known of {root}: excerpts of one recording may fall on both sides of a split"
    note = "" if groups else f"{unknown}; write groups.csv (path,group) if files share one"
    return with_notes(manifest.make(clips, name_of(root), root), note)


def check_split(place: str, split: str) -> str:
    if split and split not in SPLITS:
        raise DataError(f"{place}: the split is {split!r}; use one of {', '.join(SPLITS)}, or leave it empty")
    return split


def _csv_clip(place: str, row: Row, root: Path) -> Clip:
    labels = [label.strip() for label in row["label"].split(";") if label.strip()]
    if not labels:
        raise DataError(f"{place}: the label is empty; name a class, or several joined by ';'")
    if not row["group"]:
        raise DataError(f"{place}: the group is empty; name the recording, speaker or player")
    split = check_split(place, row.get("split", ""))
    if not row["path"]:
        raise DataError(f"{place}: the path is empty; name a sound file, relative to the folder")
    traits = [f"{name}={value}" for name, value in row.items() if name and name not in COLUMNS and value]
    return Clip(inside(root, row["path"], place), labels, row["group"], split, traits=traits)


def _groups(root: Path) -> dict[str, str]:
    """Group by path; empty where there is no groups.csv."""
    table, groups = root / "groups.csv", dict[str, str]()
    for place, row in rows_of(table, ("path", "group")) if table.is_file() else []:
        if not row["path"] or not row["group"]:
            raise DataError(f"{place}: the {'group' if row['path'] else 'path'} is empty; give both path and group")
        name = inside(root, row["path"], place).relative_to(root).as_posix()
        if groups.setdefault(name, row["group"]) != row["group"]:
            raise DataError(f"{place}: {name} is of group {groups[name]!r} and of {row['group']!r}; keep one of them")
    if table.is_file() and not groups:
        raise DataError(f"{table} lists no files; add rows of path,group or remove it")
    return groups
