"""Pieces that several networks share.

Shapes: B clips, C maps, H bands, W frames.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-5  # the slope of a root is endless at 0


def sounding(share: Tensor, n_frames: int) -> Tensor:
    """[B] shares of a window to [B, W], true where a frame holds sound; the first one always does."""
    held = (share * n_frames - 1e-3).ceil().clamp_min(1)  # 37 / 130 times 130 is 37.000004 in single precision
    return torch.arange(n_frames, device=share.device) < held[:, None]


def mean_over_picture(maps: Tensor, share: Tensor | None) -> Tensor:
    """[B, C, H, W] or [B, C, W] to [B, C]; frames without sound do not count."""
    if share is None:
        return maps.mean(tuple(range(2, maps.ndim)))
    over_bands = (maps.mean(2) if maps.ndim == 4 else maps).float()  # [B, C, W]: a mask of whole maps costs their size
    mask = sounding(share, maps.shape[-1])[:, None].float()
    return (over_bands * mask).sum(2) / mask.sum(2)


def silenced(maps: Tensor, share: Tensor | None) -> Tensor:
    """Frames without sound as zeros, which is what a convolution sees beyond the edge of a picture."""
    return maps if share is None else maps.masked_fill(_over_maps(share, maps) == 0, 0.0)


def _over_maps(share: Tensor, maps: Tensor) -> Tensor:
    """[B, 1, 1, W] or [B, 1, W], as `maps` has it: 1 where there is sound."""
    mask = sounding(share, maps.shape[-1]).to(maps.dtype)
    return mask.reshape(mask.shape[0], *[1] * (maps.ndim - 2), -1)


class SqueezeExcite(nn.Module):
    """Each map weighed by what all of them hold on average. [B, C, H, W] or [B, C, W] to the same."""

    def __init__(self, n_maps: int, n_hidden: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(n_maps, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_maps), nn.Sigmoid())

    def forward(self, maps: Tensor, share: Tensor | None = None) -> Tensor:
        return maps * self.weights(maps, share)

    def weights(self, maps: Tensor, share: Tensor | None) -> Tensor:
        """[B, C, 1, 1] or [B, C, 1], from 0 to 1."""
        found: Tensor = self.weigh(mean_over_picture(maps, share))
        return found.reshape(found.shape + (1,) * (maps.ndim - 2)).to(maps.dtype)


def squeeze(n_maps: int) -> SqueezeExcite:
    """An eighth of the maps in between, but 8 at least: 16 maps squeezed into 2 numbers say nothing."""
    return SqueezeExcite(n_maps, max(8, n_maps // 8))


def through(layers: Iterable[nn.Module], x: Tensor, share: Tensor | None) -> Tensor:
    """A sequence of layers, of which squeeze-and-excitation must not count frames without sound."""
    for layer in layers:
        x = layer(x, share) if isinstance(layer, SqueezeExcite) else layer(x)
    return x


class Branches(nn.Module):
    """Parallel convolutions of several kernels, their maps concatenated. [B, C, H, W] or [B, C, W]."""

    def __init__(self, kind: type[nn.Conv1d | nn.Conv2d], n_in: int, widths: dict[int, int]) -> None:
        """`widths` is {kernel: maps}."""
        super().__init__()
        self.kernels = nn.ModuleList(kind(n_in, n, kernel, padding=kernel // 2) for kernel, n in widths.items())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([kernel(x) for kernel in self.kernels], 1)


class AttentivePooling(nn.Module):
    """Frames [B, C, W] to [B, 2C]: mean and deviation over time, where frames weigh what the network makes of them."""

    def __init__(self, n_maps: int, n_hidden: int, n_heads: int = 1) -> None:
        """Each head weighs `n_maps / n_heads` of the maps."""
        super().__init__()
        self.attend = nn.Sequential(nn.Conv1d(n_maps, n_hidden, 1), nn.Tanh(), nn.Conv1d(n_hidden, n_heads, 1))
        self.n_each = n_maps // n_heads

    def forward(self, frames: Tensor, share: Tensor | None = None) -> Tensor:
        frames = frames.float()  # in bf16 the difference below would be rounding alone
        scores = self.attend(frames).float()
        if share is not None:
            scores = scores.masked_fill(~sounding(share, frames.shape[2])[:, None], -torch.inf)
        weights = scores.softmax(2).repeat_interleave(self.n_each, 1)
        mean = (frames * weights).sum(2)
        variance = (frames.square() * weights).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp_min(LEAST_VARIANCE).sqrt()], 1)
