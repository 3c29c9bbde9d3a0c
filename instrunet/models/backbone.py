"""Any convolutional image network of `timm` as a body, from random weights; nothing is fetched.

Weights of a local file are given by `transfer.load_matching`, so that a bundle never needs the file it began with.

Shapes: B clips, C channels, H x W the picture, E numbers before the classifier.
"""

import difflib
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.models.blocks import mean_over_picture
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.picture import check_grid


class BackboneSpec(PictureBodySpec):
    """`timm_name`: mobilenetv3_large_100, mobilenetv4_conv_small, efficientnet_b0, convnext_atto, resnet18, .."""

    name: Literal["backbone"] = "backbone"
    timm_name: str = "mobilenetv3_large_100"
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)  # share of residual branches left out in training


class Backbone(Body):
    """[B, C, H, W] to [B, K]: its last maps, their mean over what sounds, and its own layers after pooling."""

    def __init__(self, spec: BackboneSpec, grid: tuple[int, int], n_labels: int) -> None:
        super().__init__()
        check_grid(f"{spec.name} {spec.timm_name}", grid, (32, 32))
        self.net = _network(spec)
        _check_maps(spec, self.net, grid)
        self.width = int(self.net.head_hidden_size)
        self.head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(self.width, n_labels))

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        maps = self.net.forward_features(picture)
        pooled = mean_over_picture(maps, share)[:, :, None, None]  # the network's own mean over 1 x 1 changes nothing
        embedding: Tensor = self.net.forward_head(pooled.to(maps.dtype), pre_logits=True)
        return embedding


def _network(spec: BackboneSpec) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"backbone needs the extra `backbone`: pip install 'instrunet[backbone]' ({error})") from None
    known = timm.list_models()
    if spec.timm_name not in known:
        near = difflib.get_close_matches(spec.timm_name, known, n=1, cutoff=0)
        raise ConfigError(f"timm {timm.__version__} has no network {spec.timm_name!r}; did you mean {near[0]}?")
    settings: dict[str, Any] = {"drop_path_rate": spec.drop_path} if spec.drop_path else {}  # not all know it
    try:
        return timm.create_model(
            spec.timm_name, pretrained=False, in_chans=spec.picture.channels, num_classes=0, **settings
        )
    except TypeError as error:
        raise ConfigError(f"{spec.timm_name} does not take model.drop_path ({error}); leave it out") from None


@torch.inference_mode()
def _check_maps(spec: BackboneSpec, net: Any, grid: tuple[int, int]) -> None:
    """Run once: of transformers some refuse the grid, some give tokens, over which no share of the frames is known."""
    device = next(net.parameters()).device
    try:
        found = net.eval().forward_features(torch.zeros(1, spec.picture.channels, *grid, device=device))
        what = f"gives {tuple(found.shape)}"
        fits = found.ndim == 4 and found.shape[1] == net.num_features
    except (AssertionError, RuntimeError) as error:
        fits, what = False, f"says {' '.join(str(error).split())[:120]!r}"
    net.train()
    if not fits:
        raise ConfigError(
            f"backbone needs a convolutional network, whose last layer gives maps; {spec.timm_name} {what} "
            f"for a picture of {grid[0]} x {grid[1]}: set model.timm_name to one such as mobilenetv4_conv_small"
        )
