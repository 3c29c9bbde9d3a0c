"""What a container says of itself, held against the file it is in: its header and last bytes, no decoding.

libsndfile shrinks a declared length to the file in silence, so a cut WAV, AIFF, AU, W64, CAF or Ogg reads as whole.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from instrunet.audio.streams import Claims, Source, flac, mp3, ogg

# ffmpeg writes all ones to a pipe, sox 0x7FFFF000, and who is killed before the end leaves 0
OPEN_SIZES = frozenset({0, 0x7FFFF000, 2**32 - 1, 2**64 - 1})
MOST_CHUNKS = 1024
HEAD = 4096  # bytes read at once: all chunks before the sound, nearly always
# Chunks that writers put behind the sound; one of these may itself be cut, the sound before it is whole
KNOWN = frozenset(
    b"LIST id3  ID3  bext iXML cue  smpl fact PEAK JUNK junk PAD  FLLR inst acid DISP cart axml _PMX plst note labl "
    b"NAME AUTH ANNO (c)  COMT MARK INST APPL MIDI AESD COMM FVER CHAN INFO data strg umid uuid mark regn"[k : k + 4]
    for k in range(0, 195, 5)
)


@dataclass(frozen=True)
class Layout:
    """How a family of containers writes a chunk: its name, its size, its content."""

    first: int  # bytes before the first chunk
    order: Literal["little", "big"] = "little"
    n_name: int = 4
    n_size: int = 4
    inclusive: bool = False  # the size counts the chunk's own header
    align: int = 2
    sound: bytes = b"data"
    preamble: int = 0  # bytes of the sound's chunk that are no sound


RIFF = Layout(12)
RIFX = Layout(12, "big")
FORM = Layout(12, "big", sound=b"SSND", preamble=8)
WAVE64 = Layout(40, n_name=16, n_size=8, inclusive=True, align=8)
CAFF = Layout(8, "big", n_size=8, align=1, preamble=4)


@dataclass(frozen=True)
class Chunk:
    name: bytes
    at: int
    size: int


def examine(fd: int) -> Claims:
    """What the file's header and end claim; nothing claimed where no rule knows the format."""
    source = Source(fd, os.fstat(fd).st_size, os.pread(fd, HEAD, 0))
    base = _after_id3(source)
    kind = KINDS.get(source.bytes(base, 4))
    if kind:
        return kind(source, base)
    sync = source.bytes(base, 2)
    return mp3(source, base) if len(sync) == 2 and sync[0] == 0xFF and sync[1] >= 0xE0 else Claims()


def _after_id3(source: Source) -> int:
    """Tags of MP3 players stand before other formats as well, and libsndfile skips them."""
    base = 0
    while source.bytes(base, 3) == b"ID3" and base < source.size:
        size = source.bytes(base + 6, 4)
        base += 10 + sum((byte & 0x7F) << (7 * (3 - k)) for k, byte in enumerate(size))
    return base


def _chunked(layout: Layout, source: Source, base: int) -> Claims:
    sound = wide = common = None
    for chunk in _chunks(source, layout, base + layout.first):
        if chunk.name == b"ds64":  # the sizes of the file and of the sound that 32 bits cannot hold, of RF64
            wide = chunk
        if chunk.name == b"COMM":
            common = chunk
        if chunk.name[:4] == layout.sound:
            sound = chunk
            break
    if sound is None:
        return Claims()
    if wide is None or sound.size != 2**32 - 1:
        claims = _held(source, layout, sound, _end(source, layout, base))
        counted = _counted(source, common) if common and source.bytes(base + 8, 4) == b"AIFF" else 0
        agreed = not counted or counted == claims.declared or claims.declared != claims.held
        return claims if agreed or claims.open_length else Claims(counted, claims.held)
    size, there = source.number(wide.at + 8, 8, "little"), max(0, source.size - sound.at)
    if size in OPEN_SIZES:
        sizes = (source.size - 8).to_bytes(8, "little") + there.to_bytes(8, "little")
        return Claims(open_length=there > 0, empty=not there, patch=(wide.at, sizes))
    return _held(source, layout, Chunk(sound.name, sound.at, size), base + 8 + source.number(wide.at, 8, "little"))


