"""Folders of labelled sound to manifests: one function a corpus, each saying what its names mean."""

import codecs
import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from instrunet.config import Spec
from instrunet.data import manifest
from instrunet.data.manifest import SPLITS, Clip
from instrunet.data.synth import SynthSpec, write_corpus
from instrunet.errors import DataError

IRMAS_CLASSES = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
# [NNN__][class](dru|nod)?[genre]RRRR__K: `cla` is clarinet or classical by its position.
IRMAS_TRAIN = re.compile(r"(?:\d+__)?\[(?P<label>\w{3})\](?:\[(?:dru|nod)\])?\[\w{3}(?:_\w{3})?\](?P<number>\d+)__\d+")
IRMAS_TEST = re.compile(r"(?:\(\d+\)\s*)?(?P<title>.+?)-\d+$")


class IrmasSpec(Spec):
    """IRMAS: `<class>/*.wav` for training, `.wav` + `.txt` pairs for the published multi-label test."""

    name: Literal["irmas"] = "irmas"
    root: Path


class CsvSpec(Spec):
    """A folder with metadata.csv: path, label (several joined by `;`), group, and a split if it has one."""

    name: Literal["csv"] = "csv"
    root: Path


class SynthCorpusSpec(Spec):
    """The embedded corpus, made under `root` if it is not there yet, in IRMAS's layout."""

    name: Literal["synth"] = "synth"
    root: Path = Path("runs/corpora/synth")
    synth: SynthSpec = SynthSpec()


CorpusSpec = Annotated[IrmasSpec | CsvSpec | SynthCorpusSpec, Field(discriminator="name")]


def irmas(root: Path) -> pd.DataFrame:
    """Group = class and recording number (the number alone recurs across classes); test excerpts by title."""
    files = [p for p in sorted(_folder(root).rglob("*.wav")) if p.is_file() and not p.name.startswith(".")]
    clips = [_irmas_test(p) if p.with_suffix(".txt").is_file() else _irmas_train(p) for p in files]
    if not clips:
        raise DataError(f"expected IRMAS class folders ({' '.join(IRMAS_CLASSES)}) under {root}, found no .wav file")
    filled = {folder for path in files for folder in path.parents}
    empty = [p.name for p in sorted(root.rglob("*")) if p.is_dir() and p.name in IRMAS_CLASSES and p not in filled]
    if empty:
        raise DataError(f"class {empty[0]!r} has a folder under {root} but no clips; fill it or remove the folder")
    return manifest.make(clips, "irmas", root)


def csv_folder(root: Path) -> pd.DataFrame:
    table = _folder(root) / "metadata.csv"
    if not table.is_file():
        raise DataError(
            f"expected metadata.csv (path,label,group) in {root}, found none; write one or use data.name=irmas"
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            clips = list(_csv_clips(csv.DictReader(file), root, table))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not CSV in UTF-8: {error}; save it as such") from None
    if not clips:
        raise DataError(f"{table} lists no clips; add rows of path,label,group")
    return manifest.make(clips, root.resolve().name, root)


def synthetic(spec: SynthCorpusSpec) -> pd.DataFrame:
    write_corpus(spec.synth, spec.root)
    return irmas(spec.root).assign(corpus="synth")


# What `data.name` may be, and the function that reads it.
CORPORA: dict[str, Callable[..., pd.DataFrame]] = {
    "irmas": lambda spec: irmas(spec.root),
    "csv": lambda spec: csv_folder(spec.root),
    "synth": synthetic,
}


def read(spec: CorpusSpec) -> pd.DataFrame:
    """The manifest of a corpus, its `split` empty where the corpus states none."""
    return CORPORA[spec.name](spec)


def recognise(folder: Path) -> CorpusSpec:
    """Which corpus a bare folder is."""
    if (_folder(folder) / "metadata.csv").is_file():
        return CsvSpec(root=folder)
    if next(folder.rglob("*.wav"), None) is not None:
        return IrmasSpec(root=folder)
    raise DataError(f"expected labelled sound in {folder} (metadata.csv, or IRMAS's folders), found neither")


def _irmas_train(path: Path) -> Clip:
    match = IRMAS_TRAIN.fullmatch(path.stem)
    if not match or match["label"] not in IRMAS_CLASSES:
        raise DataError(
            f"expected a name like [cel][nod][cla]0001__2.wav, or a .txt of labels beside it, got {path.name}"
        )
    return Clip(path, [match["label"]], f"{match['label']}/{match['number']}")


def _irmas_test(path: Path) -> Clip:
    # Latin-1 takes any byte: what is no label then is said to be none, whatever its encoding was
    labels = path.with_suffix(".txt").read_bytes().removeprefix(codecs.BOM_UTF8).decode("latin-1").split()
    unknown = [label for label in labels if label not in IRMAS_CLASSES]
    if unknown or not labels:
        came = f"the label {unknown[0]!r}" if unknown else "no label"
        raise DataError(f"{path.with_suffix('.txt')} holds {came}; expected one of {' '.join(IRMAS_CLASSES)} a line")
    match = IRMAS_TEST.fullmatch(path.stem)
    return Clip(path, labels, f"test/{match['title'] if match else path.stem}", split="official")


def _csv_clips(reader: "csv.DictReader[str]", root: Path, table: Path) -> Iterator[Clip]:
    missing = [c for c in ("path", "label", "group") if c not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{table} needs the columns path, label and group; it lacks {', '.join(missing)}")
    inside = root.resolve()
    for row in reader:
        place, name = f"{table} line {reader.line_num}", (row["path"] or "").strip()
        labels = [label.strip() for label in (row["label"] or "").split(";") if label.strip()]
        split, group = (row.get("split") or "").strip(), (row["group"] or "").strip()
        _check_row(place, labels, group, split)
        if not name:
            raise DataError(f"{place}: the path is empty; name a sound file, relative to the folder")
        # Spelt in one way only: `a/../b.wav` and an absolute path would make the same clip another row
        if Path(name).is_absolute() or ".." in Path(name).parts or not (root / name).resolve().is_relative_to(inside):
            raise DataError(
                f"{place}: the path {name!r} leaves the folder; keep the sound inside it and name it relative to it"
            )
        yield Clip(root / name, labels, group, split)


def _check_row(place: str, labels: list[str], group: str, split: str) -> None:
    if not labels:
        raise DataError(f"{place}: the label is empty; name a class, or several joined by ';'")
    if not group:
        raise DataError(f"{place}: the group is empty; name the recording, speaker or player")
    if split and split not in SPLITS:
        raise DataError(f"{place}: the split is {split!r}; use one of {', '.join(SPLITS)}, or leave it empty")


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"expected a folder of sound at {root}, found {'a file' if root.exists() else 'nothing'}")
    return root
