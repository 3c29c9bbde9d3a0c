"""Names of files: which are sound's, and in which order they stand."""

from instrunet.audio.io import EXTENSIONS


def is_sound(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and f".{ending.lower()}" in EXTENSIONS


def in_order(name: str) -> str:
    """`a/b` before `a.wav`."""
    return name.replace("/", "\0")
