"""Networks that were trained apart as one: each on a picture of its own, their answers mixed by weights or stacked.

Unlike `ensemble`, whose members are trained together, it is made of bundles that are there: `ensembles/mix.py` finds
the weights.
Shapes: B clips, C channels, F bands, L frames, M members, E numbers of an embedding, K labels.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from instrunet.models.body import Body, PictureBodySpec
from instrunet.models.ensemble import EnsembleSpec, MemberSpec
from instrunet.models.picture import Picture

PartSpec = Annotated[MemberSpec | EnsembleSpec, Field(discriminator="name")]
Build = Callable[[PartSpec, tuple[int, int], int], Body]
LEAST = 1e-7  # a chance of 0 or 1 has no logit


class CombinedSpec(PictureBodySpec):
    """`weights` are of the members' probabilities; without them a linear layer reads the logarithms of all of them."""

    name: Literal["combined"] = "combined"
    kind: Literal["single", "multi"]
    members: tuple[PartSpec, ...] = Field(min_length=1)
    temperatures: tuple[Annotated[float, Field(gt=0)], ...]
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    bands: tuple[tuple[tuple[int, int], ...], ...] = ()  # rows of the picture that each hears; none: all hear all

    @model_validator(mode="after")
    def _one_number_a_member(self) -> Self:
        n = len(self.members)
        given = [len(numbers) for numbers in (self.temperatures, self.weights, self.bands)]
        if given[0] != n or not {*given[1:]} <= {0, n}:
            said = "{} temperatures, {} weights and {} bands".format(*given)
            raise ValueError(f"{n} members need {n} temperatures, and as many weights and bands or none; got {said}")
        if self.picture.size or self.picture.colour:
            raise ValueError("each member has a picture of its own; leave model.picture out")
        return self


class Combined(Body):
    """[B, 1, F, L] to [B, K]: logits of what the members say together."""

    def __init__(self, spec: CombinedSpec, build: Build, grid: tuple[int, int], n: int) -> None:
        super().__init__()
        self.bands = spec.bands or (((0, grid[0]),),) * len(spec.members)
        heights = [sum(stop - start for start, stop in own) for own in self.bands]
        pairs = zip(spec.members, heights, strict=True)
        bodies = [build(member, member.picture.grid(height, grid[1]), n) for member, height in pairs]
        self.width = sum(body.width for body in bodies)
        head = Mixed(spec, bodies, n)
        for body in bodies:
            body.head = nn.Identity()  # it stands in `head.heads`: a weight has one name
        self.pictures = nn.ModuleList(Picture(member.picture) for member in spec.members)
        self.members, self.head = nn.ModuleList(bodies), head

    def embed(self, picture: Tensor, share: Tensor | None = None) -> Tensor:
        three = zip(self.members, self.pictures, self.bands, strict=True)
        parts = [member.embed(own(_rows(picture[:, 0], bands)), share).float() for member, own, bands in three]  # type: ignore[operator]
        return torch.cat(parts, 1)

    def take(self, number: int, body: Body) -> None:
        """The weights of a body that was trained alone."""
        state = body.state_dict()
        own = {name: value for name, value in state.items() if not name.startswith("head.")}
        self.members[number].load_state_dict(own)
        heads = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
        self.head.heads[number].load_state_dict(heads)  # type: ignore[index, union-attr]


class Mixed(nn.Module):
    """The members' heads, each on its part of the embeddings [B, E], and what becomes of their answers: [B, K]."""

    weights: Tensor
    temperatures: Tensor

    def __init__(self, spec: CombinedSpec, bodies: list[Body], n: int) -> None:
        super().__init__()
        self.kind, self.widths = spec.kind, [body.width for body in bodies]
        self.heads = nn.ModuleList(body.head for body in bodies)
        shares = torch.tensor(spec.weights or (1.0,) * len(bodies))
        self.register_buffer("weights", (shares / shares.sum())[:, None], persistent=False)  # [M, 1]
        self.register_buffer("temperatures", torch.tensor(spec.temperatures)[:, None], persistent=False)
        self.stack = None if spec.weights else nn.Linear(len(bodies) * n, n)

    def forward(self, embeddings: Tensor) -> Tensor:
        parts = embeddings.split(self.widths, 1)
        said = torch.stack([head(part).float() for head, part in zip(self.heads, parts, strict=True)], 1)
        logits = said / self.temperatures  # [B, M, K]
        if self.stack is not None:
            stacked: Tensor = self.stack(read(logits, self.kind).flatten(1))
            return stacked
        if self.kind == "single":
            return torch.logsumexp(logits.log_softmax(2) + self.weights.log(), 1)
        mean = (logits.sigmoid() * self.weights).sum(1)
        return torch.logit(mean.clamp(LEAST, 1 - LEAST))


def _rows(picture: Tensor, bands: tuple[tuple[int, int], ...]) -> Tensor:
    """[B, F, L] to the features that a member hears, stacked as it knows them."""
    return torch.cat([picture[:, start:stop] for start, stop in bands], 1)


def read(logits: Tensor, kind: str) -> Tensor:
    """What is stacked: logarithms of probabilities, which are the logits themselves where labels are told apart."""
    return logits.log_softmax(-1) if kind == "single" else logits
