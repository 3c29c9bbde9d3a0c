"""Beginning from another model: its weights where they fit, stages held fast, slower steps the deeper a stage lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor, nn

from instrunet.config import Spec
from instrunet.errors import ConfigError, DataError
from instrunet.models.body import Body

SAFE = ".safetensors"
PREFIXES = ("", "body.", "body.net.", "net.")  # a bundle's network, a body alone, timm's own file for either


class TransferSpec(Spec):
    """How a network that has learnt already learns on.

    A stage is a layer with weights and what stands behind it up to the next; the last stage is the head.
    """

    freeze: Annotated[int, Field(ge=0)] | Literal["body"] = 0  # stages, from the first, that are held fast
    unfreeze_after: int | None = Field(None, gt=0)  # epochs; None: they are held to the end
    body_rate: float = Field(1.0, gt=0)  # by which the learning rate of all stages but the head is multiplied
    rate_decay: float = Field(1.0, gt=0)  # and once more for each stage further from the head


@dataclass(frozen=True)
class Fitted:
    """Names in the network: those that were `copied`, those that were not (`fresh`), and in the file those `unused`."""

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def is_weights(path: Path) -> bool:
    """A file of tensors and no bundle."""
    return path.suffix == SAFE or path.is_file()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a local safetensors file; nothing pickled is opened."""
    if path.suffix != SAFE:
        raise ConfigError(
            f"expected weights as a .safetensors file, got {path.name}: others are pickles, which may run code; "
            "convert it with safetensors.torch.save_file"
        )
    try:
        weights: dict[str, Tensor] = safetensors.torch.load_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; give a local file") from None
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file: {error}; copy it again") from None
    return weights


def load_matching(network: nn.Module, weights: Mapping[str, Tensor], fresh: str = "-") -> Fitted:
    """Copy every tensor that fits by name and shape; a head for other labels stays fresh, and what `fresh` begins.

    Three colour channels are summed into one: what the first layer says of a grey picture is then unchanged.
    """
    state = network.state_dict()
    prefix = max(PREFIXES, key=lambda p: sum(p + name in state for name in weights))
    fits: dict[str, Tensor] = {}
    for name, value in weights.items():
        ours = state.get(prefix + name)
        if (
            ours is not None
            and not (prefix + name).startswith(fresh)
            and (value := _one_channel(value, ours)).shape == ours.shape
        ):
            fits[prefix + name] = value
    copied = tuple(name for name in state if name in fits)
    if not any(state[name].ndim > 1 for name in copied):
        raise ConfigError(
            f"none of the {len(weights)} tensors fits this network: expected names and shapes such as "
            f"{_example(state)}, got {_example(weights)}; set model to that of the weights"
        )
    network.load_state_dict(fits, strict=False)
    unused = tuple(name for name in weights if prefix + name not in fits)
    return Fitted(copied, tuple(name for name in state if name not in fits), unused)


def stages(body: Body) -> list[list[nn.Module]]:
    """A body's modules from input to head; a norm belongs to the convolution before it."""
    found: list[list[nn.Module]] = []
    for module in _opened(body):
        if not found or (_weighs(module) and any(map(_weighs, found[-1]))):
            found.append([])
        found[-1].append(module)
    return found


@dataclass(frozen=True)
class Held:
    """Modules that do not learn in the first `n_epochs`, or in none (None)."""

    modules: list[nn.Module] = field(default_factory=list)
    n_epochs: int | None = None

    @property
    def for_a_while(self) -> bool:
        return bool(self.modules) and self.n_epochs is not None

    def begin(self, epoch: int) -> None:
        """After each `network.train()`: otherwise batch norm there would go on to follow the new data."""
        holds = self.n_epochs is None or epoch < self.n_epochs
        for module in self.modules:
            module.requires_grad_(not holds)
            module.train(not holds)


def hold(body: Body, spec: TransferSpec) -> Held:
    """The stages that `spec` holds fast. Those that never learn are told so here, before DDP looks at them."""
    held = Held(_first_stages(body, spec.freeze), spec.unfreeze_after)
    if not held.for_a_while:
        held.begin(0)
    return held


def rate_scales(body: Body, decay: float, body_rate: float = 1.0) -> dict[nn.Parameter, float]:
    """By what each parameter's learning rate is multiplied.

    1 for the head, `body_rate` for the stage before it, that times `decay` for the one before that, ...
    """
    *before, _ = stages(body)
    scales = dict.fromkeys(body.parameters(), 1.0)
    for depth, stage in enumerate(reversed(before)):
        scales |= {p: body_rate * decay**depth for module in stage for p in module.parameters()}
    return scales


def _first_stages(body: Body, n: int | str) -> list[nn.Module]:
    *before, _ = stages(body)
    if n != "body" and int(n) > len(before):
        raise ConfigError(f"expected 0 to {len(before)} stages to freeze, or body for all but the head; got {n}")
    return [module for stage in before[: None if n == "body" else int(n)] for module in stage]


def _opened(module: nn.Module) -> list[nn.Module]:
    """Its parts in order: sequences, and a network of timm's as a whole, are opened; blocks are not."""
    parts: list[nn.Module] = []
    for name, child in module.named_children():
        opens = isinstance(child, nn.Sequential | nn.ModuleList) and name != "head"
        parts += _opened(child) if opens or name == "net" else [child]
    return parts


def _weighs(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())


def _one_channel(value: Tensor, ours: Tensor) -> Tensor:
    grey = value.ndim == ours.ndim == 4 and value.shape[1] == 3 and ours.shape[1] == 1
    return value.sum(1, keepdim=True) if grey else value


def _example(tensors: Mapping[str, Tensor]) -> str:
    name = next((name for name, value in tensors.items() if value.ndim > 1), None)
    return f"{name} {tuple(tensors[name].shape)}" if name else "no matrix at all"
