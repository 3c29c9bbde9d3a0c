"""The guitar seed's residual network, over notes of any length.

Shapes: B clips, C channels, H x W the picture, K classes.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from instrunet.models.blocks import SqueezeExcite, mean_over_picture, squeeze
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.picture import check_grid

WIDTHS = (64, 128, 256, 512)  # of the stem and of three stages


class HarmonicsResnetSpec(PictureBodySpec):
    name: Literal["harmonics_resnet"] = "harmonics_resnet"
    dropout: float = Field(0.3, ge=0, lt=1)
    se: bool = False


class HarmonicsResnet(Body):
    """A stem of stride 4, three stages of two residual blocks, the mean over what sounds, a head of 512-256-128-K."""

    def __init__(self, spec: HarmonicsResnetSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, (32, 32))
        self.stem = nn.Sequential(
            nn.Conv2d(spec.picture.channels, WIDTHS[0], 7, stride=2, padding=3),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),  # of the same numbers as before the pool, and a quarter of them
        )
        pairs = zip(WIDTHS, WIDTHS[1:], strict=False)
        self.blocks = nn.ModuleList(
            block
            for n_in, n_out in pairs
            for block in (Residual(n_in, n_out, 2, se=spec.se), Residual(n_out, n_out, 1, se=spec.se))
        )
        self.width = 128
        self.dense = nn.Sequential(
            *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(spec.dropout)),
            *(nn.Linear(256, self.width), nn.ReLU()),
        )
        self.head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        maps = self.stem(picture)
        for block in self.blocks:
            maps = block(maps, share)
        embedding: Tensor = self.dense(mean_over_picture(maps, share))
        return embedding


class Residual(nn.Module):
    """ResNet's basic block: two 3x3 convolutions beside a shortcut. [B, C, H, W] to [B, n_out, H/stride, W/stride]."""

    def __init__(self, n_in: int, n_out: int, stride: int, *, se: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()),
            *(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)),
        )
        self.se: SqueezeExcite | None = squeeze(n_out) if se else None
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor, share: Tensor | None = None) -> Tensor:
        found = self.body(maps)
        if self.se is not None:
            found = self.se(found, share)
        summed: Tensor = self.relu(found + self.shortcut(maps))
        return summed
