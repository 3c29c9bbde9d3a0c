"""The emotion seed's networks: convolutions over a list of 392 numbers, its dense baseline, and the same over time.

Over a list of numbers a convolution has no time scales: neighbours are coefficients, not moments. `soundmind_time` is
the idea that the seed describes, `soundmind` the network that it built; both exist so that the difference can be shown.

Shapes: B clips, C maps, F bands or numbers, L frames, K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.features.summary import N_NUMBERS, names
from instrunet.models.blocks import AttentivePooling, Branches, SqueezeExcite, silenced, through
from instrunet.models.body import Body, BodySpec, PictureBodySpec
from instrunet.models.picture import check_grid
from instrunet.models.recurrent import both_ways

STAGES = ((32, (3, 5, 7), 0.25), (64, (3, 5), 0.25), (128, (3, 5), 0.3))  # maps of a branch, kernels, dropout
N_CONVOLVED = 256  # maps of the last stage: two branches of 128
AFTER_LSTM = (0.3, 0.4)
DENSE = ((256, 0.4), (128, 0.3))  # units, dropout


class SoundMindSpec(BodySpec):
    """Dropout rates are the seed's times `dropout`: it found itself over-regularised once."""

    name: Literal["soundmind"] = "soundmind"
    dropout: float = Field(1.0, ge=0, le=2)
    l2_dense: float = Field(0.0005, ge=0)


class SoundMindTimeSpec(PictureBodySpec):
    name: Literal["soundmind_time"] = "soundmind_time"
    dropout: float = Field(1.0, ge=0, le=2)
    l2_dense: float = Field(0.0005, ge=0)


class Dense40Spec(BodySpec):
    """The seed says no more of its baseline than "dense network" and "40 MFCC": layers and dropout are ours."""

    name: Literal["dense40"] = "dense40"
    widths: tuple[int, ...] = Field((256, 128), min_length=1)
    dropout: float = Field(0.3, ge=0, lt=1)


class SoundMind(Body):
    """The 392 numbers [B, 392] to [B, K]: convolutions over the list, two LSTMs in both directions, dense layers."""

    def __init__(self, spec: SoundMindSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        _check_numbers(spec.name, grid)
        self.blocks = nn.Sequential(*(layer for stage in _stages(1, spec.dropout) for layer in stage))
        self.first, self.second = _lstm(N_CONVOLVED, 128), _lstm(256, 64)
        self.between, self.after = (nn.Dropout(rate * spec.dropout) for rate in AFTER_LSTM)
        self.dense, self.width = _dense(128, spec.dropout), DENSE[-1][0]
        self.head = nn.Sequential(nn.Linear(self.width, n_labels))

    def embed(self, numbers: Tensor, share: Tensor | None = None) -> Tensor:
        """`share` means nothing to numbers that describe a whole clip."""
        steps = through(self.blocks, numbers[:, None], None).transpose(1, 2)  # [B, 49, 256]
        both = both_ways(self.second, self.between(both_ways(self.first, steps)))
        half = both.shape[2] // 2
        ends = torch.cat([both[:, -1, :half], both[:, 0, half:]], 1)  # of each direction; its state does not export
        embedding: Tensor = self.dense(self.after(ends))
        return embedding


class SoundMindTime(Body):
    """Log-mel frames [B, C, F, L] to [B, K]: the same plan over time, bands as maps, and attention over the frames."""

    def __init__(self, spec: SoundMindTimeSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, (1, 8))
        n_in = grid[0] * spec.picture.channels
        self.blocks = nn.Sequential(*(layer for stage in _stages(n_in, spec.dropout) for layer in stage))
        self.first, self.second = _lstm(N_CONVOLVED, 128), _lstm(256, 64)
        self.between, self.after = (nn.Dropout(rate * spec.dropout) for rate in AFTER_LSTM)
        self.pool = AttentivePooling(128, 64)
        self.dense, self.width = _dense(256, spec.dropout), DENSE[-1][0]
        self.head = nn.Sequential(nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        maps = through(self.blocks, silenced(picture.flatten(1, 2), share), share)
        steps = both_ways(self.first, silenced(maps, share).transpose(1, 2))
        steps = both_ways(self.second, self.between(steps))
        embedding: Tensor = self.dense(self.after(self.pool(steps.transpose(1, 2), share)))
        return embedding


class Dense40(Body):
    """The means of the 40 MFCC among the 392 numbers [B, 392] to [B, K], through dense layers."""

    mfcc: Tensor

    def __init__(self, spec: Dense40Spec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        _check_numbers(spec.name, grid)
        rows = [k for k, name in enumerate(names()) if name.startswith("mfcc_") and name.endswith("_mean")]
        self.register_buffer("mfcc", torch.tensor(rows), persistent=False)
        widths = (len(rows), *spec.widths)
        self.dense = nn.Sequential(
            *(
                layer
                for n_in, n_out in zip(widths, widths[1:], strict=False)
                for layer in (nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(spec.dropout))
            )
        )
        self.width = widths[-1]
        self.head = nn.Sequential(nn.Linear(self.width, n_labels))

    def embed(self, numbers: Tensor, share: Tensor | None = None) -> Tensor:
        embedding: Tensor = self.dense(numbers.index_select(1, self.mfcc))
        return embedding


class Halved(nn.Module):
    """The larger of two steps: [B, C, L] to half of L. torch's pool of one dimension exports for one length alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.unsqueeze(2), (1, 2)).squeeze(2)


def _check_numbers(name: str, grid: tuple[int, int]) -> None:
    if grid[0] != N_NUMBERS:
        raise ConfigError(f"{name} reads the {N_NUMBERS} numbers of summary, got {grid[0]}; set front.features to it")


def _stages(n_in: int, scale: float) -> list[list[nn.Module]]:
    """Of each: branches, ReLU, maps weighed through a sixteenth of their number, the larger of two steps, dropout."""
    stages: list[list[nn.Module]] = []
    for width, kernels, rate in STAGES:
        n_out = width * len(kernels)
        branches = Branches(nn.Conv1d, n_in, dict.fromkeys(kernels, width))
        excite = SqueezeExcite(n_out, n_out // 16)
        stages.append([branches, nn.ReLU(), excite, Halved(), nn.Dropout(rate * scale)])
        n_in = n_out
    return stages


def _lstm(n_in: int, n_each: int) -> nn.LSTM:
    return nn.LSTM(n_in, n_each, batch_first=True, bidirectional=True)


def _dense(n_in: int, scale: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_out, rate in DENSE:
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.BatchNorm1d(n_out), nn.Dropout(rate * scale)]
        n_in = n_out
    return nn.Sequential(*layers)
