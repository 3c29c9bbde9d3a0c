"""The front end: waveform to windows to features, by one spec, in training, evaluation, tagging and export alike.

Shapes: T samples, W windows, N samples of a window, F bands, L frames.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from instrunet.audio import windows
from instrunet.audio.io import QUIET
from instrunet.audio.trim import trimmed
from instrunet.config import Spec
from instrunet.features import FEATURES, FRAME_FEATURES, Feature, FeatureSpec, LogMel, LogMelSpec
from instrunet.features.measures import N_FFT, Level, levels, peak, with_feature


class FrontEnd(Spec):
    """All that lies between a file and the network."""

    features: tuple[FeatureSpec, ...] = Field((LogMelSpec(),), min_length=1)
    window_s: float = Field(3.0, gt=0)
    hop_s: float = Field(3.0, gt=0)
    level: Literal["peak", "rms", "none"] = "peak"  # of each window, so that a unit of an archive is treated as a clip
    length: Literal["fixed", "adaptive"] = "fixed"  # adaptive: a sound shorter than a window keeps its own length
    min_s: float = Field(0.5, gt=0)  # adaptive: a sound shorter than this is padded to it with silence
    trim_db: float | None = Field(None, gt=0)  # silence at both ends is left out: so much below the loudest moment
    long: Literal["windows", "first"] = "windows"  # of a sound longer than a window: all of its windows, or one

    @model_validator(mode="after")
    def _one_sample_rate(self) -> Self:
        rates = {feature.sample_rate for feature in self.features}
        if len(rates) > 1:
            raise ValueError(f"all features must share one sample_rate; got {sorted(rates)}")
        names = [feature.name for feature in self.features]
        if len(set(names)) < len(names):
            raise ValueError(f"each feature may stand once; got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _a_minimum_is_no_more_than_a_window(self) -> Self:
        if self.length == "adaptive" and self.min_s > self.window_s:
            raise ValueError(f"min_s must be at most window_s, the maximum; got {self.min_s:g} and {self.window_s:g}")
        return self

    @property
    def sample_rate(self) -> int:
        return self.features[0].sample_rate

    @property
    def window(self) -> int:
        return round(self.window_s * self.sample_rate)

    @property
    def hop(self) -> int:
        return round(self.hop_s * self.sample_rate)

    @property
    def least(self) -> int:
        """Samples of the shortest window."""
        return round(self.min_s * self.sample_rate) if self.length == "adaptive" else self.window

    def shapes(self, n_samples: int | None = None) -> dict[str, tuple[int, int]]:
        """(F, L) of each feature of one window, if nothing else is said of the longest."""
        return {feature.name: feature.shape(n_samples or self.window) for feature in self.features}


@dataclass(frozen=True)
class Windows:
    """`features[name]` is [W, F, L] at the windows' own length, one for all: only a sound of one window has a shorter.

    `quiet` [W] marks windows without sound.
    """

    start_s: list[float]
    features: dict[str, NDArray[np.float32]]
    quiet: NDArray[np.bool_]
    measures: list[float] = field(default_factory=list)  # of the sound as a whole, see `measures`


@dataclass(frozen=True)
class Cut:
    """A sound's windows, W of [N], as they are before any level or feature; what fills up one begins at `own`."""

    start_s: list[float]
    waves: list[NDArray[np.float32]]
    own: int
    duration_s: float


