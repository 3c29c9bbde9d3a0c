"""What a network may be shown of a clip's picture, made inside the network so that training and serving agree.

Shapes: B clips, C channels, F bands, L frames.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instrunet.models.blocks import mean_over_picture, silenced

ViewName = Literal["plain", "level", "mean", "mean_std", "delta_time", "delta_band", "position"]
QUIET_BAND = 0.25  # deviations of the training data: a band that never moves must not be blown up to noise
View = Callable[[Tensor, Tensor | None], Tensor]


class Views(nn.Module):
    """A picture [B, C, F, L] to its views [B, C x views, F, L], frames without sound as zeros.

    plain: as it is. level: without the clip's mean. mean: without each band's mean. mean_std: and over its deviation.
    delta_time, delta_band: the slopes of `mean`. position: where a band stands, from -1 to 1, in one channel.
    """

    def __init__(self, names: tuple[ViewName, ...], n_channels: int) -> None:
        super().__init__()
        self.names = names
        self.n_channels = sum(1 if name == "position" else n_channels for name in names)

    def forward(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        return silenced(torch.cat([VIEWS[name](picture, share) for name in self.names], 1), share)


def _plain(picture: Tensor, share: Tensor | None) -> Tensor:
    return picture


def _level(picture: Tensor, share: Tensor | None) -> Tensor:
    return picture - mean_over_picture(picture, share)[:, :, None, None]


def _mean(picture: Tensor, share: Tensor | None) -> Tensor:
    return picture - _over_time(picture, share)


def _mean_std(picture: Tensor, share: Tensor | None) -> Tensor:
    centred = _mean(picture, share)
    return centred / (_over_time(centred.square(), share) + QUIET_BAND**2).sqrt()


def _delta_time(picture: Tensor, share: Tensor | None) -> Tensor:
    centred = silenced(_mean(picture, share), share)
    return F.pad(centred[..., 2:] - centred[..., :-2], (1, 1))


def _delta_band(picture: Tensor, share: Tensor | None) -> Tensor:
    centred = _mean(picture, share)
    return F.pad(centred[:, :, 2:] - centred[:, :, :-2], (0, 0, 1, 1))


def _position(picture: Tensor, share: Tensor | None) -> Tensor:
    place = torch.linspace(-1, 1, picture.shape[2], device=picture.device, dtype=picture.dtype)
    return place[:, None].expand(picture.shape[0], 1, *picture.shape[2:])


def _over_time(picture: Tensor, share: Tensor | None) -> Tensor:
    """[B, C, F, L] to each band's mean [B, C, F, 1]: bands as maps."""
    mean = mean_over_picture(picture.flatten(1, 2), share)  # [B, C x F]
    return mean.reshape(*picture.shape[:3], 1)


VIEWS: dict[ViewName, View] = {
    "plain": _plain,
    "level": _level,
    "mean": _mean,
    "mean_std": _mean_std,
    "delta_time": _delta_time,
    "delta_band": _delta_band,
    "position": _position,
}
