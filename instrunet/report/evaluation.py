"""All that a report says, as data.

Shapes: N windows, F bands, L frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

from instrunet.metrics.slices import Slice


@dataclass(frozen=True)
class ClipResult:
    """What one clip is and what the model made of it. `score` is that of the prediction, from 0 to 1; `scores` are all
    labels', and `drift` is how far the clip lies from what was trained on."""

    clip_id: str
    uri: str
    group: str
    true: Sequence[str]
    predicted: Sequence[str]
    score: float
    start_s: float | None = None
    stop_s: float | None = None
    scores: Sequence[float] = ()
    drift: float | None = None
    answered: bool = True  # False: the model was not sure enough, and `predicted` is empty

    @property
    def wrong(self) -> bool:
        return self.answered and set(self.true) != set(self.predicted)


CLIPS = pa.schema(
    [(name, pa.string()) for name in ("clip_id", "uri", "group")]
    + [(name, pa.list_(pa.string())) for name in ("true", "predicted")]
    + [(name, pa.float64()) for name in ("score", "start_s", "stop_s")]
    + [("scores", pa.list_(pa.float64())), ("drift", pa.float64()), ("answered", pa.bool_())]
)


@dataclass(frozen=True)
class Shown:
    """The window of a clip that decided, from `start_s` of the clip on: what was heard, gone by, its sound."""

    clip: ClipResult
    start_s: float
    loudest: Sequence[tuple[float, float]] = ()  # windows: from which second on, and their score for the answer
    heard: NDArray[Any] | None = None  # [F, L]
    went_by: NDArray[Any] | None = None  # [F, L] from 0 to 1
    audio: bytes = b""  # MP3


@dataclass(frozen=True)
class Why:
    """What `shown.why` found: clips worth a look, bands with the fall of the true labels' score without them, and
    maps of the same windows, by name, with the true label of each and whether its clip was mistaken."""

    shown: Sequence[Shown] = ()
    strips: Sequence[tuple[str, float]] = ()
    maps: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [N, 2] each
    point_labels: Sequence[str] = ()
    point_wrong: Sequence[bool] = ()


@dataclass(frozen=True)
class Evaluation:
    """All that a report says. `metrics` is what `metrics.single.evaluate` or `metrics.multi.evaluate` gave."""

    title: str
    kind: Literal["single", "multi"]
    labels: Sequence[str]
    metrics: Mapping[str, Any]
    bundle: str
    fingerprint: str
    model: str
    n_parameters: int
    corpus: str
    split: str
    n_clips: int
    n_groups: int
    leaky: bool
    leak_reasons: Sequence[str] = ()
    drift: Mapping[str, Any] | None = None  # what `drift.compare` gave
    protocols: Sequence[Mapping[str, Any]] = ()  # rows of `protocols.table`
    belief: Mapping[str, Any] | None = None  # what `scoring.belief` gave
    clips: Sequence[ClipResult] = ()
    history: Sequence[Mapping[str, Any]] = ()
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # label -> [F, L]
    why: Why = Why()
    slices: Sequence[Slice] = ()
    rivals: Sequence[Mapping[str, Any]] = ()  # what `sides.beside` gave
