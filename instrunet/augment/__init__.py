"""What is done to training clips so that a model cannot learn them by heart: three tables, and one spec of all.

In the order in which it happens: effects on the waveform (WAVEFORM, before the features), then on the device crop and
roll, polymix, mixup, and the masks of SpecAugment last, so that no mask is mixed into another clip.
"""

from collections.abc import Callable, Iterable
from typing import Any

from instrunet.augment.batch import SUMMABLE, MixupSpec, PolymixSpec, batch_generator, mixup, polymix
from instrunet.augment.specaugment import SpecAugmentSpec, mask
from instrunet.augment.spectrogram import PICTURES, CropSpec, RollSpec, crop, only, roll
from instrunet.augment.waveform import WAVEFORM, WaveformSpec, augment_wave, generator
from instrunet.config import Spec

# One clip at a time, from its row of a table of draws
SPECTROGRAM: dict[str, Callable[..., Any]] = {"crop": crop, "roll": roll, "specaugment": mask}
# Clips with one another, features and targets together, from the generator of the batch
BATCH: dict[str, Callable[..., Any]] = {"polymix": polymix, "mixup": mixup}


class AugmentSpec(Spec):
    waveform: tuple[WaveformSpec, ...] = ()
    specaugment: SpecAugmentSpec | None = SpecAugmentSpec()
    roll: RollSpec | None = None
    crop: CropSpec | None = None
    mixup: MixupSpec | None = None
    polymix: PolymixSpec | None = None

    def check(self, features: Iterable[str]) -> None:
        """Refuse what a step would refuse, before any work is done: effects on features they are not made for."""
        names = tuple(features)
        for effect, works in (("crop", PICTURES), ("roll", PICTURES), ("polymix", SUMMABLE)):
            if getattr(self, effect) is not None:
                only(effect, names, works)


__all__ = [
    "BATCH",
    "SPECTROGRAM",
    "WAVEFORM",
    "AugmentSpec",
    "CropSpec",
    "MixupSpec",
    "PolymixSpec",
    "RollSpec",
    "SpecAugmentSpec",
    "WaveformSpec",
    "augment_wave",
    "batch_generator",
    "generator",
]
