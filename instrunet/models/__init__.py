"""The networks: a table of bodies, and the wrapper that every one of them wears.

Shapes: B clips, C channels, F bands, L frames, K labels.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.features import FRAME_FEATURES, SHARE
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models.attentive import Attentive
from instrunet.models.backbone import Backbone
from instrunet.models.blocks import silenced
from instrunet.models.body import Body
from instrunet.models.combined import Combined, CombinedSpec
from instrunet.models.ensemble import Ensemble, EnsembleSpec, MemberSpec
from instrunet.models.functionals import Functionals
from instrunet.models.picture import Picture
from instrunet.models.resnet import HarmonicsResnet
from instrunet.models.seed_cnn import Iteration11, Task8
from instrunet.models.soundmind import (
    Dense40,
    Dense40Spec,
    SoundMind,
    SoundMindSpec,
    SoundMindTime,
)

# What `model.name` may be: a new model is one file and one line here (and its spec in `MemberSpec`).
# A body is built from (spec, grid, n_labels) and called with (x, share): a picture [B, C, F, L] of its grid (F, L), or
# numbers [B, F] of its grid (F, 1), and the share [B] of the frames that hold sound, or None where all do.
MODELS: dict[str, Callable[[Any, tuple[int, int], int], Body]] = {
    "task8": Task8,
    "iteration11": Iteration11,
    "multiscale": Iteration11,
    "harmonics_resnet": HarmonicsResnet,
    "soundmind_time": SoundMindTime,
    "attentive": Attentive,
    "backbone": Backbone,
    "functionals": Functionals,
    "soundmind": SoundMind,
    "dense40": Dense40,
    "ensemble": lambda spec, grid, n: Ensemble(spec, lambda member, *of: MODELS[member.name](member, *of), grid, n),
    "combined": lambda spec, grid, n: Combined(spec, lambda member, *of: MODELS[member.name](member, *of), grid, n),
}
ModelSpec = Annotated[
    MemberSpec | SoundMindSpec | Dense40Spec | EnsembleSpec | CombinedSpec, Field(discriminator="name")
]
NumberSpec = SoundMindSpec | Dense40Spec
NUMBER_MODELS = ("soundmind", "dense40")  # those that read numbers (`summary`); all others look at a picture
# Those that pool over time, whatever its length; to the others a short window is filled up
ANY_LENGTH = ("iteration11", "multiscale", "harmonics_resnet", "soundmind_time", "attentive", "functionals")


class Network(nn.Module):
    """Features {name: [B, F, L]} to logits [B, K]: normalised by the training data's statistics, then classified.

    Several features are stacked along their bands into one picture, or one list of numbers.
    """

    def __init__(self, spec: ModelSpec, front: FrontEnd, statistics: Statistics, n_labels: int) -> None:
        super().__init__()
        self.names = inputs_of(spec, front)
        for name in self.names:  # not in the state: the bundle's statistics are their home
            for kind, values in (("mean", statistics.mean[name]), ("std", statistics.std[name])):
                self.register_buffer(f"{kind}_{name}", torch.tensor(values)[:, None], persistent=False)
        shapes = [front.shapes()[name] for name in self.names]
        own_grid = any_length(spec) and not isinstance(spec, NumberSpec) and spec.picture.size is None
        self.n_frames = None if own_grid else shapes[0][1]
        shortest = front.shapes(front.least)[self.names[0]][1]  # is to be enough for the body
        grid = (sum(n_bands for n_bands, _ in shapes), shortest if own_grid else shapes[0][1])
        self.picture = None if isinstance(spec, NumberSpec) else Picture(spec.picture)
        seen = grid if isinstance(spec, NumberSpec) else spec.picture.grid(*grid)
        self.body = MODELS[spec.name](spec, seen, n_labels)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.body(*self.see(features))
        return logits

    def embed(self, features: dict[str, Tensor]) -> Tensor:
        """Features to [B, E], of which `body.head` makes the logits."""
        return self.body.embed(*self.see(features))

    def see(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """What the body is called with: a picture and the share of its frames that is a window's own, or numbers."""
        stacked = torch.cat([self._normal(name, features[name]) for name in self.names], 1)
        if self.picture is None:
            return stacked.flatten(1), None
        filled, share = self._filled(stacked, features.get(SHARE))
        return self.picture(filled), share

    def _filled(self, normal: Tensor, share: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames that are not a window's own become 0, the training data's mean: here alone, in training and service.

        Where the body needs the whole grid, frames are added up to it.
        """
        n_frames = normal.shape[2]
        normal = silenced(normal, share)
        # While a graph is made for windows of any length, theirs is a symbol
        if self.n_frames is not None and (isinstance(n_frames, torch.SymInt) or n_frames < self.n_frames):
            share = (normal.new_ones(normal.shape[0]) if share is None else share) * (n_frames / self.n_frames)
            normal = F.pad(normal, (0, self.n_frames - n_frames))
        return normal, share

    def _normal(self, name: str, values: Tensor) -> Tensor:
        normal: Tensor = (values - getattr(self, f"mean_{name}")) / getattr(self, f"std_{name}")
        return normal


def inputs_of(spec: ModelSpec, front: FrontEnd) -> tuple[str, ...]:
    """The features a network takes, all of the front end's, or the reason why it cannot."""
    names = tuple(feature.name for feature in front.features)
    pictures = [name for name in names if name in FRAME_FEATURES]
    if spec.name in NUMBER_MODELS and pictures:
        raise ConfigError(
            f"{spec.name} reads a list of numbers; front.features is {', '.join(names)}: set it to summary"
        )
    if spec.name not in NUMBER_MODELS and len(pictures) < len(names):
        raise ConfigError(
            f"{spec.name} looks at a picture of a sound; front.features is {', '.join(names)}: "
            f"set it to one or more of {', '.join(FRAME_FEATURES)}"
        )
    frames = {name: front.shapes()[name][1] for name in names}
    if len(set(frames.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in frames.items())
        raise ConfigError(
            f"stacked features need the same number of frames a window, got {said}: give them one hop_length"
        )
    return names


def any_length(spec: ModelSpec) -> bool:
    """Whether a short window need not be filled up."""
    if isinstance(spec, CombinedSpec):  # each with its own picture
        return all(any_length(member) and member.picture.size is None for member in spec.members)
    members = spec.members if isinstance(spec, EnsembleSpec) else (spec,)
    return all(member.name in ANY_LENGTH for member in members)


def without_weights(spec: ModelSpec, front: FrontEnd, n_labels: int) -> Network:
    """The network on the `meta` device: its shapes, and every refusal that building it may end in. 2 to 8 ms.

    A backbone takes 2 s the first time and 0.2 s after it: timm is imported.
    """
    ones = {feature.name: (1.0,) for feature in front.features}
    with torch.device("meta"):
        return Network(spec, front, Statistics(mean=ones, std=ones, n_windows=1), n_labels)


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
