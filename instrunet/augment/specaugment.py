"""SpecAugment: stretches of time and bands of frequency are blanked out, on the device, inside the step.

Shapes: B clips, F bands, L frames, M masks.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from instrunet.config import Spec


class SpecAugmentSpec(Spec):
    """Widths are shares of the axis; a mask has any whole width from nothing to that share, and any place, alike."""

    time_masks: int = Field(2, ge=0)
    time_share: float = Field(0.15, ge=0, le=1)
    frequency_masks: int = Field(2, ge=0)
    frequency_share: float = Field(0.12, ge=0, le=1)

    @property
    def n_draws(self) -> int:
        return 2 * (self.time_masks + self.frequency_masks)


def draw(spec: SpecAugmentSpec, seed: int, epoch: int, n_clips: int) -> NDArray[np.float32]:
    """The epoch's random numbers for every clip [n_clips, n_draws].

    Drawn as one table in the order of the manifest, so a clip gets the same masks with 1 worker or 64.
    """
    return np.random.default_rng([seed, epoch]).random((n_clips, spec.n_draws), dtype=np.float32)


def mask(features: Tensor, draws: Tensor, spec: SpecAugmentSpec, fill: float) -> Tensor:
    """[B, F, L] with its masks filled by `fill`; `draws` [B, n_draws] are this batch's rows of the table."""
    width, place = draws.chunk(2, dim=1)
    cut = spec.frequency_masks
    bands = _inside(features.shape[1], spec.frequency_share, width[:, :cut], place[:, :cut])
    frames = _inside(features.shape[2], spec.time_share, width[:, cut:], place[:, cut:])
    return features.masked_fill(bands[:, :, None] | frames[:, None, :], fill)


def _inside(n: int, share: float, width: Tensor, place: Tensor) -> Tensor:
    """[B, n], true where any of the masks lies; their `width` and `place` [B, M] are drawn from [0, 1)."""
    long = (width * (int(share * n) + 1)).floor()
    begin = (place * (n - long + 1)).floor()
    index = torch.arange(n, device=width.device).view(1, 1, n)
    covered = (index >= begin[..., None]) & (index < (begin + long)[..., None])
    return covered.any(1)
