"""What training does to its batches, in the order in which a sound would meet it.

Other sounds are added first (polymix), then the picture of what is heard is moved, stretched and masked, and pictures
are blended last (mixup).

Shapes: N windows of the split, B rows of one worker's batch, K labels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instrunet.augment import batch, specaugment, spectrogram
from instrunet.features import FRAME_FEATURES, SHARE
from instrunet.features.featurizer import Statistics
from instrunet.models.blocks import sounding
from instrunet.training.optim import TrainSpec


def draw(spec: TrainSpec, epoch: int, n: int) -> dict[str, NDArray[np.float32]]:
    """The epoch's random numbers {effect: [N, n_draws]} of every window, whichever worker takes it."""
    moves = {"roll": spec.roll, "crop": spec.crop}
    tables = {name: spectrogram.draw(effect, spec.seed, epoch, n) for name, effect in moves.items() if effect}
    if spec.specaugment:
        tables["specaugment"] = specaugment.draw(spec.specaugment, spec.seed, epoch, n)
    return tables


class Augment:
    """One epoch's augmentation, on the device, inside the step."""

    def __init__(self, spec: TrainSpec, epoch: int, statistics: Statistics) -> None:
        self.spec, self.epoch, self.statistics = spec, epoch, statistics

    def __call__(
        self, features: dict[str, Tensor], targets: Tensor, draws: dict[str, Tensor], number: int
    ) -> batch.Mixed:
        """Features {name: [B, F, L]} and targets [B, K] of batch `number`; `draws` are its rows of the tables."""
        spec, rng = self.spec, batch.batch_generator(self.spec.seed, self.epoch, number)
        features = self._filled(features) if SHARE in features else features
        if spec.polymix:
            features, targets = batch.polymix(features, targets, spec.polymix, rng)
        features = self._move(features, draws)
        if spec.mixup:
            features, targets = batch.mixup(features, targets, spec.mixup, rng)
        return features, targets

    def _filled(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is not a window's own becomes the mean, as in the network: others are mixed with it here."""
        found = dict(features)
        for name in _pictures(features):
            own = sounding(features[SHARE], features[name].shape[2])[:, None]
            found[name] = features[name].masked_fill(~own, self.statistics.mean[name][0])
        return found

    def _move(self, features: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        spec = self.spec
        mean = {name: values[0] for name, values in self.statistics.mean.items()}
        if spec.roll:
            features = spectrogram.roll(features, draws["roll"], spec.roll, mean)
        if spec.crop:
            features = spectrogram.crop(features, draws["crop"], spec.crop)
        if spec.specaugment:
            table = draws["specaugment"]
            masked = {n: specaugment.mask(features[n], table, spec.specaugment, mean[n]) for n in _pictures(features)}
            features = features | masked
        return features


def _pictures(features: dict[str, Tensor]) -> list[str]:
    return [name for name in features if name in FRAME_FEATURES]
