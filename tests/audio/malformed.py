"""Malformed and odd sound files by recipe, and the mutator: all from a seed, each with the status that it must get."""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

RATE = 22_050
SECONDS = 3.0
Edit = tuple[Any, ...]


@dataclass(frozen=True)
class Kind:
    """A file's name, the status it must get ("" for whole), and how it is made: of which sound, with which edits."""

    name: str
    status: str
    base: str = "pcm16"
    edits: tuple[Edit, ...] = ()
    flags: tuple[str, ...] = ()
    error: str = ""


# name: (extension, container, subtype)
BASES = {
    "pcm8": ("wav", "WAV", "PCM_U8"),
    "pcm16": ("wav", "WAV", "PCM_16"),
    "pcm24": ("wav", "WAV", "PCM_24"),
    "pcm32": ("wav", "WAV", "PCM_32"),
    "float": ("wav", "WAV", "FLOAT"),
    "double": ("wav", "WAV", "DOUBLE"),
    "alaw": ("wav", "WAV", "ALAW"),
    "ulaw": ("wav", "WAV", "ULAW"),
    "wavex": ("wav", "WAVEX", "PCM_16"),
    "rf64": ("wav", "RF64", "PCM_16"),
    "w64": ("w64", "W64", "PCM_16"),
    "aiff": ("aiff", "AIFF", "PCM_16"),
    "au": ("au", "AU", "PCM_16"),
    "caf": ("caf", "CAF", "PCM_16"),
    "flac": ("flac", "FLAC", "PCM_16"),
    "flac8": ("flac", "FLAC", "PCM_S8"),
    "flac24": ("flac", "FLAC", "PCM_24"),
    "ogg": ("ogg", "OGG", "VORBIS"),
    "opus": ("opus", "OGG", "OPUS"),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III"),
}
CUT_DEEP = {("ogg", 0.1): "corrupt", ("opus", 0.1): "corrupt", ("caf", 0.1): "corrupt", ("caf", 0.5): "corrupt"}
ID3 = b"ID3\4\0\0\0\0\x02\0" + bytes(256)
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")


def _cuts() -> Iterator[Kind]:
    """Every container whole, cut in its header, and cut in its sound."""
    for base, (extension, _, _) in BASES.items():
        yield Kind(f"{base}_whole.{extension}", "", base)
        yield Kind(f"{base}_cut_in_header.{extension}", "corrupt", base, (("keep", 20),))
        for share in (0.1, 0.5, 0.99):
            status = CUT_DEEP.get((base, share), "damaged")
            yield Kind(f"{base}_cut_at_{share:.0%}.{extension}", status, base, (("cut", share),))


def _samples() -> Iterator[Kind]:
    """What is odd in the samples, not in the container."""
    for rate in (4000, 8000, 44_100, 96_000, 192_000):
        yield Kind(f"rate_{rate}.wav", "", "float", (("rate", rate),))
    for channels in (2, 6, 8):
        yield Kind(f"channels_{channels}.wav", "", "pcm16", (("channels", channels),))
    yield Kind("channels_8.flac", "", "flac", (("channels", 8),))
    for value in ("nan", "inf", "-inf", "3e38"):
        yield Kind(f"some_{value}.wav", "", "float", (("value", 100, float(value)),), ("nonfinite",))
    yield Kind("nan_in_double.wav", "", "double", (("value", 9, float("nan")),), ("nonfinite",))
    yield Kind("all_nan.wav", "silent", "float", (("scale", float("nan")),), ("nonfinite",))
    for base in ("pcm16", "flac", "ogg", "mp3"):
        yield Kind(f"silent.{BASES[base][0]}", "silent", base, (("scale", 0.0),))
    yield Kind("below_hearing.wav", "silent", "float", (("scale", 1e-5),))
    yield Kind("dc.wav", "", "float", (("offset", 0.3),), ("dc",))
    yield Kind("only_dc.wav", "", "float", (("scale", 0.0), ("offset", 0.5)), ("dc",))
    yield Kind("clipped.wav", "", "pcm16", (("scale", 20.0),), ("clipped",))
    yield Kind("too_loud.wav", "", "float", (("scale", 20.0),), ("out_of_range",))
    for base in ("pcm16", "float", "flac", "aiff", "w64", "au"):
        yield Kind(f"one_sample_{base}.{BASES[base][0]}", "too_short", base, (("frames", 1),), ("dc",))
    for base in ("pcm16", "float", "aiff", "au", "w64", "rf64"):
        yield Kind(f"no_sample_{base}.{BASES[base][0]}", "too_short", base, (("frames", 0),))