def _counted(source: Source, common: Chunk) -> int:
    """Bytes of sound by an AIFF's count of its frames, which stands apart from the size of its chunk."""
    channels, frames = source.number(common.at, 2, "big"), source.number(common.at + 2, 4, "big")
    return channels * frames * ((source.number(common.at + 6, 2, "big") + 7) // 8)


def _held(source: Source, layout: Layout, sound: Chunk, end: int) -> Claims:
    """Bytes of sound declared and there; `end` is where the container says that it ends."""
    start, declared = sound.at + layout.preamble, max(0, sound.size - layout.preamble)
    there = max(0, source.size - start)
    if sound.size in OPEN_SIZES:
        finished = sound.size == 0 and abs(end - source.size) <= 1
        if finished or not there:
            return Claims(empty=finished)
        readable = layout in (RIFF, RIFX) and sound.size  # libsndfile takes all but zero for "to the end" there
        return Claims(open_length=True, patch=None if readable else _patch(source, layout, sound))
    after = start + declared + -(start + declared) % layout.align
    if declared >= there or after >= source.size:
        return Claims(declared, min(there, declared))
    inside = min(end, source.size) if end > after else after
    if inside - after >= layout.n_name + layout.n_size and not _is_chunk(source, layout, after):
        return Claims(declared, inside - start)
    beyond = source.size - max(after, min(end, source.size))
    if beyond > declared / 2 and end <= after and not _is_chunk(source, layout, after):
        return Claims(declared, there)  # more outside than a tag would be: both sizes were written too small
    return Claims(declared, declared)


def _patch(source: Source, layout: Layout, sound: Chunk) -> tuple[int, bytes]:
    """The size that the chunk would have, had its writer come to an end."""
    head = layout.n_name + layout.n_size if layout.inclusive else 0
    size = min(source.size - sound.at + head, 256**layout.n_size - 1)
    return sound.at - layout.n_size, size.to_bytes(layout.n_size, layout.order)


def _chunks(source: Source, layout: Layout, at: int) -> Iterator[Chunk]:
    head = layout.n_name + layout.n_size
    for _ in range(MOST_CHUNKS):
        if at + head > source.size:
            return
        size = source.number(at + layout.n_name, layout.n_size, layout.order) - (head if layout.inclusive else 0)
        yield Chunk(source.bytes(at, layout.n_name), at + head, max(0, size))
        at += head + max(0, size)
        at += -at % layout.align


def _is_chunk(source: Source, layout: Layout, at: int) -> bool:
    name = source.bytes(at, 4)
    size = source.number(at + layout.n_name, layout.n_size, layout.order)
    fits = size <= source.size - at and all(0x20 <= byte < 0x7F for byte in name)
    return name in KNOWN or name[:3] in (b"ID3", b"TAG") or fits


def _end(source: Source, layout: Layout, base: int) -> int:
    """Where the container ends by its own word; the file's end where it has none."""
    if layout is CAFF:
        return source.size
    if layout is WAVE64:
        return base + source.number(base + 16, 8, "little")
    return base + 8 + source.number(base + 4, 4, layout.order)


def _au(order: Literal["little", "big"], source: Source, base: int) -> Claims:
    start, declared = base + source.number(base + 4, 4, order), source.number(base + 8, 4, order)
    there = max(0, source.size - start)
    # libsndfile finds nothing behind a zero, nor behind a size with the highest bit set
    patch = (base + 8, min(there, 2**31 - 1).to_bytes(4, order)) if there and not 0 < declared < 2**31 else None
    if there and declared in OPEN_SIZES:
        return Claims(open_length=True, patch=None if declared else patch)
    return Claims(declared, there, patch=patch)


KINDS: dict[bytes, Callable[[Source, int], Claims]] = {
    b"RIFF": partial(_chunked, RIFF),
    b"RF64": partial(_chunked, RIFF),
    b"BW64": partial(_chunked, RIFF),
    b"RIFX": partial(_chunked, RIFX),
    b"FORM": partial(_chunked, FORM),
    b"riff": partial(_chunked, WAVE64),
    b"caff": partial(_chunked, CAFF),
    b".snd": partial(_au, "big"),
    b"dns.": partial(_au, "little"),
    b"OggS": ogg,
    b"fLaC": flac,
}
