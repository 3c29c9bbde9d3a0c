"""Names of files: which are sound's, in which order they stand, and whether they can be written down."""

from pathlib import Path

from instrunet.audio.io import EXTENSIONS, DecodeError
from instrunet.data import places


def is_sound(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and f".{ending.lower()}" in EXTENSIONS


def in_order(name: str) -> str:
    """`a/b` before `a.wav`."""
    return name.replace("/", "\0")


def as_text(path: Path | str) -> str:
    """A path as valid Unicode, which Parquet and terminals insist on."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def check_name(path: Path | str) -> None:
    """soundfile opens no other names, and what stands in a row could not be turned back into them."""
    if as_text(path) != str(path):
        raise DecodeError("unreadable", f"expected a name in UTF-8, got {as_text(path)}; rename it")
    if not isinstance(path, str) and not places.is_as_named(path):
        raise DecodeError("unreadable", f"{path} is not how its store spells it (// or /./ in its name); rename it")
