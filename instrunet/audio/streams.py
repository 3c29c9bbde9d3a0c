"""What the streams that are no chunks (Ogg, FLAC, MP3) say of their own length and end."""

import os
from dataclasses import dataclass
from typing import Literal

PAGE = 65_307  # bytes, the longest Ogg page
TAIL = 8192  # bytes; an MP3 frame has 1,441 at most
OPUS_HZ = 48_000  # Opus counts at this rate, whatever went in
BITRATES = (  # kbit/s of layer III, by the header's index, of MPEG 1 and of MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
RATES_HZ = (44_100, 48_000, 32_000)


@dataclass(frozen=True)
class Claims:
    """Bytes of sound `declared` by a header and `held` by the file; equal ones are in order, as are two zeros."""

    declared: int = 0
    held: int = 0
    open_length: bool = False  # a header that was never finished: all that is there counts
    empty: bool = False  # a finished header of no sound
    broken: str = ""  # how the stream ends too early
    frames: int = 0  # that the last page counts, 0: not said
    clock_hz: int = 0  # of `frames`, 0: the file's own rate
    patch: tuple[int, bytes] | None = None  # where the header has to say something else for it to be read
    md5: bytes = b""  # of the decoded samples, `width` bytes each
    width: int = 0

    def disagreement(self, frames: int, sample_rate: int) -> str:
        """What the claims say against the `frames` that a decoder finds; "" where they agree."""
        declared = self.frames * sample_rate // (self.clock_hz or sample_rate)
        if declared > frames + 1:
            return short(declared, frames, sample_rate)
        if self.declared == self.held:
            return self.broken
        used = min(self.declared, self.held)
        per_byte = frames / sample_rate / used if used else 0.0
        more = "fewer" if self.held < self.declared else "more"
        lengths = f"declares {self.declared * per_byte:.3f} s, holds {self.held * per_byte:.3f} s: "
        return (lengths if used else "") + f"{abs(self.declared - self.held)} bytes {more} than its header promises"


@dataclass(frozen=True)
class Source:
    """An open file to look into, its first bytes at hand."""

    fd: int
    size: int
    head: bytes

    def bytes(self, at: int, n: int) -> bytes:
        if at + n <= len(self.head):
            return self.head[at : at + n]
        return os.pread(self.fd, n, at) if at < self.size else b""

    def number(self, at: int, n: int, order: Literal["little", "big"]) -> int:
        return int.from_bytes(self.bytes(at, n), order)


def short(declared: int, held: int, sample_rate: int) -> str:
    """The sentence for `held` of `declared` frames."""
    a, b = declared / sample_rate, held / sample_rate
    return f"declares {a:.3f} s, holds {b:.3f} s: {a - b:.3f} s fewer than its header promises"


def flac(source: Source, base: int) -> Claims:
    """STREAMINFO's sum of the decoded samples. Its count of them libsndfile takes at its word, so a cut is noticed."""
    info = source.bytes(base + 8, 34)
    if len(info) < 34 or source.bytes(base + 4, 1)[0] & 0x7F:
        return Claims()
    bits = (((info[12] & 1) << 4) | (info[13] >> 4)) + 1
    md5 = info[18:34]
    return Claims(md5=md5 if any(md5) and bits in (8, 16, 24) else b"", width=bits // 8)


def ogg(source: Source, base: int) -> Claims:
    """The last page carries the end-of-stream flag, is all there, and counts the samples of the stream."""
    tail_at = max(base, source.size - PAGE)
    tail = source.bytes(tail_at, source.size - tail_at)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return Claims(broken="no Ogg page in its last 64 KiB")
    head = tail[at : at + 27 + 255]
    if len(head) < 27 or len(tail) - at < 27 + head[26] + sum(head[27 : 27 + head[26]]):
        return Claims(broken="its last Ogg page is cut")
    if not head[5] & 4:
        return Claims(broken="its last Ogg page has no end-of-stream flag")
    opus = source.bytes(base + 28, 8) == b"OpusHead"
    skip = source.number(base + 38, 2, "little") if opus else 0
    n = int.from_bytes(head[6:14], "little", signed=True) - skip
    known = opus or source.bytes(base + 28, 7) == b"\x01vorbis"
    return Claims(frames=n if known and n > 0 and not _starts_late(source, base) else 0, clock_hz=OPUS_HZ * opus)


def _starts_late(source: Source, base: int) -> bool:
    """Whether its first page of samples ends where no first page can: a piece of a longer stream."""
    head, at = source.bytes(base, 16 * 1024), 0
    while (at := head.find(b"OggS\0", at)) >= 0:
        if (position := int.from_bytes(head[at + 6 : at + 14], "little", signed=True)) > 0:
            return position > 255 * 8192  # segments of a page times the longest block
        at += 1
    return False


def mp3(source: Source, base: int) -> Claims:
    """The last frame is all there. What Xing or LAME count, the decoder holds to; garbage behind is let be."""
    first = source.bytes(base, 4)
    if len(first) < 4:
        return Claims()
    at = max(base, source.size - TAIL)
    tail = source.bytes(at, source.size - at)
    tail = tail[:-128] if tail[-128:-125] == b"TAG" else tail
    k = start = _in_step(tail, first)
    bitrates = {first[2] >> 4}
    while k >= 0 and (n := _frame_bytes(tail[k : k + 4], first)):
        bitrates.add(tail[k + 2] >> 4)
        if k + n > len(tail):
            return Claims(broken="its last MP3 frame is cut")
        k += n
    if start >= 0 and 0 < len(tail) - k < 4 and first.startswith(tail[k:]):
        return Claims(broken="its last MP3 frame is cut")
    counted = any(tag in source.bytes(base, 64) for tag in (b"Xing", b"Info", b"VBRI"))
    if len(bitrates) > 1 and not counted:
        # mpg123 takes the first frame's bit rate for all, and libsndfile stops where that puts the end
        return Claims(broken="its bit rate varies and no header counts its frames: where it ends is a guess")
    return Claims()


def _in_step(tail: bytes, first: bytes) -> int:
    """Where a frame begins that two more follow, or the end of the file; -1: nowhere."""
    k = tail.find(b"\xff")
    while k >= 0:
        n = _frame_bytes(tail[k : k + 4], first)
        m = n and _frame_bytes(tail[k + n : k + n + 4], first)
        if m and _frame_bytes(tail[k + n + m : k + n + m + 4], first):
            return k
        k = tail.find(b"\xff", k + 1)
    return -1


def _frame_bytes(head: bytes, first: bytes) -> int:
    """Length of the layer III frame with this header, 0 for what is no header or of another stream than `first`."""
    if len(head) < 4 or head[0] != 0xFF or head[1] != first[1] or (head[2] ^ first[2]) & 0x0C:
        return 0
    version, layer, rate, index = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer != 1 or rate == 3 or index == 15:
        return 0
    low = version != 3
    rate_hz = RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (72 if low else 144) * BITRATES[low][index] * 1000 // rate_hz + (head[2] >> 1 & 1) if index else 0
