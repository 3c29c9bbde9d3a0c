"""What a picture network sees of a log-mel: its own grid or a resized one, in one channel or as a colour map.

The seeds saved PNGs and read them back (45 ms a clip); this is the same picture as two tensor operations on the device.
The three channels of a colour map hold one channel of information: kept because the seeds' networks were built on it.

Shapes: B clips, C channels, F bands, L frames, S side of the picture.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.errors import ConfigError

# Nine stops fitted to matplotlib's `magma` for the least largest error: between them linear, within 0.02 of its table
# (stops read off the table are 0.037 away between the first two).
MAGMA = (
    (0.000, 0.000, 0.000),
    (0.100, 0.063, 0.294),
    (0.328, 0.066, 0.504),
    (0.497, 0.153, 0.489),
    (0.726, 0.208, 0.496),
    (0.907, 0.310, 0.371),
    (0.986, 0.527, 0.361),
    (0.986, 0.758, 0.511),
    (0.975, 0.986, 0.731),
)


# In deviations of the training data. Silence varies by rounding alone (features are stored in steps of 1/128):
# stretched over all colours it would be noise, and no two runtimes would agree on it (scores 0.016 apart in ONNX).
LEAST_RANGE = 0.1


class PictureSpec(Spec):
    size: int | None = Field(None, gt=7)  # None: the feature's own grid
    colour: bool = False

    @property
    def channels(self) -> int:
        return 3 if self.colour else 1

    def grid(self, n_bands: int, n_frames: int) -> tuple[int, int]:
        return (self.size, self.size) if self.size else (n_bands, n_frames)


class Picture(nn.Module):
    """Normalised features [B, F, L] to [B, 1 or 3, S, S], or to [B, 1 or 3, F, L] on their own grid."""

    stops: Tensor

    def __init__(self, spec: PictureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("stops", torch.tensor(MAGMA).T.contiguous(), persistent=False)  # [3, 9]

    def forward(self, x: Tensor) -> Tensor:
        picture = x.unsqueeze(1)
        if self.spec.size:
            side = (self.spec.size, self.spec.size)
            picture = F.interpolate(picture, size=side, mode="bilinear", align_corners=False)
        return colour_map(picture, self.stops) if self.spec.colour else picture


def colour_map(picture: Tensor, stops: Tensor) -> Tensor:
    """[B, 1, H, W] to [B, 3, H, W] in -1..1: each clip stretched over the whole map, as a plot's colours are."""
    low = picture.amin((1, 2, 3), keepdim=True)
    high = picture.amax((1, 2, 3), keepdim=True)
    place = (picture - low) / (high - low).clamp_min(LEAST_RANGE) * (stops.shape[1] - 1)
    # A sum of hat functions instead of a gather: the same linear interpolation, and it exports to any runtime.
    steps = torch.arange(stops.shape[1], device=picture.device, dtype=picture.dtype).view(1, -1, 1, 1)
    weights = (1 - (place - steps).abs()).clamp_min(0)  # [B, 9, H, W]
    colours = F.conv2d(weights, stops.to(weights.dtype)[:, :, None, None])
    return colours * 2 - 1


def check_grid(name: str, grid: tuple[int, int], least: tuple[int, int]) -> None:
    """A network that halves its picture more often than it can ends in nothing."""
    if grid[0] < least[0] or grid[1] < least[1]:
        raise ConfigError(
            f"{name} needs a picture of at least {least[0]} x {least[1]}, got {grid[0]} x {grid[1]} (bands x frames); "
            f"set model.picture.size={max(least)} or more, or lengthen front.window_s (adaptive: front.min_s)"
        )
