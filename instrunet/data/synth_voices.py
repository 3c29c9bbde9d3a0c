"""The sound of the embedded corpus: eleven additive instruments, the players who play them, phrases of a few notes.

Shapes: T samples, P partials, M blocks of B samples.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

FloatArray = npt.NDArray[np.floating[Any]]
Formant = tuple[float, float, float]  # centre in Hz, width in octaves, gain in dB

N_PARTIALS = 56
TOP_HZ = 11_000.0  # partials above it cost time and change no feature that anyone computes here
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])  # major: phrases should sound like music to whoever listens


@dataclass(frozen=True)
class Voice:
    """An instrument by the numbers. Levels are in dB relative to the tone; `decay_s` makes it struck, not sustained."""

    midi: tuple[int, int]
    tilt_db: float  # per octave of partial number
    formants: tuple[tuple[Formant, ...], ...] = ((),)  # one set a vowel; all but the singer have one
    even_db: float = 0.0  # a closed pipe has next to no even partials
    drawbars: tuple[int, ...] = ()  # the only partials there are, counted from half the pitch (the 16' rank)
    attack_s: float = 0.03
    release_s: float = 0.06
    dull: float = 0.05  # how much darker a sustained note begins than it goes on; brass is the extreme
    vibrato_cents: float = 0.0
    tremolo: float = 0.0
    scoop_cents: float = 0.0  # how far below its pitch a note begins
    noise_db: float = -60.0
    noise_hz: float = 3000.0
    click_db: float = -60.0  # hammer, pick, key or tongue, 10 ms long
    decay_s: float = 0.0  # to -60 dB, at 220 Hz
    damping: float = 0.0  # by how much partial k+1 decays faster than partial k
    stiffness: float = 0.0  # inharmonicity: partial k is at k f sqrt(1 + stiffness k^2)
    pluck: float = 0.0  # where the string is excited, as a fraction of its length
    chorus_cents: float = 0.0  # piano notes have two strings or more, never quite alike
    chord: int = 1  # most notes at once
    drive_db: float = 0.0


VOICES: dict[str, Voice] = {
    "cel": Voice(
        (36, 67), -6.5, (((230, 0.5, 6), (600, 0.5, 4), (1500, 0.6, 3)),), attack_s=0.09, release_s=0.12,
        dull=0.12, vibrato_cents=22, tremolo=0.1, scoop_cents=15, noise_db=-26, noise_hz=1800,
    ),
    "cla": Voice(
        (50, 86), -6.0, (((1500, 0.7, 5), (3200, 0.5, 3)),), even_db=-22, attack_s=0.04, release_s=0.05,
        dull=0.1, vibrato_cents=3, noise_db=-38, noise_hz=2500, click_db=-34,
    ),
    "flu": Voice(
        (60, 93), -12.0, (((900, 0.8, 3),),), attack_s=0.07, release_s=0.08,
        dull=0.15, vibrato_cents=12, tremolo=0.25, noise_db=-18, noise_hz=3000, click_db=-30,
    ),
    "gac": Voice(
        (40, 79), -6.0, (((110, 0.4, 5), (220, 0.4, 4), (2600, 0.8, 3)),), release_s=0.03, click_db=-18,
        noise_hz=4000, decay_s=2.2, damping=0.22, stiffness=6e-5, pluck=0.17, chord=3,
    ),
    "gel": Voice(
        (40, 84), -4.0, (((700, 0.8, 4),),), release_s=0.03, click_db=-26,
        noise_hz=3000, decay_s=6.0, damping=0.1, stiffness=4e-5, pluck=0.11, chord=2, drive_db=16,
    ),
    "org": Voice(
        (41, 86), -1.5, drawbars=(1, 2, 3, 4, 6, 8, 10, 12, 16), attack_s=0.008, release_s=0.02,
        dull=0.0, vibrato_cents=5, tremolo=0.15, click_db=-24, noise_hz=2500, chord=3,
    ),
    "pia": Voice(
        (33, 93), -7.0, (((400, 1.5, 3),),), release_s=0.08, click_db=-22, noise_hz=900,
        decay_s=5.0, damping=0.12, stiffness=3e-4, pluck=0.125, chorus_cents=1.5, chord=3,
    ),
    "sax": Voice(
        (49, 76), -5.0, (((700, 0.6, 7), (1800, 0.4, 7)),), attack_s=0.035, release_s=0.06,
        dull=0.18, vibrato_cents=16, tremolo=0.08, scoop_cents=50, noise_db=-22, noise_hz=5000, click_db=-28,
    ),
    "tru": Voice(
        (54, 82), -2.5, (((1300, 0.6, 9), (2600, 0.5, 6)),), attack_s=0.03, release_s=0.05,
        dull=0.35, vibrato_cents=7, tremolo=0.04, noise_db=-40, noise_hz=5000, click_db=-36,
    ),
    "vio": Voice(
        (55, 93), -4.5, (((480, 0.4, 5), (1100, 0.5, 4), (2900, 0.6, 8)),), attack_s=0.06, release_s=0.1,
        dull=0.1, vibrato_cents=26, tremolo=0.12, scoop_cents=20, noise_db=-25, noise_hz=5000,
    ),
    "voi": Voice(
        (48, 77), -8.0, (
            ((750, 0.3, 14), (1200, 0.25, 12), (2800, 0.3, 14)),
            ((500, 0.3, 14), (1900, 0.25, 12), (2700, 0.3, 14)),
            ((320, 0.3, 14), (2300, 0.25, 12), (3100, 0.3, 14)),
            ((500, 0.3, 14), (900, 0.25, 12), (2700, 0.3, 12)),
            ((340, 0.3, 14), (700, 0.25, 12), (2600, 0.3, 12)),
        ), attack_s=0.06, release_s=0.09, dull=0.1, vibrato_cents=45, tremolo=0.1, scoop_cents=90,
        noise_db=-28, noise_hz=6000,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Player:
    """What the clips of one recording share; the defaults are the plain instrument."""

    voice: Voice
    detune_cents: float = 0.0
    vibrato_hz: float = 5.5
    vibrato_gain: float = 1.0
    tilt_db: float = 0.0  # added to the voice's, per octave
    formant_ratio: float = 1.0  # a larger body or throat has lower formants
    colour_db: FloatArray = field(default_factory=lambda: np.zeros(N_PARTIALS))  # [P]
    attack_ratio: float = 1.0
    noise_db: float = 0.0
    drive_db: float = 0.0
    note_s: float = 0.5
    legato: float = 0.95  # sounding part of a note's time
    register: float = 0.5  # favourite place in the range
    key: int = 0


def draw_player(voice: Voice, rng: Generator) -> Player:
    """Players differ by more than their notes do: that is why a split must hold recordings together."""
    return Player(
        voice,
        detune_cents=rng.normal(0, 8),
        vibrato_hz=rng.uniform(4.5, 6.8),
        vibrato_gain=rng.uniform(0.6, 1.4),
        tilt_db=rng.normal(0, 0.7),
        formant_ratio=2 ** rng.normal(0, 0.06),
        colour_db=rng.normal(0, 4 if voice.drawbars else 2, N_PARTIALS),
        attack_ratio=2 ** rng.normal(0, 0.3),
        noise_db=rng.normal(0, 2),
        drive_db=rng.normal(0, 3),
        note_s=rng.uniform(0.2, 0.6),
        legato=rng.uniform(0.75, 2.0 if voice.decay_s else 1.1),
        register=rng.uniform(0.3, 0.7),
        key=int(rng.integers(12)),
    )


def phrase(player: Player, n_samples: int, sample_rate: int, rng: Generator) -> FloatArray:
    """A short random melody, or chords, [T]; it is cut out of longer playing, so it may begin and end in a note."""
    voice, lead = player.voice, int(0.4 * sample_rate)
    sound: FloatArray = np.zeros(lead + n_samples)
    rungs = np.arange(voice.midi[0], voice.midi[1] + 1)
    rungs = rungs[np.isin((rungs - player.key) % 12, SCALE)]
    rung, start = player.register * (len(rungs) - 1) + rng.normal(0, 1), 0
    while start < len(sound):
        duration = int(player.note_s * sample_rate * rng.choice([0.5, 1, 1, 2]))
        rung += rng.normal(0, 1.5) + 0.3 * (player.register * (len(rungs) - 1) - rung)  # wanders, but comes home
        for third in range(int(rng.integers(1, voice.chord + 1))):
            midi = rungs[int(np.clip(round(rung) + 2 * third, 0, len(rungs) - 1))]
            tone = note(player, 440 * 2 ** ((midi - 69) / 12), int(duration * player.legato), sample_rate, rng)
            heard = sound[start : start + len(tone)]
            heard += tone[: len(heard)] * 10 ** (rng.uniform(-5, 0) / 20)
        start += duration
    return (_amplify(sound, voice.drive_db + player.drive_db, sample_rate) if voice.drive_db else sound)[lead:]


def note(player: Player, hz: float, n_samples: int, sample_rate: int, rng: Generator) -> FloatArray:
    """One note [T] of the player's instrument at `hz` (plus the player's detune), attack and release included."""
    voice, hz = player.voice, hz * 2 ** (player.detune_cents / 1200)
    tone = (_struck if voice.decay_s else _sustained)(player, hz, n_samples, sample_rate, rng)
    seconds = np.arange(n_samples) / sample_rate
    hiss = coloured_noise(n_samples, sample_rate, voice.noise_hz * player.formant_ratio, rng)
    level = 10 ** (voice.noise_db / 20) + 10 ** (voice.click_db / 20) * 4 * np.exp(-seconds / 0.01)
    sound: FloatArray = tone + hiss * level * 10 ** (player.noise_db / 20)
    sound *= _ramp(seconds / (0.002 if voice.decay_s else voice.attack_s * player.attack_ratio))
    sound *= _ramp((n_samples / sample_rate - seconds) / voice.release_s)
    return sound


def coloured_noise(n_samples: int, sample_rate: int, centre_hz: float, rng: Generator) -> FloatArray:
    """Noise [T] of unit RMS in a wide hump around `centre_hz`."""
    n_fft = next_fast_len(n_samples, real=True)
    hz = np.maximum(rfftfreq(n_fft, 1 / sample_rate), 1.0)
    white = rng.standard_normal((len(hz), 2)).view(complex)[:, 0]  # noise is as white in spectrum as in time
    noise: FloatArray = irfft(white * np.exp(-0.5 * np.log2(hz / centre_hz) ** 2), n_fft)[:n_samples]
    noise /= np.sqrt(np.mean(noise**2) + 1e-12)
    return noise


def _sustained(player: Player, hz: float, n_samples: int, sample_rate: int, rng: Generator) -> FloatArray:
    """Harmonics as powers of one rotating number z: vibrato and the brightness of the attack come with z itself."""
    voice, hz = player.voice, hz / 2 if player.voice.drawbars else hz
    seconds = np.arange(n_samples) / sample_rate
    swing = player.vibrato_gain * _ramp(seconds / 0.3)
    swing *= np.sin(2 * np.pi * (player.vibrato_hz * seconds + rng.random()))
    cents = voice.vibrato_cents * swing - voice.scoop_cents * rng.random() * np.exp(-seconds / 0.04)
    phase = 2 * np.pi * np.cumsum(hz * 2 ** (cents / 1200)) / sample_rate
    z = (1 - voice.dull * np.exp(-seconds / (voice.attack_s * player.attack_ratio))) * np.exp(1j * phase)
    numbers = np.arange(1, _n_partials(hz, sample_rate) + 1)
    turns = np.exp(2j * np.pi * rng.random(N_PARTIALS))[: len(numbers)]
    turning = np.zeros(n_samples, complex)
    for weight in (_gains(player, numbers, hz * numbers, rng) * turns)[::-1]:  # Horner's rule: no sine per partial
        turning += weight
        turning *= z
    sound: FloatArray = turning.real * (1 + voice.tremolo * swing)
    return sound


def _struck(player: Player, hz: float, n_samples: int, sample_rate: int, rng: Generator) -> FloatArray:
    """Decaying partials of a stiff string. One matrix product, as exp(s(mB + n)) = exp(smB) exp(sn)."""
    voice, numbers = player.voice, np.arange(1, _n_partials(hz, sample_rate) + 1)
    hz_of: FloatArray = hz * numbers * np.sqrt((1 + voice.stiffness * numbers**2) / (1 + voice.stiffness))
    gains = _gains(player, numbers, hz_of, rng) * np.abs(np.sin(np.pi * numbers * voice.pluck * player.formant_ratio))
    decay_s = voice.decay_s * np.sqrt(220 / hz) / player.attack_ratio
    decay = 6.9 / decay_s * (1 + voice.damping * (numbers - 1))
    if voice.chorus_cents:
        ratio = 2 ** (voice.chorus_cents * player.vibrato_gain / 1200)
        hz_of, gains, decay = np.append(hz_of, hz_of * ratio), np.append(gains, gains * 0.6), np.append(decay, decay)
    gains = gains * (hz_of < sample_rate / 2)  # stiffness may lift the last ones over the edge
    exponents = (-decay + 2j * np.pi * hz_of) / sample_rate  # [P]
    turns = np.exp(2j * np.pi * rng.random(2 * N_PARTIALS))[: len(gains)]
    n_block = int(np.sqrt(n_samples)) + 1
    blocks = np.exp(np.outer(np.arange(n_block) * n_block, exponents)) * (gains * turns)  # [M, P]
    sound: FloatArray = (blocks @ np.exp(np.outer(exponents, np.arange(n_block)))).real  # [M, B]
    return sound.ravel()[:n_samples]


def _gains(player: Player, numbers: npt.NDArray[np.int_], hz_of: FloatArray, rng: Generator) -> FloatArray:
    """Amplitudes [P] of partials at these frequencies, of unit power together; a soft note is a dark one."""
    voice = player.voice
    level_db = (voice.tilt_db + player.tilt_db - rng.uniform(0, 2)) * np.log2(numbers)
    level_db += player.colour_db[: len(numbers)] + voice.even_db * (numbers % 2 == 0)
    for centre_hz, octaves, gain_db in voice.formants[int(rng.integers(len(voice.formants)))]:
        level_db += gain_db * np.exp(-0.5 * (np.log2(hz_of / (centre_hz * player.formant_ratio)) / octaves) ** 2)
    gains: FloatArray = 10 ** (level_db / 20) * np.isin(numbers, voice.drawbars or numbers)
    gains /= np.sqrt(np.sum(gains**2))
    return gains


def _n_partials(hz: float, sample_rate: int) -> int:
    return max(1, min(N_PARTIALS, int(min(TOP_HZ, 0.45 * sample_rate) / hz)))


def _amplify(sound: FloatArray, drive_db: float, sample_rate: int) -> FloatArray:
    """Soft clipping, then a loudspeaker that gives up above 4.5 kHz."""
    n_fft = next_fast_len(len(sound), real=True)
    loudspeaker = 1 / (1 + (rfftfreq(n_fft, 1 / sample_rate) / 4500) ** 4)
    amplified: FloatArray = irfft(rfft(np.tanh(sound * 10 ** (drive_db / 20)), n_fft) * loudspeaker, n_fft)
    return amplified[: len(sound)]


def _ramp(progress: FloatArray) -> FloatArray:
    """0 to 1 as `progress` goes from 0 to 1, without corners."""
    ramp: FloatArray = np.sin(0.5 * np.pi * np.clip(progress, 0, 1)) ** 2
    return ramp
