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

# Nine stops of matplotlib's `magma`, read off its table; between them linear, within 0.03 of the original.
MAGMA = (
    (0.001, 0.000, 0.014),
    (0.110, 0.063, 0.266),
    (0.317, 0.071, 0.485),
    (0.513, 0.148, 0.508),
    (0.716, 0.215, 0.475),
    (0.902, 0.317, 0.391),
    (0.987, 0.535, 0.382),
    (0.997, 0.769, 0.534),
    (0.987, 0.991, 0.750),
)


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
    place = (picture - low) / (high - low).clamp_min(1e-6) * (stops.shape[1] - 1)
    # A sum of hat functions instead of a gather: the same linear interpolation, and it exports to any runtime.
    steps = torch.arange(stops.shape[1], device=picture.device, dtype=picture.dtype).view(1, -1, 1, 1)
    weights = (1 - (place - steps).abs()).clamp_min(0)  # [B, 9, H, W]
    colours = F.conv2d(weights, stops.to(weights.dtype)[:, :, None, None])
    return colours * 2 - 1
