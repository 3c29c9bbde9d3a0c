"""Folders of labelled sound to manifests: what a corpus may be, the function that reads it, and telling them apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, field_validator

from instrunet.config import Spec
from instrunet.data.manifest import Clip, make
from instrunet.data.places import Place, is_remote
from instrunet.data.readers.common import folder_of, sounds
from instrunet.data.readers.gtzan import GTZAN_NAME, gtzan
from instrunet.data.readers.guitar import guitar_notes, idmt_smt_guitar, is_guitar_table
from instrunet.data.readers.irmas import IRMAS_CLASSES, IRMAS_TRAIN, irmas
from instrunet.data.readers.nsynth import example_files, nsynth
from instrunet.data.readers.openmic import LABELS as OPENMIC_LABELS
from instrunet.data.readers.openmic import openmic
from instrunet.data.readers.ravdess import RAVDESS_NAME, emobox_folds, ravdess
from instrunet.data.readers.tables import class_folders, csv_folder
from instrunet.data.synth import SynthSpec, write_corpus
from instrunet.errors import DataError

__all__ = ["IRMAS_CLASSES", "class_folders", "csv_folder", "emobox_folds", "gtzan", "guitar_notes"]
__all__ += ["idmt_smt_guitar", "irmas", "nsynth", "openmic", "ravdess"]


class IrmasSpec(Spec):
    """IRMAS: `<class>/*.wav` for training, `.wav` + `.txt` pairs for the published multi-label test."""

    name: Literal["irmas"] = "irmas"
    root: Place


class CsvSpec(Spec):
    """A folder with metadata.csv: path, label (several joined by `;`), group, and a split if it has one."""

    name: Literal["csv"] = "csv"
    root: Place


class FolderSpec(Spec):
    """Class folders: `<label>/**/x.wav`, and groups.csv (path,group) where files share a recording."""

    name: Literal["folder"] = "folder"
    root: Place


class GuitarNotesSpec(Spec):
    """A table of note events (CSV or Parquet) and the recordings that it names, relative to `root`."""

    name: Literal["guitar_notes"] = "guitar_notes"
    root: Place
    table: Path | None = None  # relative to `root`; None: metadata.csv or metadata.parquet


class IdmtSmtGuitarSpec(Spec):
    """IDMT-SMT-Guitar as it is unpacked: dataset1 to dataset4, their XML annotations and audio."""

    name: Literal["idmt_smt_guitar"] = "idmt_smt_guitar"
    root: Place


class RavdessSpec(Spec):
    """RAVDESS, speech and song; `fold`: EmoBox's test actors are the test split."""

    name: Literal["ravdess"] = "ravdess"
    root: Place
    fold: int | None = Field(None, ge=1, le=6)


class GtzanSpec(Spec):
    """GTZAN by the published fault-filtered lists, or all of it split here, by artist if a table says whose it is."""

    name: Literal["gtzan"] = "gtzan"
    root: Place
    lists: bool = True
    artists: Path | None = None  # a CSV of file,artist, relative to `root`


class NsynthSpec(Spec):
    """NSynth: a folder with examples.json and audio/, or the folder of nsynth-train, -valid and -test."""

    name: Literal["nsynth"] = "nsynth"
    root: Place


class OpenmicSpec(Spec):
    """OpenMIC-2018 as it is unpacked."""

    name: Literal["openmic"] = "openmic"
    root: Place


class SynthCorpusSpec(Spec):
    """The embedded corpus, made under `root` if it is not there yet, in IRMAS's layout."""

    name: Literal["synth"] = "synth"
    root: Place = Path("runs/corpora/synth")
    synth: SynthSpec = SynthSpec()

    @field_validator("root")
    @classmethod
    def _is_made_on_a_disk(cls, root: Path) -> Path:
        if is_remote(root):
            raise ValueError(f"the embedded corpus is made in a folder of a disk, got {root}; give a path")
        return root


