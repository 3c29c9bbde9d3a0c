"""Clips of a batch mixed with one another: mixup, and polymix, which makes polyphony out of single sounds.

Partners are rows of the same batch on the same worker, so what is mixed hangs on the number of workers, as batch norm
does; with the same number it hangs on (seed, epoch, batch) alone.

Shapes: B clips, F bands, L frames, K labels, P partners.
"""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from instrunet.augment.spectrogram import only
from instrunet.config import Spec
from instrunet.features import SHARE

Mixed = tuple[dict[str, Tensor], Tensor]  # features and targets [B, K]
# Natural logarithms of power + floor: the only ones in which powers can be added
SUMMABLE = ("logmel", "hpss")


class MixupSpec(Spec):
    """Weights from Beta(alpha, alpha): 0.2 mostly leaves a clip nearly alone, 1 takes every weight alike."""

    alpha: float = Field(0.3, gt=0)
    per: Literal["row", "batch"] = "row"  # one weight for each row, or one for all


class PolymixSpec(Spec):
    """1 to `partners` clips of other classes sound along, each at a level drawn from `level_db` of the clip's own."""

    p: float = Field(0.5, ge=0, le=1)
    partners: int = Field(2, ge=1)
    level_db: tuple[float, float] = (-9.0, 3.0)

    @model_validator(mode="after")
    def _levels_are_in_order(self) -> Self:
        low, high = self.level_db
        if not -60 <= low <= high <= 60:
            raise ValueError(f"level_db needs -60 <= low <= high <= 60; got {low:g} and {high:g}")
        return self


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """For everything that is mixed in one batch; 4 is its stream of numbers beside those of spectrogram.py."""
    return np.random.default_rng([seed, epoch, 4, batch])


def mixup(features: Mapping[str, Tensor], targets: Tensor, spec: MixupSpec, rng: np.random.Generator) -> Mixed:
    """Each row with another: w * own + (1 - w) * other, of features as they stand (logarithms) and of targets."""
    n = len(targets)
    weight = rng.beta(spec.alpha, spec.alpha, size=n if spec.per == "row" else 1)
    order = rng.permutation(n)
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, 1)  # one ring: nobody is its own partner unless it is alone
    own = torch.from_numpy(np.resize(weight, n).astype(np.float32)).to(targets.device)
    other = torch.from_numpy(partner).to(targets.device)
    blend = {
        name: torch.maximum(value, value[other])
        if name == SHARE
        else torch.lerp(value[other], value, own[:, None, None])
        for name, value in features.items()
    }
    return blend, torch.lerp(targets[other], targets, own[:, None])


def polymix(features: Mapping[str, Tensor], targets: Tensor, spec: PolymixSpec, rng: np.random.Generator) -> Mixed:
    """Powers summed, labels united: log(w0 * exp(own) + w1 * exp(other) + ...).

    The weights sum to 1: the mixture then has the level of one clip, as the front end would have brought it to, and
    the floor inside the logarithm stays what it was. Phases are taken as unrelated.
    """
    only("polymix", features, SUMMABLE)
    n_partners = min(spec.partners, len(targets) - 1)
    if n_partners < 1:
        return dict(features), targets
    partners, free = _others(targets, n_partners, rng)
    weights = _weights(free, spec, rng)
    mixed = {name: _sum(value, partners, weights.log()) for name, value in features.items() if name != SHARE}
    sounding = weights[:, 1:] > 0  # [B, P]
    if SHARE in features:
        longest = torch.where(sounding, features[SHARE][partners], 0).amax(1)
        mixed[SHARE] = torch.maximum(features[SHARE], longest)
    united = torch.where(sounding[:, :, None], targets[partners], 0).amax(1)
    return mixed, torch.maximum(targets, united)


def _others(targets: Tensor, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rows [B, n] for each row to be mixed with, at random, and whether each shares no label with it."""
    b = len(targets)
    score = torch.from_numpy(rng.random((b, b), dtype=np.float32)).to(targets.device)
    alike = (targets @ targets.T > 0) | torch.eye(b, dtype=torch.bool, device=targets.device)
    best, rows = score.masked_fill(alike, 2).topk(n, dim=1, largest=False)
    return rows, best < 1


def _weights(free: Tensor, spec: PolymixSpec, rng: np.random.Generator) -> Tensor:
    """[B, 1 + P], of power, each row's sum 1: of the clip itself and of its partners, 0 for those left out."""
    b, n = free.shape
    chosen = rng.random((b, 1)) < spec.p
    count = rng.integers(1, n, size=(b, 1), endpoint=True)
    power = 10 ** (rng.uniform(*spec.level_db, size=(b, n)) / 10) * (chosen & (np.arange(n) < count))
    of_partners = torch.from_numpy(power.astype(np.float32)).to(free.device) * free
    weights = torch.cat([torch.ones_like(of_partners[:, :1]), of_partners], 1)
    return weights / weights.sum(1, keepdim=True)


def _sum(logs: Tensor, partners: Tensor, log_weights: Tensor) -> Tensor:
    total = logs + log_weights[:, 0, None, None]
    for k in range(partners.shape[1]):
        total = torch.logaddexp(total, logs[partners[:, k]] + log_weights[:, 1 + k, None, None])
    return total
