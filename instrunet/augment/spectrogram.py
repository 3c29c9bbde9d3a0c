"""Rolls and crops of the picture, on the device, inside the step: a sound a little higher, lower, faster or slower.

Shapes: B clips, F bands, L frames.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from instrunet.config import Spec
from instrunet.errors import ConfigError
from instrunet.features import SHARE

# How many pictures a feature lays above one another; each is moved for itself. On `chroma` the bands are a circle, and
# `summary` is no picture.
PICTURES = {"logmel": 1, "cqt": 1, "hpss": 2}


class RollSpec(Spec):
    """All bands move up or down by a whole number of them; what moves in is filled, not what fell out at the top."""

    stream: ClassVar[int] = 2  # of random numbers beside (seed, epoch): 0 is SpecAugment's, 1 the order of the rows
    n_draws: ClassVar[int] = 2
    p: float = Field(0.5, ge=0, le=1)
    share: float = Field(0.08, ge=0, le=1)  # of the bands, at most


class CropSpec(Spec):
    """A random part of the picture is stretched to the whole; it holds at least these shares of the axes."""

    stream: ClassVar[int] = 3
    n_draws: ClassVar[int] = 5
    p: float = Field(0.5, ge=0, le=1)
    time_share: float = Field(0.7, gt=0, le=1)
    frequency_share: float = Field(0.9, gt=0, le=1)


def draw(spec: RollSpec | CropSpec, seed: int, epoch: int, n_clips: int) -> NDArray[np.float32]:
    """The epoch's random numbers for every clip [n_clips, n_draws], one table in the manifest's order: any workers."""
    return np.random.default_rng([seed, epoch, spec.stream]).random((n_clips, spec.n_draws), dtype=np.float32)


def roll(features: Mapping[str, Tensor], draws: Tensor, spec: RollSpec, fill: Mapping[str, float]) -> dict[str, Tensor]:
    """{name: [B, F, L]} with bands moved; `draws` [B, 2] are this batch's rows of the table."""
    only("roll", features, PICTURES)
    share = torch.where(draws[:, 0] < spec.p, (2 * draws[:, 1] - 1) * spec.share, 0.0)
    moved = {n: _roll(value, share, PICTURES[n], fill[n]) for n, value in features.items() if n != SHARE}
    return {**features, **moved}


def _roll(features: Tensor, share: Tensor, pictures: int, fill: float) -> Tensor:
    each = features.unflatten(1, (pictures, -1))  # [B, pictures, F / pictures, L]
    n = each.shape[2]
    index = torch.arange(n, device=share.device) - (share * n).round().long()[:, None]  # [B, F / pictures]
    moved = each.gather(2, index.clamp(0, n - 1)[:, None, :, None].expand_as(each))
    outside = (index < 0) | (index >= n)
    filled: Tensor = moved.masked_fill(outside[:, None, :, None], fill)
    return filled.flatten(1, 2)


def crop(features: Mapping[str, Tensor], draws: Tensor, spec: CropSpec) -> dict[str, Tensor]:
    """{name: [B, F, L]} of which a part is stretched to the whole; `draws` [B, 5] are this batch's rows."""
    only("crop", features, PICTURES)
    if SHARE in features and spec.time_share < 1:
        raise ConfigError(
            "crop takes parts of the time of windows of one length alone; set front.length=fixed, or "
            "train.crop.time_share=1 to crop the bands only"
        )
    whether, *of_time, low, place = draws.unbind(1)
    time = _part(spec.time_share, *of_time)
    frequency = _part(spec.frequency_share, low, place)
    zero = torch.zeros_like(whether)
    affine = torch.stack([time[0], zero, time[1], zero, frequency[0], frequency[1]], 1).view(-1, 2, 3)
    chosen = (whether < spec.p)[:, None, None]
    moved = {n: torch.where(chosen, _zoom(x, affine, PICTURES[n]), x) for n, x in features.items() if n != SHARE}
    return {**features, **moved}


def _part(least: float, size: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Length and middle of the part, on an axis from -1 to 1."""
    length = least + (1 - least) * size
    return length, (1 - length) * (2 * place - 1)


def _zoom(features: Tensor, affine: Tensor, pictures: int) -> Tensor:
    """Bilinear: what is stretched needs no filter against aliases."""
    each = features.unflatten(1, (pictures, -1))
    grid = F.affine_grid(affine, list(each.shape), align_corners=False)
    return F.grid_sample(each, grid, padding_mode="border", align_corners=False).flatten(1, 2)


def only(effect: str, names: Iterable[str], works: Iterable[str]) -> None:
    """Refuse features on which an effect would mean something else."""
    if wrong := sorted(set(names) - set(works) - {SHARE}):
        raise ConfigError(
            f"{effect} works on {', '.join(works)}; got {', '.join(wrong)}: leave it out of front.features or switch "
            f"{effect} off"
        )
