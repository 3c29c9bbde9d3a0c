"""What every body of the table is: an embedding of a clip, and a head that reads labels off it.

Shapes: B clips, C channels, F bands, L frames, E numbers of an embedding, K labels.
"""

from pydantic import Field
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.models.picture import PictureSpec


class BodySpec(Spec):
    """Fields that the spec of every body has."""

    l2_dense: float = Field(0.0, ge=0)  # c of the penalty c * w^2 on dense weights


class PictureBodySpec(BodySpec):
    """Of those bodies that look at a picture; the native grid in one channel if nothing else is said."""

    picture: PictureSpec = PictureSpec()


class Body(nn.Module):
    """`embed` takes a picture [B, C, F, L] or numbers [B, F] to [B, E]; `head` takes that to logits [B, K]."""

    width: int  # E
    head: nn.Module

    def embed(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        """`share` [B] is the part of the frames that holds sound; None: all of them."""
        raise NotImplementedError

    def forward(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.embed(x, share))
        return logits
