"""A network for speech: the clip's own colouring removed, convolutions with squeeze-and-excitation, attentive pooling.

An emotion lies in how a voice changes, not in the microphone and the speaker's average spectrum: each band's mean over
the sounding frames is taken away, and pooling keeps the deviation over time beside the mean.

Shapes: B clips, C channels or maps, F bands, L frames, K classes.
"""

from typing import Annotated, Literal, Self

import torch.nn.functional as F
from pydantic import AfterValidator, Field, PositiveInt, model_validator
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.models.blocks import AttentivePooling, silenced, squeeze
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.picture import check_grid
from instrunet.models.recurrent import both_ways
from instrunet.models.views import ViewName, Views


def _odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"a kernel needs an odd size, so that it has a middle; got {n}")
    return n


Odd = Annotated[int, Field(gt=0), AfterValidator(_odd)]


class AttentiveSpec(PictureBodySpec):
    """Where 0 means that a part is left out: stem, projection, embedding."""

    name: Literal["attentive"] = "attentive"
    views: tuple[ViewName, ...] = Field(("mean",), min_length=1)  # what the first convolution sees
    stem: int = Field(0, ge=0)  # maps of a large convolution with a stride before the blocks
    stem_kernel: tuple[Odd, Odd] = (5, 5)
    stem_stride: tuple[PositiveInt, PositiveInt] = (2, 2)
    widths: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=1)
    pools: tuple[tuple[PositiveInt, PositiveInt], ...] = ((2, 2), (2, 2), (2, 2), (2, 2))  # bands x frames, each block
    shrink: Literal["mean", "stride"] = "mean"  # stride: in a block's first convolution, at half the cost or less
    residual: bool = False
    se: bool = True
    block_dropout: float = Field(0.0, ge=0, lt=1)  # of whole maps: none in the first block, all from the middle on
    flatten: bool = False  # bands stand beside maps before pooling over time; otherwise their mean does
    projection: int = Field(0, ge=0)  # maps of a 1x1 convolution over frames before pooling
    dilations: tuple[PositiveInt, ...] = ()  # of residual blocks over frames, one each
    recurrent: bool = False  # a bidirectional GRU beside a shortcut before pooling
    attention: PositiveInt = 64  # hidden units of what weighs the frames
    heads: PositiveInt = 1
    embedding: int = Field(0, ge=0)  # units of a dense layer after pooling
    dropout: float = Field(0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _a_pool_a_block(self) -> Self:
        if len(self.pools) != len(self.widths):
            raise ValueError(f"pools needs {len(self.widths)} pairs, one for each of widths; got {len(self.pools)}")
        return self

    @property
    def strides(self) -> tuple[int, int]:
        """By how much bands and frames shrink, which is the least picture too."""
        bands, frames = self.stem_stride if self.stem else (1, 1)
        for pool in self.pools:
            bands, frames = bands * pool[0], frames * pool[1]
        return bands, frames


class Attentive(Body):
    """[B, C, F, L] to [B, K]. What stands in frames without sound does not change the answer."""

    def __init__(self, spec: AttentiveSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(spec.name, grid, spec.strides)
        self.views = Views(spec.views, spec.picture.channels)
        widths = (spec.stem or self.views.n_channels, *spec.widths)
        self.stem = _stem(self.views.n_channels, spec) if spec.stem else nn.Identity()
        self.blocks = nn.ModuleList(DoubleConv(spec, k, widths[k]) for k in range(len(spec.widths)))
        self.frames = Frames(spec, widths[-1] * (_bands(spec, grid[0]) if spec.flatten else 1))
        self.pool = AttentivePooling(self.frames.width, spec.attention, spec.heads)
        pooled = 2 * self.frames.width
        self.dense = _dense(pooled, spec) if spec.embedding else nn.Identity()
        self.width = spec.embedding or pooled
        self.head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        maps = self.stem(self.views(picture, share))
        for block in self.blocks:
            maps = block(maps, share)
        embedding: Tensor = self.dense(self.pool(self.frames(maps, share), share))
        return embedding


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, weighed maps, the mean over a pool: block number `k`. [B, C, F, L] to a smaller one."""

    def __init__(self, spec: AttentiveSpec, k: int, n_in: int) -> None:
        super().__init__()
        n_out, stride = spec.widths[k], spec.pools[k] if spec.shrink == "stride" else (1, 1)
        self.body = nn.Sequential(
            *(nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()),
            *(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)),
        )
        self.se = squeeze(n_out) if spec.se else None
        self.shortcut: nn.Module | None = None
        if spec.residual:
            same = n_in == n_out and stride == (1, 1)
            self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
        self.pool = nn.AvgPool2d(spec.pools[k]) if spec.shrink == "mean" else nn.Identity()
        self.dropout = nn.Dropout2d(spec.block_dropout * min(1.0, 2 * k / len(spec.widths)))

    def forward(self, maps: Tensor, share: Tensor | None) -> Tensor:
        found = self.body(maps)
        weights = self.se.weights(found, share) if self.se is not None else 1.0
        if self.shortcut is not None:
            pooled = self.pool(F.relu(found * weights + self.shortcut(maps)))
        else:
            pooled = self.pool(F.relu(found)) * weights  # the same, at the size of a pool
        return self.dropout(pooled)  # type: ignore[no-any-return]


class Frames(nn.Module):
    """Maps [B, C, F, L] to a sequence of frames [B, width, L]."""

    def __init__(self, spec: AttentiveSpec, n_maps: int) -> None:
        super().__init__()
        self.flatten = spec.flatten
        self.width = spec.projection or n_maps
        if self.width % (2 * spec.heads):
            raise ConfigError(
                f"attentive pools {self.width} maps over time, which is no multiple of twice model.heads={spec.heads}; "
                "set model.heads=1, or an even model.projection that it divides"
            )
        self.project = _projection(n_maps, spec) if spec.projection else nn.Identity()
        self.steps = nn.ModuleList(Dilated(self.width, d, spec.block_dropout) for d in spec.dilations)
        self.recur = None
        if spec.recurrent:
            self.recur = nn.GRU(self.width, self.width // 2, batch_first=True, bidirectional=True)

    def forward(self, maps: Tensor, share: Tensor | None) -> Tensor:
        frames: Tensor = self.project(maps.flatten(1, 2) if self.flatten else maps.mean(2))
        for step in self.steps:
            frames = step(silenced(frames, share), share)
        if self.recur is not None:
            frames = frames + both_ways(self.recur, silenced(frames, share).transpose(1, 2)).transpose(1, 2)
        return frames


class Dilated(nn.Module):
    """A residual block over frames whose taps lie `dilation` apart. [B, C, L] to the same."""

    def __init__(self, n_maps: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_maps, n_maps, 3, padding=dilation, dilation=dilation, bias=False),
            *(nn.BatchNorm1d(n_maps), nn.ReLU()),
            *(nn.Conv1d(n_maps, n_maps, 1, bias=False), nn.BatchNorm1d(n_maps)),
        )
        self.se = squeeze(n_maps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, share: Tensor | None) -> Tensor:
        return F.relu(frames + self.dropout(self.se(self.body(frames), share)))


def _stem(n_in: int, spec: AttentiveSpec) -> nn.Module:
    middle = (spec.stem_kernel[0] // 2, spec.stem_kernel[1] // 2)
    convolution = nn.Conv2d(n_in, spec.stem, spec.stem_kernel, stride=spec.stem_stride, padding=middle, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(spec.stem), nn.ReLU())


def _projection(n_in: int, spec: AttentiveSpec) -> nn.Module:
    convolution = nn.Conv1d(n_in, spec.projection, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(spec.projection), nn.ReLU(), nn.Dropout(spec.dropout))


def _dense(n_in: int, spec: AttentiveSpec) -> nn.Module:
    layer = nn.Linear(n_in, spec.embedding)
    return nn.Sequential(nn.Dropout(spec.dropout), layer, nn.BatchNorm1d(spec.embedding), nn.ReLU())


def _bands(spec: AttentiveSpec, n_bands: int) -> int:
    """Those left after all blocks: a convolution with a stride rounds up, pooling down."""
    left = -(-n_bands // spec.stem_stride[0]) if spec.stem else n_bands
    for pool, _ in spec.pools:
        left = left // pool if spec.shrink == "mean" else -(-left // pool)
    return left
