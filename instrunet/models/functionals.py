"""Numbers that describe how a sound's spectrum stands and moves, and a reading of them that is linear.

What the speech sciences call functionals. Convolutions look for shapes and learn the voices they have heard; these
numbers know no shapes, and so are wrong about other clips: the best use of this network is as a member of an ensemble.

Shapes: B clips, C channels, F bands, L frames, Q cepstra, R rates, N numbers, K labels.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from instrunet.models.blocks import sounding
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.picture import check_grid

LEAST = (2, 4)  # bands and frames: below, there is nothing to correlate
SLOWEST = 256  # frames of one turn of the slowest rate
STILL = 1e-3  # of a deviation of the training data: movement below this is none


class FunctionalsSpec(PictureBodySpec):
    name: Literal["functionals"] = "functionals"
    means: bool = True  # of each band: the colour of a sound, and of its microphone
    cepstra: int = Field(16, ge=2)
    rates: PositiveInt = 40  # up to this many turns in 256 frames
    rates_together: PositiveInt = 4  # of which one number is made
    hidden: int = Field(0, ge=0)  # units of a layer before the labels; 0: the numbers are read as they are
    dropout: float = Field(0.2, ge=0, lt=1)


class Functionals(Body):
    """[B, C, F, L] to [B, K]. What stands in frames without sound does not change the answer."""

    cosines: Tensor
    turns: Tensor

    def __init__(self, spec: FunctionalsSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, LEAST)
        n_bands, n_cepstra = grid[0], min(spec.cepstra, grid[0])
        self.means, self.together = spec.means, spec.rates_together
        n_rates = -(-spec.rates // self.together)
        self.register_buffer("cosines", _cosines(n_cepstra, n_bands), persistent=False)
        turns = torch.arange(1, n_rates * self.together + 1) * (2 * math.pi / SLOWEST)
        self.register_buffer("turns", turns, persistent=False)
        n = (2 + spec.means) * n_bands + n_cepstra * (1 + n_rates) + n_cepstra * (n_cepstra - 1) // 2
        self.norm = nn.BatchNorm1d(n, affine=False)
        self.dense = _dense(n, spec) if spec.hidden else nn.Identity()
        self.width = spec.hidden or n
        self.head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        with _whole_numbers(picture.device.type):
            numbers = self.norm(self.numbers(picture.float().mean(1), share))
        embedding: Tensor = self.dense(numbers)
        return embedding

    def numbers(self, bands: Tensor, share: Tensor | None) -> Tensor:
        """[B, F, L] to [B, N]: of each band its mean, spread and pace; each cepstrum its pace, rates and company."""
        n_frames = bands.shape[2]
        whole = bands.new_ones(bands.shape[0]) if share is None else share
        held = sounding(whole, n_frames)[:, None].to(bands.dtype)  # [B, 1, L]
        n = held.sum(2)
        mean = (bands * held).sum(2) / n
        moving = (bands - mean[:, :, None]) * held
        spread = (moving.square().sum(2) / n + STILL**2).sqrt()
        cepstra = self.cosines @ moving  # [B, Q, L], of no mean as well
        colour = [mean - mean.mean(1, keepdim=True)] if self.means else []
        paces = [_pace(values, held) for values in (moving, cepstra)]
        return torch.cat([*colour, spread, *paces, self._rates(cepstra, n), _company(cepstra)], 1)

    def _rates(self, cepstra: Tensor, n: Tensor) -> Tensor:
        """How much of a movement lies at which rate: a spectrum over time at fixed rates, whatever the length."""
        phase = torch.arange(cepstra.shape[2], device=cepstra.device, dtype=cepstra.dtype)[:, None] * self.turns
        power = (cepstra @ phase.cos()).square() + (cepstra @ phase.sin()).square()  # [B, Q, R]
        size = (power / n[:, :, None] + STILL**2).sqrt()
        groups: Tensor = size.unflatten(2, (-1, self.together))
        return groups.mean(3).log().flatten(1)


def _whole_numbers(device: str) -> AbstractContextManager[None]:
    """Differences of frames, in bf16, are rounding. What only counts shapes knows no precision."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def _dense(n: int, spec: FunctionalsSpec) -> nn.Module:
    return nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(n, spec.hidden), nn.ReLU())


def _pace(values: Tensor, held: Tensor) -> Tensor:
    """[B, F, L] to [B, F]: by how much a value changes from one frame to the next, on average."""
    both = held[:, :, 1:] * held[:, :, :-1]
    return ((values[:, :, 1:] - values[:, :, :-1]).abs() * both).sum(2) / both.sum(2).clamp_min(1)


def _company(cepstra: Tensor) -> Tensor:
    """Correlations of each pair of them over time."""
    unit = cepstra / (cepstra.square().sum(2, keepdim=True) + STILL**2).sqrt()
    found = unit @ unit.transpose(1, 2)
    one, other = torch.triu_indices(found.shape[1], found.shape[1], 1, device=found.device)
    pairs: Tensor = found[:, one, other]
    return pairs


def _cosines(n_cepstra: int, n_bands: int) -> Tensor:
    """[Q, F] of a cosine transform; movement of all bands alike is the first."""
    place = (torch.arange(n_bands) + 0.5) * (math.pi / n_bands)
    rows = torch.cos(torch.arange(n_cepstra)[:, None] * place) * math.sqrt(2 / n_bands)
    rows[0] *= math.sqrt(0.5)
    return rows
