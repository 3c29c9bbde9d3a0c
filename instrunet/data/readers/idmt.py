"""IDMT-SMT-Guitar's annotations: instrumentRecording/transcription/event, one XML file a recording."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from instrunet.data.readers.common import folder_of, sounds
from instrunet.errors import DataError

FIELDS = ("pitch", "onsetSec", "offsetSec", "fretNumber", "stringNumber", "excitationStyle", "expressionStyle")
# Sonic Visualiser's layers lie among the annotations; they hold no notes and are the only ones with a DOCTYPE.
SONIC_VISUALISER = re.compile(rb"<!DOCTYPE\s+sonic-visualiser\s*>")


@dataclass(frozen=True)
class Event:
    """A note. Paths are relative to the corpus; `fields` are the texts of the annotation, empty where absent."""

    place: str
    subset: str
    audio: str
    annotation: str
    index: int
    onset_s: float
    offset_s: float
    fields: dict[str, str]


def events(root: Path) -> Iterator[Event]:
    by_stem: dict[str, list[Path]] = {}
    for sound in sounds(folder_of(root)):
        by_stem.setdefault(sound.stem, []).append(sound)
    for path in sorted(root.rglob("*.xml")):
        if path.name.startswith(".") or not path.is_file():
            continue
        tree = parse(path)
        if tree is not None and tree.tag == "instrumentRecording":
            audio = _audio(path, tree.findtext("globalParameter/audioFileName") or "", by_stem).relative_to(root)
            for index, node in enumerate(tree.iterfind("transcription/event")):
                yield _event(node, index, path, root, audio)


def parse(path: Path) -> ET.Element | None:
    """The root element; None where the file is a layer of Sonic Visualiser."""
    data = path.read_bytes()
    # Entities are declared in a DOCTYPE alone, so without one nothing expands. expat reads encodings in which ASCII is
    # ASCII, and UTF-16, which is ASCII between zeros.
    plain = data.replace(b"\0", b"")
    if b"<!DOCTYPE" in plain:
        if SONIC_VISUALISER.search(plain) and b"<!ENTITY" not in plain:
            return None
        raise DataError(f"expected an annotation without DOCTYPE in {path}, got one; remove it (entities can explode)")
    try:
        return ET.fromstring(data)
    except (ET.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{path} is not XML that can be read: {error}; correct or remove it") from None


def _event(node: ET.Element, index: int, path: Path, root: Path, audio: Path) -> Event:
    fields = {name: (node.findtext(name) or "").strip() for name in FIELDS}
    annotation = path.relative_to(root)
    place = f"{path} event {index}"
    onset_s, offset_s = (_seconds(place, name, fields[name]) for name in ("onsetSec", "offsetSec"))
    subset = annotation.parts[0] if len(annotation.parts) > 1 else root.resolve().name
    return Event(place, subset, audio.as_posix(), annotation.as_posix(), index, onset_s, offset_s, fields)


def _seconds(place: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise DataError(f"{place}: expected seconds in {name}, got {text or 'nothing'!r}; correct the annotation")
    return value


def _audio(annotation: Path, told: str, by_stem: dict[str, list[Path]]) -> Path:
    """The recording of an annotation: the sound of the same stem, else the one that it names.

    Loaders of this corpus pair by stem; `audioFileName` is at times written as a Windows path, or was copied.
    """
    named = PureWindowsPath(told.strip()).name
    places = (annotation.parent, annotation.parent.parent / "audio", annotation.parent.parent)
    for stem in (annotation.stem, Path(named).stem):
        anywhere = by_stem.get(stem, [])
        near = [path for place in places for path in anywhere if path.parent == place]
        if near or len(anywhere) == 1:
            return (near or anywhere)[0]
        if anywhere:
            raise DataError(
                f"{annotation} may be of {anywhere[0]} or of {anywhere[1]}; keep the one it belongs to beside it"
            )
    # Kept as rows of a file that is missing, which the features job counts and tells
    return annotation.parent / (named or f"{annotation.stem}.wav")