CorpusSpec = Annotated[
    IrmasSpec
    | CsvSpec
    | FolderSpec
    | GuitarNotesSpec
    | IdmtSmtGuitarSpec
    | RavdessSpec
    | GtzanSpec
    | NsynthSpec
    | OpenmicSpec
    | SynthCorpusSpec,
    Field(discriminator="name"),
]


def synthetic(spec: SynthCorpusSpec) -> pd.DataFrame:
    write_corpus(spec.synth, spec.root)
    return irmas(spec.root).assign(corpus="synth")


# What `data.name` may be, and the function that reads it.
CORPORA: dict[str, Callable[..., pd.DataFrame]] = {
    "irmas": lambda spec: irmas(spec.root),
    "csv": lambda spec: csv_folder(spec.root),
    "folder": lambda spec: class_folders(spec.root),
    "guitar_notes": lambda spec: guitar_notes(spec.root, spec.table),
    "idmt_smt_guitar": lambda spec: idmt_smt_guitar(spec.root),
    "ravdess": lambda spec: ravdess(spec.root, spec.fold),
    "gtzan": lambda spec: gtzan(spec.root, spec.lists, spec.artists),
    "nsynth": lambda spec: nsynth(spec.root),
    "openmic": lambda spec: openmic(spec.root),
    "synth": synthetic,
}


def read(spec: CorpusSpec) -> pd.DataFrame:
    """The manifest of a corpus, its `split` empty where the corpus states none."""
    return CORPORA[spec.name](spec)


def unlabelled(root: Path) -> pd.DataFrame:
    """All the sound of a folder to train on, without its labels; of a corpus that states splits, its training split."""
    try:
        frame = read(recognise(root))
    except DataError:  # nothing tells labels, or not of every file: each is a group then
        clips = [Clip(path, (), path.relative_to(root).as_posix()) for path in sounds(root)]
        frame = make(clips, "unlabelled", root)
    frame = frame[frame["split"].isin(("", "train"))].reset_index(drop=True)
    if frame.empty:
        raise DataError(f"expected sound to train on in {root}, found none (a test split is not taken)")
    return frame.assign(split="train", labels=frame["labels"].map(lambda _: []))


def notes(frame: pd.DataFrame) -> list[str]:
    """What a reader found worth saying of its corpus, before anything is trained on it."""
    return list(frame.attrs.get("notes", ()))


def recognise(folder: Path) -> CorpusSpec:
    """Which corpus a bare folder is: by its table, else by the names of its files, else by class folders."""
    by_table = _by_table(folder_of(folder))
    if by_table:
        return by_table
    files = sounds(folder)
    if not files:
        raise DataError(f"expected labelled sound in {folder} (metadata.csv, or IRMAS's folders), found neither")
    if any(IRMAS_TRAIN.fullmatch(p.stem) or p.with_suffix(".txt").is_file() for p in files if p.suffix == ".wav"):
        return IrmasSpec(root=folder)
    if any(RAVDESS_NAME.fullmatch(path.stem) for path in files):
        return RavdessSpec(root=folder)
    if any(GTZAN_NAME.fullmatch(path.stem) for path in files):
        return GtzanSpec(root=folder)
    if all(path.parent != folder for path in files) and len({p.relative_to(folder).parts[0] for p in files}) > 1:
        return FolderSpec(root=folder)
    raise DataError(
        f"expected labelled sound in {folder} (metadata.csv, class folders, or the names of IRMAS, RAVDESS, GTZAN, "
        f"NSynth or OpenMIC), found {files[0].name}, which tells no label; write metadata.csv (path,label,group)"
    )


def _by_table(folder: Path) -> CorpusSpec | None:
    if is_guitar_table(folder):
        return GuitarNotesSpec(root=folder)
    if (folder / "metadata.csv").is_file():
        return CsvSpec(root=folder)
    if (folder / OPENMIC_LABELS).is_file():
        return OpenmicSpec(root=folder)
    return NsynthSpec(root=folder) if example_files(folder) else None
