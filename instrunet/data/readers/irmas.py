"""IRMAS: instruments in music, its training folders and its multi-label test pairs."""

import codecs
import re
from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import Clip
from instrunet.data.readers.common import folder_of, with_notes
from instrunet.errors import DataError

IRMAS_CLASSES = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
# [NNN__][class](dru|nod)?[genre]RRRR__K: `cla` is clarinet or classical by its position.
IRMAS_TRAIN = re.compile(
    r"(?:\d+__)?\[(?P<label>\w{3})\](?:\[(?P<drums>dru|nod)\])?\[(?P<genre>\w{3}(?:_\w{3})?)\](?P<number>\d+)__\d+"
)
IRMAS_TEST = re.compile(r"(?:\(\d+\)\s*)?(?P<title>.+?)-\d+$")


def irmas(root: Path) -> pd.DataFrame:
    """Group = class and recording number (the number alone recurs across classes); test excerpts by title."""
    files = [p for p in sorted(folder_of(root).rglob("*.wav")) if p.is_file() and not p.name.startswith(".")]
    clips = [_test(p) if p.with_suffix(".txt").is_file() else _train(p) for p in files]
    if not clips:
        raise DataError(f"expected IRMAS class folders ({' '.join(IRMAS_CLASSES)}) under {root}, found no .wav file")
    filled = {folder for path in files for folder in path.parents}
    empty = [p.name for p in sorted(root.rglob("*")) if p.is_dir() and p.name in IRMAS_CLASSES and p not in filled]
    if empty:
        raise DataError(f"class {empty[0]!r} has a folder under {root} but no clips; fill it or remove the folder")
    frame = manifest.make(clips, "irmas", root)
    return with_notes(frame, _twins(frame))


def _twins(frame: pd.DataFrame) -> str:
    """About 56 pairs of the real set are byte-identical, 9 of them with conflicting labels: no name tells which."""
    readable = frame[frame["sha256"] != ""]
    n_twins = int(readable["sha256"].duplicated().sum())
    if not n_twins:
        return ""
    return f"{n_twins} files of IRMAS repeat another byte for byte (the real set has about 56 such pairs); audit them"


def _train(path: Path) -> Clip:
    match = IRMAS_TRAIN.fullmatch(path.stem)
    if not match or match["label"] not in IRMAS_CLASSES:
        raise DataError(
            f"expected a name like [cel][nod][cla]0001__2.wav, or a .txt of labels beside it, got {path.name}"
        )
    drums = {"dru": ["drums=yes"], "nod": ["drums=no"]}.get(match["drums"], [])
    traits = [f"genre={match['genre']}", *drums]
    return Clip(path, [match["label"]], f"{match['label']}/{match['number']}", traits=traits)


def _test(path: Path) -> Clip:
    # Latin-1 takes any byte: what is no label then is said to be none, whatever its encoding was
    labels = path.with_suffix(".txt").read_bytes().removeprefix(codecs.BOM_UTF8).decode("latin-1").split()
    unknown = [label for label in labels if label not in IRMAS_CLASSES]
    if unknown or not labels:
        came = f"the label {unknown[0]!r}" if unknown else "no label"
        raise DataError(f"{path.with_suffix('.txt')} holds {came}; expected one of {' '.join(IRMAS_CLASSES)} a line")
    match = IRMAS_TEST.fullmatch(path.stem)
    return Clip(path, labels, f"test/{match['title'] if match else path.stem}", split="official")