class Featurizer(nn.Module):
    """Windows [W, N] to {name: [W, F, L]}; `fast` is the same on the CPU, one by one: batches miss the cache."""

    def __init__(self, spec: FrontEnd) -> None:
        super().__init__()
        self.spec = spec
        parts: dict[str, Feature] = {feature.name: FEATURES[feature.name](feature) for feature in spec.features}
        self.parts = nn.ModuleDict(parts)
        self._parts = parts
        self._shares = any(isinstance(part, LogMel) and part.has_end_to_end(N_FFT) for part in parts.values())

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        level = _level(wave, self.spec.level)
        short = max(0, self.spec.least - wave.shape[-1])
        level = F.pad(level, (0, short)) if short else level
        return {name: part(level) for name, part in self.parts.items()}

    def fast(self, wave: NDArray[np.float32]) -> Windows:
        """A sound of any length, already at `spec.sample_rate`, to all of its windows."""
        cut, each = self.cut(wave), list[Level]()
        made: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self._parts}
        for one in cut.waves:  # all the way one by one, while it lies in the cache
            each.append(self._window(one, one[: cut.own], made))
        features = {name: np.stack(rows) if rows else self._none(name) for name, rows in made.items()}
        first = features[self.spec.features[0].name]
        found = with_feature(levels(each, self.spec.sample_rate), first, cut.duration_s)
        return Windows(cut.start_s, features, np.array([one.peak < QUIET for one in each], bool), found.tolist())

    def cut(self, wave: NDArray[np.float32]) -> Cut:
        """The first step of `fast`."""
        rate, seconds, at = self.spec.sample_rate, len(wave) / self.spec.sample_rate, 0
        if self.spec.trim_db is not None:
            at, stop = trimmed(wave, rate, self.spec.trim_db)
            wave = wave[at:stop]
        own = min(self.spec.window, max(1, len(wave))) if self.spec.length == "adaptive" else self.spec.window
        begins, cut = windows.cut(wave, own, self.spec.hop)
        if self.spec.long == "first":
            begins, cut = begins[:1], [one.copy() for one in cut[:1]]  # does not hold all the sound
        return Cut([(at + begin) / rate for begin in begins], cut, len(wave), seconds)

    def _window(
        self, wave: NDArray[np.float32], own: NDArray[np.float32], made: dict[str, list[NDArray[np.float32]]]
    ) -> Level:
        """Its features are added to those that are `made`; its level is that of the sound, its own samples."""
        highest, short = peak(own), self.spec.least - len(wave)
        level = _fast_level(wave, highest, self.spec.level)
        level = np.pad(level, (0, short)) if short > 0 else level
        powers = np.empty((len(own) // N_FFT if self._shares else 0, N_FFT // 2 + 1), np.float32)
        for name, part in self._parts.items():
            made[name].append(part.fast(level, powers) if isinstance(part, LogMel) else part.fast(level))
        return Level.of(own, highest, powers)

    def _none(self, name: str) -> NDArray[np.float32]:
        return np.zeros((0, *self.spec.shapes()[name]), np.float32)


def _level(wave: Tensor, kind: str) -> Tensor:
    """Each window brought to one loudness; silence is left where it is."""
    if kind == "none":
        return wave
    peak = torch.maximum(wave.amax(-1, keepdim=True), -wave.amin(-1, keepdim=True))
    loud = peak if kind == "peak" else wave.square().mean(-1, keepdim=True).sqrt() * 10
    return wave / torch.where(peak < QUIET, 1.0, loud.clamp_min(QUIET))


def _fast_level(wave: NDArray[np.float32], peak: np.float32, kind: str) -> NDArray[np.float32]:
    """The same of one window whose peak is known."""
    if kind == "none" or peak < QUIET:
        return wave
    loud = peak if kind == "peak" else np.sqrt(wave @ wave / np.float32(len(wave))) * np.float32(10)
    return wave / max(loud, np.float32(QUIET))


class Statistics(Spec):
    """Mean and deviation of each feature over the training split, by which the network's input is normalised.

    One number for a picture, whose bands keep their balance; one a row for `summary`, whose rows run from 1e-4 to 2e4.
    """

    mean: dict[str, tuple[float, ...]]
    std: dict[str, tuple[float, ...]]
    n_windows: int

    @classmethod
    def of(cls, sums: Mapping[str, NDArray[np.float64]], n_windows: int) -> Self:
        """From [3, R]: sums, sums of squares and counts of each feature."""
        mean = {name: total / count for name, (total, _, count) in sums.items()}
        std = {
            name: np.sqrt(np.maximum(squares / count - mean[name] ** 2, 0.0))
            for name, (_, squares, count) in sums.items()
        }
        least = {name: np.maximum(1e-3 * np.minimum(1.0, np.abs(mean[name])), 1e-6) for name in sums}
        return cls(
            mean={name: tuple(values.tolist()) for name, values in mean.items()},
            std={name: tuple(np.maximum(std[name], least[name]).tolist()) for name in sums},
            n_windows=n_windows,
        )


def sums_of(name: str, values: NDArray[np.float16]) -> NDArray[np.float64]:
    """What `Statistics.of` needs of windows [W, F, L]: [3, 1], or [3, F] where each row is normalised by itself."""
    wide = values.astype(np.float64)
    rows = wide.reshape(1, -1) if name in FRAME_FEATURES else wide.swapaxes(0, 1).reshape(wide.shape[1], -1)
    return np.stack([rows.sum(1), (rows**2).sum(1), np.full(len(rows), rows.shape[1], np.float64)])


def alike(n: int, frames: NDArray[np.int64] | None, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in batches whose windows have one length: no score then depends on what else is in its batch."""
    lengths = np.zeros(n, np.int64) if frames is None else frames
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        yield from (rows[at : at + batch_size] for at in range(0, len(rows), batch_size))
