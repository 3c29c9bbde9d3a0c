"""Copies: training clips that are heard several times, each time through other effects.

They are rows of the manifest like any other, made after the split, for the training split alone: `<id>+1` is the first
copy of the clip <id>, whose file and range it shares, and `twin_of` says so.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from instrunet.augment.colour import NoiseSpec
from instrunet.augment.effect import Wave
from instrunet.augment.tempo import PitchSpec, ShiftSpec, StretchSpec
from instrunet.augment.waveform import WaveformSpec, augment_wave, generator
from instrunet.config import Spec

# The emotion seed's four, which says no probabilities. The noise always, so that no copy is its original again
SEED_EFFECTS = (
    NoiseSpec(p=1, snr_db=(40, 50), colours=("white",)),
    StretchSpec(rate=(0.8, 1.2)),
    PitchSpec(semitones=(-3, 3)),
    ShiftSpec(),
)
Effects = tuple[WaveformSpec, ...]


class CopiesSpec(Spec):
    """`n` copies through the same list of effects, or one through each list of `each`. `copies: 3` is short for n."""

    n: int = Field(0, ge=0, le=100)
    effects: Effects = Field(SEED_EFFECTS, min_length=1)
    each: tuple[Annotated[Effects, Field(min_length=1)], ...] = ()
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_n(cls, value: Any) -> Any:
        return {"n": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.n and self.each:
            raise ValueError(
                f"give n copies through `effects`, or a list of effects for each copy; got n={self.n} and "
                f"{len(self.each)} lists in `each`"
            )
        return self

    @property
    def lists(self) -> tuple[Effects, ...]:
        """The effects of the first copy, the second, and so on; empty where no copies are asked for."""
        return self.each or (self.effects,) * self.n


def with_copies(frame: pd.DataFrame, spec: CopiesSpec) -> pd.DataFrame:
    """A manifest whose splits are made, each training clip followed by its copies."""
    if not spec.lists:
        return frame
    times = np.where(frame["split"] == "train", 1 + len(spec.lists), 1)
    rows = frame.reset_index(drop=True)
    rows = rows.loc[rows.index.repeat(times)]
    number = rows.groupby(level=0).cumcount()
    name = rows["clip_id"].where(number == 0, rows["clip_id"] + "+" + number.astype(str))
    twin_of = rows["twin_of"].where(number == 0, rows["clip_id"]).astype("string")
    made = rows.assign(clip_id=name, twin_of=twin_of).reset_index(drop=True)
    assert made["clip_id"].is_unique
    return made


def originals(frame: pd.DataFrame) -> pd.DataFrame:
    """A manifest without the copies that `with_copies` gave it."""
    names = ["clip_id", "split", "twin_of"]
    rows = frame.reindex(columns=names).itertuples(index=False, name=None)
    made = [number_of(dict(zip(names, row, strict=True))) > 0 for row in rows]
    return frame[~np.array(made, bool)]


def number_of(clip: Mapping[str, Any]) -> int:
    """Which copy of its clip a row of a manifest is; 0 of a file of its own, even one that says what it was made of."""
    twin_of = clip.get("twin_of")
    if not isinstance(twin_of, str) or clip["split"] != "train":
        return 0
    number = clip["clip_id"].removeprefix(f"{twin_of}+")
    return int(number) if number != clip["clip_id"] and number.isdecimal() else 0


def copied(wave: Wave, sample_rate: int, clip: Mapping[str, Any], spec: CopiesSpec) -> Wave:
    """What a copy sounds like; the same on any worker, whatever else is made beside it."""
    number = number_of(clip)
    return augment_wave(wave, sample_rate, spec.lists[number - 1], generator(spec.seed, number, clip["twin_of"]))
