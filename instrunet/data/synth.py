"""The embedded corpus: a synthetic IRMAS, folder for folder, made of players, rooms and short phrases.

Nothing to download and nothing to license: tests, guides and smoke runs have a corpus on any machine.
Shapes: T samples, C channels (always 2).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import soundfile
from numpy.random import Generator
from pydantic import Field
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from instrunet.config import Spec, fingerprint
from instrunet.data.synth_voices import VOICES, FloatArray, coloured_noise, draw_player, phrase
from instrunet.errors import DataError

LABELS = tuple(VOICES)
GENRES = ("cla", "cou_fol", "jaz_blu", "lat_sou", "pop_roc")
TRAINING, TESTING = "IRMAS-TrainingData", "IRMAS-TestingData-Part1/Part1"
MARKER = "corpus.json"
SOUND_VERSION = 1  # raise it whenever the same spec would give other bytes

EXCERPTS_PER_TITLE = 2
ADJECTIVES = ("blue", "slow", "golden", "last", "winter", "silent", "little", "broken", "second", "far")
NOUNS = ("river", "waltz", "morning", "train", "lantern", "harbour", "letter", "garden", "window", "road")

# What a random stream is for. Keys are always five numbers: numpy takes [1] and [1, 0] for the same seed.
_TAGS, _RECORDING, _CLIP, _TITLE, _EXCERPT = range(5)


class SynthSpec(Spec):
    """How much of the corpus there is. A clip depends on the seed, the length and the rate, never on the counts."""

    seed: int = Field(0, ge=0, lt=2**32)
    recordings: int = Field(12, ge=1, le=9999)  # per class
    clips: int = Field(3, ge=1)  # per recording
    clip_s: float = Field(3.0, ge=0.5, le=60)
    mixtures: int = Field(22, ge=0)  # multi-label test excerpts, two a title
    sample_rate: int = Field(44_100, ge=8000, le=192_000)


@dataclass(frozen=True)
class Studio:
    """What a recording's clips share beside the player."""

    response: FloatArray  # [C, T] from source to microphones
    floor_db: float
    peak_db: float
    beat_s: float


