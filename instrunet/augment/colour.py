"""Effects that leave a sound in its place and change how it comes to the ear: level, noise, room, equaliser, codec.

Shapes: T samples.
"""

import io
from typing import Literal

import numpy as np
import scipy.fft
import soundfile
from pydantic import Field

from instrunet.augment.effect import DecibelRange, EffectSpec, SecondRange, ShareRange, Wave, fit

# Of the whole line of MPEG rates; a sound at another rate goes through Vorbis, which takes any
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
TILT_PIVOT_HZ, TILT_LOWEST_HZ = 1000.0, 50.0  # below the lowest the gain stays: DC would get all of it, or none
EARLY_S = 0.05  # after that a room's reflections are too many to tell apart
CODEC_BLOCK = 1 << 16  # libsndfile's Vorbis encoder keeps what it is given on the stack


class GainSpec(EffectSpec):
    """For features whose level is not normalised."""

    name: Literal["gain"] = "gain"
    gain_db: DecibelRange = (-6.0, 6.0)


class PolaritySpec(EffectSpec):
    name: Literal["polarity"] = "polarity"


class NoiseSpec(EffectSpec):
    """Noise of a colour drawn from `colours`, against the clip's mean power."""

    name: Literal["noise"] = "noise"
    snr_db: DecibelRange = (10.0, 40.0)
    colours: tuple[Literal["white", "pink"], ...] = Field(("white", "pink"), min_length=1)


class RoomSpec(EffectSpec):
    """A room by rule: a few early reflections and a tail of noise that falls by 60 dB in `decay_s`."""

    name: Literal["room"] = "room"
    decay_s: SecondRange = (0.1, 0.6)
    direct_db: DecibelRange = (0.0, 12.0)  # direct sound over all that comes after it


class TiltSpec(EffectSpec):
    """An equaliser that rises or falls by the same number of dB each octave."""

    name: Literal["tilt"] = "tilt"
    slope_db: DecibelRange = (-3.0, 3.0)


class CodecSpec(EffectSpec):
    """There and back through a lossy codec. Compression is libsndfile's: 0 the best sound, 1 the smallest file."""

    name: Literal["codec"] = "codec"
    formats: tuple[Literal["ogg", "mp3"], ...] = Field(("ogg", "mp3"), min_length=1)
    compression: ShareRange = (0.5, 1.0)


def gain(wave: Wave, sample_rate: int, spec: GainSpec, rng: np.random.Generator) -> Wave:
    return wave * np.float32(10 ** (rng.uniform(*spec.gain_db) / 20))


def polarity(wave: Wave, sample_rate: int, spec: PolaritySpec, rng: np.random.Generator) -> Wave:
    return -wave


def noise(wave: Wave, sample_rate: int, spec: NoiseSpec, rng: np.random.Generator) -> Wave:
    ratio, colour = 10 ** (rng.uniform(*spec.snr_db) / 10), spec.colours[rng.integers(len(spec.colours))]
    added = rng.standard_normal(len(wave), dtype=np.float32)
    if colour == "pink":
        added = _shaped(added, sample_rate, -10 * np.log10(2))  # power falls as 1 / f
    return wave + added * np.float32(np.sqrt(_power(wave) / (ratio * max(_power(added), 1e-30))))


def room(wave: Wave, sample_rate: int, spec: RoomSpec, rng: np.random.Generator) -> Wave:
    response = impulse_response(sample_rate, rng.uniform(*spec.decay_s), rng.uniform(*spec.direct_db), rng)
    n = scipy.fft.next_fast_len(len(wave) + len(response) - 1, real=True)
    # Not by scipy.signal: importing it takes half a second of every process of every job
    wet: Wave = scipy.fft.irfft(scipy.fft.rfft(wave, n) * scipy.fft.rfft(response, n), n)[: len(wave)]
    return wet


def impulse_response(sample_rate: int, decay_s: float, direct_db: float, rng: np.random.Generator) -> Wave:
    """Direct sound 1 at sample 0; the rest has the energy `direct_db` asks for."""
    n = max(2, round(decay_s * sample_rate))
    fall = 10 ** (-3 * np.arange(n) / n)
    n_early = max(2, min(n, round(EARLY_S * sample_rate)))
    tail = rng.standard_normal(n) * fall * np.minimum(1, np.arange(n) / n_early)  # noise takes over from the echoes
    at = rng.integers(n_early // 10 + 1, n_early, size=rng.integers(3, 9), endpoint=True) - 1
    tail[at] += rng.choice([-4.0, 4.0], len(at)) * fall[at]
    tail[0] = 0
    response = tail * (10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2)))
    response[0] = 1
    single: Wave = response.astype(np.float32)
    return single


def tilt(wave: Wave, sample_rate: int, spec: TiltSpec, rng: np.random.Generator) -> Wave:
    return _shaped(wave, sample_rate, rng.uniform(*spec.slope_db))


def codec(wave: Wave, sample_rate: int, spec: CodecSpec, rng: np.random.Generator) -> Wave:
    kind, compression = spec.formats[rng.integers(len(spec.formats))], rng.uniform(*spec.compression)
    peak = float(np.abs(wave).max())
    if peak < 1e-20:
        return wave
    # At one level: a codec drops what it holds for inaudible, and cuts off what is above full scale
    coded = _through(
        wave * np.float32(0.5 / peak), sample_rate, kind if sample_rate in MP3_RATES else "ogg", compression
    )
    return fit(coded, len(wave)) * np.float32(peak / 0.5)


def _through(wave: Wave, sample_rate: int, kind: str, compression: float) -> Wave:
    subtype = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}[kind]
    memory = io.BytesIO()
    with soundfile.SoundFile(
        memory, "w", sample_rate, 1, subtype, format=kind.upper(), compression_level=min(compression, 0.99)
    ) as file:
        for at in range(0, len(wave), CODEC_BLOCK):
            file.write(wave[at : at + CODEC_BLOCK])
    memory.seek(0)
    coded: Wave = soundfile.read(memory, dtype="float32")[0]
    return coded


def _shaped(wave: Wave, sample_rate: int, slope_db: float) -> Wave:
    """Every octave louder by `slope_db` than the one below it, without moving any phase."""
    n = scipy.fft.next_fast_len(len(wave) + round(0.1 * sample_rate), real=True)  # what rings must not come round
    hz = np.maximum(scipy.fft.rfftfreq(n, 1 / sample_rate), TILT_LOWEST_HZ)
    curve = (hz / TILT_PIVOT_HZ) ** (slope_db / (20 * np.log10(2)))
    shaped: Wave = scipy.fft.irfft(scipy.fft.rfft(wave, n) * curve.astype(np.float32), n)[: len(wave)]
    return shaped


def _power(wave: Wave) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))
