"""Gradient reversal (Ganin and Lempitsky): an embedding from which no one can tell where a sound comes from.

Shapes: B clips, E numbers of an embedding, K labels, D domains.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.data.places import Place
from instrunet.models import Network

HIDDEN = 64


class DomainSpec(Spec):
    """Sound of another kind that a network is to work on as well; labels that it may have are not looked at."""

    target: Place  # a folder
    weight: float = Field(1.0, gt=0)  # of the reversed gradient
    warmup_share: float = Field(0.3, ge=0, le=1)  # of the run, over which the weight rises from 0


class DomainAdversarial(nn.Module):
    """Features to logits of labels [B, K] and of domains [B, D]; a bundle keeps `network` alone.

    The trainer adds the cross-entropy of the domain logits to the loss of the labels. The domain head then learns
    to tell the domains (corpora, or labelled source and unlabelled target), and the network to keep them from it.
    Unlabelled target sound stands in the same batch; its rows count for the second loss only. Raise `strength` from 0
    during the first epochs: an untrained embedding has nothing to hide.
    """

    def __init__(self, network: Network, n_domains: int, strength: float = 1.0) -> None:
        super().__init__()
        self.network, self.strength = network, strength
        width = network.body.width
        self.domain = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_domains))

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        embedding = self.network.embed(features)
        return self.network.body.head(embedding), self.domain_logits(embedding)

    def domain_logits(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.domain(_Reversed.apply(embedding, self.strength))  # type: ignore[no-untyped-call]
        return logits


class _Reversed(torch.autograd.Function):
    """The same number forward; backward its gradient times `-strength`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