def write_corpus(spec: SynthSpec, root: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the corpus to `root`, whole or not at all; a `root` that already holds it is left as it is."""
    if _holds(spec, root):
        return root
    aside = root.with_name(f".{root.name}.{uuid4().hex}")
    try:
        _write_all(spec, aside, progress or (lambda done, total: None))
        _publish(spec, aside, root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


def render_clip(spec: SynthSpec, label: str, recording: int, clip: int) -> FloatArray:
    """Clip `clip` of recording `recording` (both from 1) of the class `label`, [C, T]."""
    number = LABELS.index(label)
    shared = _stream(spec, _RECORDING, number, recording)
    player, studio = draw_player(VOICES[label], shared), _draw_studio(spec, shared)
    rng = _stream(spec, _CLIP, number, recording, clip)
    n_samples = round(spec.clip_s * spec.sample_rate)
    dry = _level(phrase(player, n_samples, spec.sample_rate, rng), 0)
    if _tags(spec, label, recording)[0]:
        dry += _drums(studio.beat_s, n_samples, spec.sample_rate, rng)
    return _record(dry, studio, spec.sample_rate, rng)


def render_mixture(spec: SynthSpec, mixture: int) -> tuple[FloatArray, list[str]]:
    """Excerpt `mixture` (from 0) [C, T], and the labels heard in it; its players play in no training clip."""
    shared = _stream(spec, _TITLE, mixture // EXCERPTS_PER_TITLE)
    band = {label: draw_player(VOICES[label], shared) for label in shared.permutation(LABELS)[:3]}
    studio = _draw_studio(spec, shared)
    rng = _stream(spec, _EXCERPT, mixture)
    n_samples = int(rng.uniform(6, 10) * spec.sample_rate)
    labels = sorted(rng.permutation(list(band))[: rng.integers(1, len(band) + 1)].tolist())
    dry = np.zeros(n_samples)
    for label in labels:
        dry += _level(phrase(band[label], n_samples, spec.sample_rate, rng), rng.uniform(-9, 0))
    return _record(dry, studio, spec.sample_rate, rng), labels


def clip_name(spec: SynthSpec, label: str, recording: int, clip: int) -> str:
    """Like `123__[cel][nod][cla]0001__2.wav`; as in IRMAS, the prefix and the drum tag are not always there."""
    _, drum_tag, genre = _tags(spec, label, recording)
    rng = _stream(spec, _TAGS, LABELS.index(label), recording, clip)
    prefix = f"{rng.integers(1, 1000):03d}__" if rng.random() < 0.25 else ""
    return f"{prefix}[{label}]{drum_tag}[{genre}]{recording:04d}__{clip}.wav"


def mixture_stem(spec: SynthSpec, mixture: int) -> str:
    title, excerpt = divmod(mixture, EXCERPTS_PER_TITLE)
    rng = _stream(spec, _TAGS, len(LABELS), title)  # past the last class: no clip shares this stream
    return f"({title + 1:02d}) {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}-{excerpt + 1}"


def _write_all(spec: SynthSpec, root: Path, progress: Callable[[int, int], None]) -> None:
    clips = [
        (label, recording, clip)
        for label in LABELS
        for recording in range(1, spec.recordings + 1)
        for clip in range(1, spec.clips + 1)
    ]
    total = len(clips) + spec.mixtures
    for folder in (*(f"{TRAINING}/{label}" for label in LABELS), TESTING):
        (root / folder).mkdir(parents=True)
    for done, (label, recording, clip) in enumerate(clips, start=1):
        path = root / TRAINING / label / clip_name(spec, label, recording, clip)
        _write_wave(path, render_clip(spec, label, recording, clip), spec.sample_rate)
        progress(done, total)
    for mixture in range(spec.mixtures):
        wave, labels = render_mixture(spec, mixture)
        stem = root / TESTING / mixture_stem(spec, mixture)
        _write_wave(stem.with_name(f"{stem.name}.wav"), wave, spec.sample_rate)
        stem.with_name(f"{stem.name}.txt").write_bytes("".join(f"{label}\t\r\n" for label in labels).encode())
        progress(len(clips) + mixture + 1, total)
    (root / MARKER).write_text(json.dumps(_card(spec), indent=2) + "\n", encoding="utf-8")


def _publish(spec: SynthSpec, aside: Path, root: Path) -> None:
    try:
        aside.rename(root)
    except OSError:
        # Somebody else was faster. That is well if theirs is the same corpus, and `_holds` says so if it is not.
        if not _holds(spec, root):
            raise


def _holds(spec: SynthSpec, root: Path) -> bool:
    """Whether `root` is this corpus already; DataError if it is anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    advice = "name another folder, or remove this one to have the corpus made again"
    ours = _card(spec)
    try:
        theirs = dict(json.loads((root / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise DataError(
            f"expected a synthetic corpus or nothing at {root}, found no readable {MARKER}; {advice}"
        ) from None
    differ = [key for key in ours if ours[key] != theirs.get(key) and key != "fingerprint"]
    if differ:
        asked = ", ".join(f"{key}={ours[key]}" for key in differ)
        came = ", ".join(f"{key}={theirs.get(key)}" for key in differ)
        raise DataError(f"expected a synthetic corpus with {asked} at {root}, it was made with {came}; {advice}")
    n_expected, n_found = len(LABELS) * spec.recordings * spec.clips + spec.mixtures, len(list(root.rglob("*.wav")))
    if n_found != n_expected:
        raise DataError(f"expected {n_expected} .wav files under {root}, found {n_found}; {advice}")
    return True


def _card(spec: SynthSpec) -> dict[str, Any]:
    """Flat, so that a difference names a field; the fingerprint comes last, for whoever wants one word."""
    fields = {"sound_version": SOUND_VERSION, **spec.model_dump(mode="json")}
    return {**fields, "fingerprint": fingerprint(fields)}


def _write_wave(path: Path, wave: FloatArray, sample_rate: int) -> None:
    soundfile.write(path, wave.T, sample_rate, subtype="PCM_16")


def _tags(spec: SynthSpec, label: str, recording: int) -> tuple[bool, str, str]:
    """Whether drums play, what the name says of them (nothing for one recording in six), and the genre."""
    rng = _stream(spec, _TAGS, LABELS.index(label), recording)
    drums = bool(rng.random() < 0.4)
    tag = "" if rng.random() < 1 / 6 else "[dru]" if drums else "[nod]"
    return drums, tag, str(rng.choice(GENRES))


def _draw_studio(spec: SynthSpec, rng: Generator) -> Studio:
    """A dry to lively room, a microphone with its own colour, a noise floor and a level."""
    n_taps = int(0.3 * spec.sample_rate)
    seconds = np.arange(n_taps) / spec.sample_rate
    tail = rng.standard_normal((2, n_taps)) * np.exp(-6.9 * seconds / rng.uniform(0.1, 0.6))
    response = tail * 10 ** (rng.uniform(-20, -8) / 20) / np.sqrt(np.sum(tail**2, axis=1, keepdims=True))
    response[:, 0] += 1 + rng.uniform(-0.25, 0.25) * np.array([1, -1])  # the direct sound, a little off centre
    hz = np.maximum(rfftfreq(n_taps, 1 / spec.sample_rate), 20.0)
    colour_db = rng.normal(0, 0.5) * np.log2(hz / 1000)
    for _ in range(3):
        centre_hz = 2 ** rng.uniform(np.log2(100), np.log2(8000))
        colour_db += rng.normal(0, 2.5) * np.exp(-0.5 * (np.log2(hz / centre_hz) / 0.5) ** 2)
    response = irfft(rfft(response) * 10 ** (colour_db / 20), n_taps)
    return Studio(response, rng.uniform(-75, -55), rng.uniform(-15, -1), rng.uniform(0.35, 0.65))


def _record(dry: FloatArray, studio: Studio, sample_rate: int, rng: Generator) -> FloatArray:
    """The sound [T] in its room [C, T], at the recording's level, which leaves room below full scale."""
    n_fft = next_fast_len(len(dry) + studio.response.shape[1], real=True)
    wet: FloatArray = irfft(rfft(dry, n_fft) * rfft(studio.response, n_fft), n_fft)[:, : len(dry)]
    wet /= np.abs(wet).max()
    for channel in wet:
        channel += coloured_noise(len(dry), sample_rate, 1500, rng) * 10 ** (studio.floor_db / 20)
    take_db = studio.peak_db - rng.uniform(0, 2)
    wet *= 10 ** (take_db / 20) / np.abs(wet).max()
    return wet


def _drums(beat_s: float, n_samples: int, sample_rate: int, rng: Generator) -> FloatArray:
    """A faint kick on the beat, a snare on every other and a hat between, [T]."""
    seconds = np.arange(int(0.25 * sample_rate)) / sample_rate
    kick = np.sin(2 * np.pi * (50 * seconds + 4 * (1 - np.exp(-seconds / 0.03)))) * np.exp(-seconds / 0.06)
    snare = 0.3 * coloured_noise(len(seconds), sample_rate, 2000, rng) * np.exp(-seconds / 0.05)
    hat = 0.15 * coloured_noise(len(seconds), sample_rate, 9000, rng) * np.exp(-seconds / 0.015)
    sound = np.zeros(n_samples + len(seconds))
    beat, offset = int(beat_s * sample_rate), rng.random()
    for step in range(2 * n_samples // beat):
        start = int((step + offset) * beat / 2)
        hit = hat if step % 2 else snare if step % 4 else kick
        sound[start : start + len(hit)] += hit[: len(sound) - start]
    return _level(sound[:n_samples], rng.uniform(-30, -20))


def _level(sound: FloatArray, rms_db: float) -> FloatArray:
    levelled: FloatArray = sound * 10 ** (rms_db / 20) / np.sqrt(np.mean(sound**2) + 1e-12)
    return levelled


def _stream(spec: SynthSpec, purpose: int, first: int, second: int = 0, third: int = 0) -> Generator:
    return np.random.default_rng([spec.seed, purpose, first, second, third])
