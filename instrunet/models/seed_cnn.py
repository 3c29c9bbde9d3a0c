"""The picture networks of the seeds: `task8` (2,122,283 parameters), `iteration11` (459,531), for 11 classes.

Keras counts 460,491 for `iteration11`: it adds the running mean and variance of the 480 batch-normed maps.
`multiscale` is what the authors of `iteration11` proposed next: the same plan with several kernels side by side.

Shapes: B clips, C channels, H x W the picture, K classes.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from instrunet.models.blocks import Branches, mean_over_picture, squeeze, through
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.picture import PictureSpec, check_grid

Plan = list[tuple[int, tuple[int, ...]]]  # of each block: maps, kernels


class Task8Spec(PictureBodySpec):
    name: Literal["task8"] = "task8"
    picture: PictureSpec = PictureSpec(size=128, colour=True)
    dropout: float = Field(0.2, ge=0, lt=1)
    se: bool = False


class Task8(Body):
    """Three blocks of 16, 32, 64 maps, then dense layers on the flattened rest. [B, C, H, W] to [B, K].

    `share` does not reach the dense layer, which has a weight for every place of the picture.
    """

    def __init__(self, spec: Task8Spec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, (8, 8))
        # Zero padding: with it the dense layer has the 2.1 M parameters that the seed states, without it 1.6 M.
        plan: Plan = [(16, (3,)), (32, (3,)), (64, (3,))]
        self.blocks = nn.Sequential(
            *_blocks(spec.picture.channels, plan, norm=False, se=spec.se), nn.Dropout(spec.dropout)
        )
        flat, self.width = 64 * (grid[0] // 8) * (grid[1] // 8), 128
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(flat, self.width), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        embedding: Tensor = self.dense(through(self.blocks, picture, share))
        return embedding


class Iteration11Spec(PictureBodySpec):
    name: Literal["iteration11"] = "iteration11"
    picture: PictureSpec = PictureSpec(size=224, colour=True)
    dropout: float = Field(0.5, ge=0, lt=1)
    l2_dense: float = Field(0.001, ge=0)
    se: bool = False


class MultiscaleSpec(PictureBodySpec):
    name: Literal["multiscale"] = "multiscale"
    picture: PictureSpec = PictureSpec(size=224, colour=True)
    dropout: float = Field(0.5, ge=0, lt=1)
    l2_dense: float = Field(0.001, ge=0)
    se: bool = False


PLANS: dict[str, Plan] = {
    "iteration11": [(32, (5,)), (64, (3,)), (128, (3,)), (256, (3,))],
    "multiscale": [(32, (3, 5, 7)), (64, (3, 5, 7)), (128, (3, 5, 7)), (256, (3, 5, 7))],
}


class Iteration11(Body):
    """Blocks of 32, 64, 128, 256 maps with batch norm, then the mean over the picture. [B, C, H, W] to [B, K]."""

    def __init__(self, spec: Iteration11Spec | MultiscaleSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, (16, 16))
        self.blocks = nn.Sequential(
            *_blocks(spec.picture.channels, PLANS[spec.name], norm=True, se=spec.se), nn.Dropout2d(spec.dropout)
        )
        self.width = 256
        self.dense = nn.Sequential(nn.Linear(256, self.width), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        embedding: Tensor = self.dense(mean_over_picture(through(self.blocks, picture, share), share))
        return embedding


def _blocks(n_in: int, plan: Plan, *, norm: bool, se: bool) -> Iterator[nn.Module]:
    """The seeds do not say where the ReLU of `iteration11` stands; after the batch norm, as is usual,
    and where nothing stands between, after the pool: of the same numbers a quarter, at a sixth less for a step."""
    for width, kernels in plan:
        yield _convolution(n_in, width, kernels)
        yield from [nn.BatchNorm2d(width)] if norm else []
        yield from [nn.ReLU(), squeeze(width), nn.MaxPool2d(2)] if se else [nn.MaxPool2d(2), nn.ReLU()]
        n_in = width


def _convolution(n_in: int, n_out: int, kernels: tuple[int, ...]) -> nn.Module:
    """Of three kernels the smallest has half of the maps: equal shares would cost a fifth more weights."""
    if len(kernels) == 1:
        return nn.Conv2d(n_in, n_out, kernels[0], padding=kernels[0] // 2)
    small, middle, large = kernels
    return Branches(nn.Conv2d, n_in, {small: n_out // 2, middle: n_out // 4, large: n_out // 4})
