"""What a model hears: the table of features, each a spec and a class."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from instrunet.features.chroma import Chroma, ChromaSpec
from instrunet.features.cqt import Cqt, CqtSpec
from instrunet.features.hpss import Hpss, HpssSpec
from instrunet.features.logmel import LogMel, LogMelSpec
from instrunet.features.summary import Summary, SummarySpec

Feature = LogMel | Cqt | Chroma | Hpss | Summary
FeatureSpec = Annotated[LogMelSpec | CqtSpec | ChromaSpec | HpssSpec | SummarySpec, Field(discriminator="name")]
# What `name` may be in `front.features`, and what makes it. All have `forward` for batches and `fast` for one clip.
FEATURES: dict[str, Callable[[Any], Feature]] = {
    "logmel": LogMel,
    "cqt": Cqt,
    "chroma": Chroma,
    "hpss": Hpss,
    "summary": Summary,
}
# Those with 1 + n_samples // hop_length frames: pictures. `summary` is a list of numbers, whatever the length.
SHARE = "share"  # [B], beside the features of a batch: how much of a window is its own, where windows differ in length
FRAME_FEATURES = tuple(name for name in FEATURES if name != "summary")
IN_TORCH = ("logmel", "chroma")  # the others' `forward` is `fast`, on the CPU

__all__ = ["FEATURES", "FRAME_FEATURES", "IN_TORCH", "SHARE", "Feature", "FeatureSpec", "LogMel", "LogMelSpec"]