def _lengths() -> Iterator[Kind]:
    """Lengths that the container states: wrong, left open, absurd."""
    less, more = SECONDS * RATE // 2, SECONDS * RATE * 4
    for base, at in (("pcm16", 40), ("alaw", 54)):
        for name, size in (("shorter", less), ("longer", more), ("huge", 2**31)):
            edit = ("number", at, "<I", int(size))
            yield Kind(f"{base}_declares_{name}.wav", "damaged", base, (edit,), (), "than its header promises")
    yield Kind("both_sizes_shorter.wav", "damaged", "pcm16", (("number", 40, "<I", 9000), ("number", 4, "<I", 9036)))
    yield Kind("au_declares_huge.au", "damaged", "au", (("number", 8, ">I", 2**31),))
    yield Kind("au_declares_shorter.au", "damaged", "au", (("number", 8, ">I", 9000),))
    yield Kind("aiff_declares_huge.aiff", "damaged", "aiff", (("number", 42, ">I", 2**30),))
    yield Kind("aiff_counts_more.aiff", "damaged", "aiff", (("number", 22, ">I", 10**6),), (), "fewer than its header")
    yield Kind("w64_declares_years.w64", "damaged", "w64", (("after", b"data", 16, "<Q", 2**60),))
    yield Kind("rf64_declares_years.wav", "damaged", "rf64", (("number", 28, "<Q", 2**60),))
    yield Kind("flac_declares_weeks.flac", "damaged", "flac", (("flac_frames", 2**36 - 1),))
    yield Kind("flac_declares_shorter.flac", "damaged", "flac", (("flac_frames", 9000),), (), "MD5")
    for size in (0, 0x7FFFF000, 2**32 - 1):
        edits = (("number", 4, "<I", size), ("number", 40, "<I", size))
        yield Kind(f"open_{size:x}.wav", "", "pcm16", edits, ("open_length",))
    yield Kind("open_rf64.wav", "", "rf64", (("number", 20, "<Q", 2**64 - 1), ("number", 28, "<Q", 2**64 - 1)),
               ("open_length",))  # fmt: skip
    yield Kind("open.au", "", "au", (("number", 8, ">I", 2**32 - 1),), ("open_length",))
    yield Kind("open_0.au", "", "au", (("number", 8, ">I", 0),), ("open_length",))
    yield Kind("open_0.w64", "", "w64", (("after", b"data", 16, "<Q", 0), ("number", 16, "<Q", 0)), ("open_length",))
    yield Kind(
        "open_0.aiff",
        "",
        "aiff",
        (("number", 42, ">I", 0), ("number", 4, ">I", 0), ("number", 22, ">I", 0)),
        ("open_length",),
    )
    yield Kind("open.caf", "", "caf", (("after", b"data", 4, ">q", -1),), ("open_length",))
    yield Kind("open.flac", "", "flac", (("flac_frames", 0),))
    yield Kind("riff_size_wrong.wav", "", "pcm16", (("number", 4, "<I", 12345),))
    yield Kind("header_alone.wav", "corrupt", "pcm16", (("keep", 44),))
    yield Kind("header_alone.flac", "corrupt", "flac", (("keep", 42),))


