"""Names of files: which are sound's."""

from instrunet.audio.io import EXTENSIONS


def is_sound(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and f".{ending.lower()}" in EXTENSIONS
