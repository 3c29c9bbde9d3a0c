"""The networks: a table of bodies, and the wrapper that every one of them wears.

Shapes: B clips, F bands, L frames, K labels.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.features import FRAME_FEATURES
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models.picture import Picture
from instrunet.models.seed_cnn import Iteration11, Iteration11Spec, Task8, Task8Spec

# What `model.name` may be: a new model is one file and one line here (and its spec in the union below).
MODELS: dict[str, type[nn.Module]] = {"task8": Task8, "iteration11": Iteration11}
ModelSpec = Annotated[Task8Spec | Iteration11Spec, Field(discriminator="name")]


class Network(nn.Module):
    """Features {name: [B, F, L]} to logits [B, K]: normalised by the training data's statistics, then classified."""

    def __init__(self, spec: ModelSpec, front: FrontEnd, statistics: Statistics, n_labels: int) -> None:
        super().__init__()
        self.feature = _picture_of(spec.name, front)
        self.mean, self.std = statistics.mean[self.feature], statistics.std[self.feature]
        self.picture = Picture(spec.picture)
        self.body = MODELS[spec.name](spec, spec.picture.grid(*front.shapes()[self.feature]), n_labels)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        picture = self.picture((features[self.feature] - self.mean) / self.std)
        logits: Tensor = self.body(picture)
        return logits


def _picture_of(model: str, front: FrontEnd) -> str:
    """The one feature that a picture network looks at."""
    names = [feature.name for feature in front.features]
    if len(names) > 1 or names[0] not in FRAME_FEATURES:
        raise ConfigError(
            f"{model} looks at one picture of a sound; front.features is {', '.join(names)}: "
            f"set it to one of {', '.join(FRAME_FEATURES)}"
        )
    return names[0]


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
