"""What a bundle makes of one sound on the way to an answer: what the network sees, and what it says of that.

Shapes: W windows, K labels, E numbers of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.features.featurizer import FrontEnd, Windows

SeenAs = TypeVar("SeenAs")  # `Windows`, or what comes before them


class Seen(NamedTuple, Generic[SeenAs]):
    """A sound as the network sees it; no `status`: all is well with it."""

    status: str
    reason: str
    flags: list[str]
    duration_s: float
    windows: SeenAs


@dataclass(frozen=True)
class Heard:
    """The windows of one sound and their scores [W, K]; the first four are as in `Seen`."""

    status: str
    reason: str
    flags: list[str]
    duration_s: float
    window_start_s: list[float]
    scores: NDArray[np.float32]
    measures: list[float]
    embeddings: NDArray[np.float16] | None = None  # [W, E], where they were asked for

    @classmethod
    def of(
        cls, seen: Seen[Windows], scores: NDArray[np.float32], embeddings: NDArray[np.float16] | None = None
    ) -> "Heard":
        return cls(*seen[:4], seen.windows.start_s, scores, seen.windows.measures, embeddings)


def looked(
    sound: io.Sound, front: FrontEnd, start_s: float, see: Callable[[NDArray[np.float32]], SeenAs]
) -> Seen[SeenAs]:
    """A sound that begins at `start_s` of its file, as `see` makes it of its samples: of none where it is not heard."""
    rate = front.sample_rate
    status, reason = io.verdict(sound, rate)
    kept = not status or (bool(sound.damage) and not io.verdict(io.Sound(sound.wave), rate)[0])
    unheard = not kept or (front.long == "first" and start_s > 0)
    return Seen(status, reason, sound.flags, len(sound.wave) / rate, see(sound.wave[:0] if unheard else sound.wave))
