"""The two picture networks of the seeds: `task8` (2,122,283 parameters) and `iteration11` (459,531), for 11 classes.

Keras counts 460,491 for `iteration11`: it adds the running mean and variance of the 480 batch-normed maps.

Shapes: B clips, C channels, H x W the picture, K classes.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.errors import ConfigError
from instrunet.models.blocks import mean_over_picture
from instrunet.models.picture import PictureSpec


class Task8Spec(Spec):
    name: Literal["task8"] = "task8"
    picture: PictureSpec = PictureSpec(size=128, colour=True)
    dropout: float = Field(0.2, ge=0, lt=1)
    l2_dense: float = Field(0.0, ge=0)


class Task8(nn.Module):
    """Three blocks of 16, 32, 64 maps, then dense layers on the flattened rest. [B, C, H, W] to [B, K]."""

    def __init__(self, spec: Task8Spec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        widths = (spec.picture.channels, 16, 32, 64)
        _check_grid(spec.name, grid, n_blocks=3)
        # Zero padding: with it the dense layer has the 2.1 M parameters that the seed states, without it 1.6 M.
        self.blocks = nn.Sequential(
            *(layer for i, o in zip(widths, widths[1:], strict=False) for layer in _block(i, o, 3, norm=False)),
            nn.Dropout(spec.dropout),
        )
        flat = widths[-1] * (grid[0] // 8) * (grid[1] // 8)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, 128), nn.ReLU(), nn.Dropout(spec.dropout), nn.Linear(128, n_labels)
        )

    def forward(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        """`share` is not used: the dense layer has a weight for every place of the picture."""
        logits: Tensor = self.head(self.blocks(picture))
        return logits


class Iteration11Spec(Spec):
    name: Literal["iteration11"] = "iteration11"
    picture: PictureSpec = PictureSpec(size=224, colour=True)
    dropout: float = Field(0.5, ge=0, lt=1)
    l2_dense: float = Field(0.001, ge=0)


class Iteration11(nn.Module):
    """Blocks of 32 (5x5), 64, 128, 256 maps with batch norm, then the mean over the picture. [B, C, H, W] to [B, K]."""

    def __init__(self, spec: Iteration11Spec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        _check_grid(spec.name, grid, n_blocks=4)
        widths, kernels = (spec.picture.channels, 32, 64, 128, 256), (5, 3, 3, 3)
        pairs = zip(widths, widths[1:], kernels, strict=False)
        self.blocks = nn.Sequential(
            *(layer for i, o, k in pairs for layer in _block(i, o, k, norm=True)),
            nn.Dropout2d(spec.dropout),
        )
        self.head = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, n_labels))

    def forward(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(mean_over_picture(self.blocks(picture), share))
        return logits


def _check_grid(name: str, grid: tuple[int, int], n_blocks: int) -> None:
    """Each block halves the picture, so too small a one ends in nothing."""
    least = 2**n_blocks
    if min(grid) < least:
        raise ConfigError(
            f"{name} needs a picture of at least {least} x {least}, got {grid[0]} x {grid[1]} (bands x frames); "
            f"set model.picture.size={least} or more, or lengthen front.window_s (adaptive: front.min_s)"
        )


def _block(n_in: int, n_out: int, kernel: int, *, norm: bool) -> list[nn.Module]:
    """The seeds do not say where the ReLU of `iteration11` stands; after the batch norm, as is usual."""
    convolution = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2)
    return [convolution, *([nn.BatchNorm2d(n_out)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]
