"""Several networks as one, on one picture: each learns by itself, together they answer with the mean of their logits.

Networks that began with other weights are wrong about other clips: the mean is right more often than any of them.
Shapes: B clips, C channels, F bands, L frames, M members, E numbers of an embedding, K labels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from instrunet.models.attentive import AttentiveSpec
from instrunet.models.backbone import BackboneSpec
from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.functionals import FunctionalsSpec
from instrunet.models.resnet import HarmonicsResnetSpec
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec
from instrunet.models.soundmind import SoundMindTimeSpec

MemberSpec = Annotated[
    Task8Spec
    | Iteration11Spec
    | MultiscaleSpec
    | HarmonicsResnetSpec
    | SoundMindTimeSpec
    | AttentiveSpec
    | BackboneSpec
    | FunctionalsSpec,
    Field(discriminator="name"),
]


Build = Callable[[MemberSpec, tuple[int, int], int], Body]


class EnsembleSpec(PictureBodySpec):
    """All members look at the ensemble's picture."""

    name: Literal["ensemble"] = "ensemble"
    members: tuple[MemberSpec, ...] = Field((AttentiveSpec(), AttentiveSpec(views=("mean_std",))), min_length=2)

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        for member in self.members:
            if "picture" in member.model_fields_set and member.picture != self.picture:
                raise ValueError(f"all members look at model.picture; leave picture out of the member {member.name}")
        return self

    @property
    def seeing(self) -> tuple[MemberSpec, ...]:
        return tuple(member.model_copy(update={"picture": self.picture}) for member in self.members)


class Ensemble(Body):
    """[B, C, F, L] to [B, K]; while it is trained to [B, M, K], so that each member has a loss of its own."""

    def __init__(self, spec: EnsembleSpec, build: Build, grid: tuple[int, int], n: int) -> None:
        super().__init__()
        bodies = [build(member, grid, n) for member in spec.seeing]
        self.width = sum(body.width for body in bodies)
        heads = Heads([body.width for body in bodies], [body.head for body in bodies])
        for body in bodies:
            body.head = nn.Identity()  # it stands in `heads`: a weight has one name
        self.members, self.head = nn.ModuleList(bodies), heads

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        return torch.cat([member.embed(picture, share).float() for member in self.members], 1)  # type: ignore[operator]


class Heads(nn.Module):
    """The members' heads, each on its part of the embeddings [B, E]."""

    def __init__(self, widths: Sequence[int], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.widths, self.heads = list(widths), nn.ModuleList(heads)

    def forward(self, embeddings: Tensor) -> Tensor:
        parts = embeddings.split(self.widths, 1)
        logits = torch.stack([head(part).float() for head, part in zip(self.heads, parts, strict=True)], 1)
        return logits if self.training else logits.mean(1)
