"""WAVEFORM: effects on the sound itself, before any feature; and the generator that gives a clip its own numbers."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from instrunet.augment.colour import (
    CodecSpec,
    GainSpec,
    NoiseSpec,
    PolaritySpec,
    RoomSpec,
    TiltSpec,
    codec,
    gain,
    noise,
    polarity,
    room,
    tilt,
)
from instrunet.augment.effect import Wave
from instrunet.augment.tempo import PitchSpec, ShiftSpec, SpeedSpec, StretchSpec, pitch, shift, speed, stretch

WaveformSpec = Annotated[
    GainSpec
    | NoiseSpec
    | StretchSpec
    | SpeedSpec
    | PitchSpec
    | ShiftSpec
    | PolaritySpec
    | RoomSpec
    | TiltSpec
    | CodecSpec,
    Field(discriminator="name"),
]
# What `name` may be in a list of effects. Each: (wave [T], sample_rate, spec, generator) to a wave, of another length
# from `stretch` and `speed` alone
WAVEFORM: dict[str, Callable[[Wave, int, Any, np.random.Generator], Wave]] = {
    "gain": gain,
    "noise": noise,
    "stretch": stretch,
    "speed": speed,
    "pitch": pitch,
    "shift": shift,
    "polarity": polarity,
    "room": room,
    "tilt": tilt,
    "codec": codec,
}


def augment_wave(wave: Wave, sample_rate: int, effects: Sequence[WaveformSpec], rng: np.random.Generator) -> Wave:
    """The effects one after the other, each with its probability; `wave` [T] is not written to."""
    for spec in effects if len(wave) else ():
        if rng.random() < spec.p:
            wave = WAVEFORM[spec.name](wave, sample_rate, spec, rng)
    return wave


def generator(seed: int, epoch_or_copy: int, clip_id: str) -> np.random.Generator:
    """The numbers of one clip in one epoch, or of one of its copies: the same on any worker, in any order."""
    clip = int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:16])
    return np.random.default_rng([seed, epoch_or_copy, clip])