def _contents() -> Iterator[Kind]:
    """Headers with absurd numbers, flipped bytes, tags and garbage around the sound."""
    for rate in (0, 1, 7, 999, 768_001, 2**31 - 1):
        yield Kind(f"header_rate_{rate}.wav", "corrupt", "pcm16", (("number", 24, "<I", rate),))
    for channels in (0, 65, 1000, 65_535):
        yield Kind(f"header_channels_{channels}.wav", "corrupt", "pcm16", (("number", 22, "<H", channels),))
    yield Kind("no_such_codec.wav", "corrupt", "pcm16", (("number", 20, "<H", 0x4242),))
    for base in ("flac", "flac8", "flac24"):
        yield Kind(f"wrong_md5_{base}.flac", "damaged", base, (("flip", 30),), (), "MD5")
        yield Kind(f"no_md5_{base}.flac", "", base, (("bytes", 26, bytes(16)),))
    yield Kind("flipped.flac", "damaged", "flac", (("flip", 0.5),))
    yield Kind("flipped.ogg", "damaged", "ogg", (("flip", 0.7),))
    yield Kind("flipped_last_page.ogg", "damaged", "ogg", (("flip", -20),))
    yield Kind("no_end_of_stream.ogg", "damaged", "ogg", (("last_page",),), (), "end-of-stream")
    yield Kind("flipped.wav", "", "pcm16", (("flip", 0.5),))  # nothing in a WAV could tell
    for base in ("pcm16", "flac", "mp3", "aiff", "ogg"):
        extension = BASES[base][0]
        yield Kind(f"garbage_behind.{extension}", "", base, (("append", 1000),))
    for base in ("flac", "mp3", "pcm16"):
        yield Kind(f"id3_in_front.{BASES[base][0]}", "", base, (("front", ID3),))
    yield Kind("id3_in_front_and_cut.wav", "damaged", "pcm16", (("front", ID3), ("cut", 0.6)))
    yield Kind("id3v1_behind.mp3", "", "mp3", (("back", ID3V1),))
    yield Kind("info_behind.wav", "", "pcm16", (("back", b"LIST\4\0\0\0INFO"), ("riff",)))
    yield Kind("info_behind_cut.wav", "", "pcm16", (("back", b"LIST\x40\0\0\0INFO"), ("riff",)))
    for base, name in (("flac", "wav"), ("mp3", "wav"), ("pcm16", "mp3"), ("ogg", "flac"), ("aiff", "ogg")):
        yield Kind(f"{base}_named.{name}", "", base)


def _names() -> Iterator[Kind]:
    """What is no file of sound at all, and names."""
    for extension in ("wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "caf"):
        yield Kind(f"empty.{extension}", "corrupt", "", (("keep", 0),))
    for name, content in (("text", b"dear reader\n" * 99), ("zeros", bytes(9999)), ("ones", b"\xff" * 9999)):
        yield Kind(f"{name}.wav", "corrupt", "", (("back", content),))
    yield Kind("noise.wav", "corrupt", "", (("append", 9999),))
    yield Kind("three_bytes.mp3", "corrupt", "", (("back", b"\xff\xfb\x90"),))
    yield Kind("page.mp3", "corrupt", "", (("back", b"<!DOCTYPE html><title>404</title>" * 40),))
    for kind in ("folder", "pipe", "loop", "dangling", "device", "missing", "socket_like_name\0"):
        yield Kind(f"{kind}.wav", "unreadable", f"/{kind}")
    yield Kind("x" * 300 + ".wav", "unreadable", "/missing")
    for name in (
        "ünï 箏 🎻.wav",
        " leading space.wav",
        "new\nline.wav",
        "not_utf8_\udcff\udcfe.wav",
        "-rf.wav",
        "%s%n.wav",
    ):
        yield Kind(name, "")


KINDS = [*_cuts(), *_samples(), *_lengths(), *_contents(), *_names()]


def make(kind: Kind, folder: Path) -> Path:
    path = folder / kind.name
    if kind.base.startswith("/"):
        return _no_file(kind.base, path)
    rng = np.random.default_rng(len(kind.name))
    content = bytearray(_encoded(kind, folder) if kind.base else b"")
    for edit in kind.edits:
        if edit[0] in EDITS:
            content = EDITS[edit[0]](content, rng, *edit[1:])
    path.write_bytes(content)
    return path


def mutated(original: bytes, rng: np.random.Generator) -> bytes:
    """A copy with up to eight faults: bytes changed (mostly in the header), stretches cut out, doubled or blanked."""
    data = bytearray(original)
    for _ in range(int(rng.integers(1, 9))):
        size = max(1, len(data))
        at = int(rng.integers(0, min(size, int(rng.choice([64, 512, size])))))
        n = int(rng.integers(1, int(rng.choice([2, 8, 4096]))))
        match int(rng.integers(0, 8)):
            case 0:
                del data[at : at + n]
            case 1:
                data[at:at] = data[at : at + n]
            case 2:
                data[at : at + n] = bytes(len(data[at : at + n]))
            case 3:
                del data[int(rng.integers(0, size)) :]
            case 4:
                data[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])).to_bytes(4, "little")
            case _:
                data[at : at + 1] = rng.bytes(1)
    return bytes(data)


