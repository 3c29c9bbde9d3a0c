"""What all effects on waveforms share."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from instrunet.config import Spec

Wave = NDArray[np.float32]


class EffectSpec(Spec):
    p: float = Field(0.5, ge=0, le=1)  # how often the effect is applied


def _in_order(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if not low <= high:
        raise ValueError(f"a range needs low <= high; got {low:g} and {high:g}")
    return limits


Decibels = Annotated[float, Field(ge=-120, le=120)]
Rate = Annotated[float, Field(ge=0.25, le=4)]
DecibelRange = Annotated[tuple[Decibels, Decibels], AfterValidator(_in_order)]
RateRange = Annotated[tuple[Rate, Rate], AfterValidator(_in_order)]
SemitoneRange = Annotated[
    tuple[Annotated[float, Field(ge=-24)], Annotated[float, Field(le=24)]], AfterValidator(_in_order)
]
SecondRange = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=10)]], AfterValidator(_in_order)]
ShareRange = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=1)]], AfterValidator(_in_order)]


def fit(wave: Wave, n_samples: int) -> Wave:
    """Cut or padded with zeros behind."""
    if len(wave) >= n_samples:
        return wave[:n_samples]
    return np.pad(wave, (0, n_samples - len(wave)))