def _encoded(kind: Kind, folder: Path) -> bytes:
    told = {edit[0]: edit[1:] for edit in kind.edits}
    _, container, subtype = BASES[kind.base]
    rate = told.get("rate", (48_000 if kind.base == "opus" else RATE,))[0]
    rng = np.random.default_rng(1)
    n, channels = told.get("frames", (round(SECONDS * rate),))[0], told.get("channels", (1,))[0]
    wave = 0.05 * rng.standard_normal((n, channels)) + 0.2 * np.sin(np.arange(n) * 2 * np.pi * 440 / rate)[:, None]
    wave = wave * told.get("scale", (1.0,))[0] + told.get("offset", (0.0,))[0]
    if "value" in told:
        wave[told["value"][0]] = told["value"][1]
    path = folder / ".encoded"
    sf.write(path, wave.astype(np.float32) if subtype != "DOUBLE" else wave, rate, format=container, subtype=subtype)
    return path.read_bytes()


def _no_file(what: str, path: Path) -> Path:
    if what == "/folder":
        path.mkdir()
    elif what == "/pipe":
        os.mkfifo(path)
    elif what in ("/loop", "/dangling", "/device"):
        path.symlink_to({"/loop": path, "/dangling": path.with_suffix(".gone"), "/device": Path("/dev/zero")}[what])
    return path


def _number(data: bytearray, _: Any, at: int, form: str, value: int) -> bytearray:
    struct.pack_into(form, data, at, value)
    return data


def _after(data: bytearray, rng: Any, name: bytes, skip: int, form: str, value: int) -> bytearray:
    return _number(data, rng, data.index(name) + skip, form, value)


def _bytes(data: bytearray, _: Any, at: int, value: bytes) -> bytearray:
    return data[:at] + value + data[at + len(value) :]


def _flip(data: bytearray, _: Any, at: float) -> bytearray:
    data[int(at * len(data)) if 0 < at < 1 else int(at)] ^= 0x5A
    return data


def _flac_frames(data: bytearray, _: Any, n: int) -> bytearray:
    data[21] = (data[21] & 0xF0) | (n >> 32)
    return _bytes(data, _, 22, (n & 0xFFFFFFFF).to_bytes(4, "big"))


EDITS: dict[str, Callable[..., bytearray]] = {
    "keep": lambda data, _, n: data[:n],
    "cut": lambda data, _, share: data[: int(len(data) * share)],
    "number": _number,
    "after": _after,
    "bytes": _bytes,
    "flip": _flip,
    "flac_frames": _flac_frames,
    "last_page": lambda data, _: data[: data.rindex(b"OggS")],
    "append": lambda data, rng, n: data + rng.bytes(n),
    "front": lambda data, _, tag: tag + data,
    "back": lambda data, _, tag: data + tag,
    "riff": lambda data, rng: _number(data, rng, 4, "<I", len(data) - 8),
}
