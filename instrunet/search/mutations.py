"""Population-based training: what may change while a network learns, and how far."""

from collections.abc import Mapping
from typing import Any

from instrunet.errors import ConfigError
from instrunet.search.space import GROUPS, RANGES, kind_of

# All else would be another network, another optimizer or other data in the middle of a training
MUTABLE = (
    *("train.learning_rate", "train.clip_norm", "train.loss", "train.specaugment", "train.mixup", "train.polymix"),
    *("train.roll", "train.crop", "model.dropout", "model.block_dropout", "model.drop_path"),
)


def check(space: Mapping[str, Any]) -> None:
    for name, said in space.items():
        if not any(name == one or name.startswith(f"{one}.") for one in MUTABLE) or kind_of(said) in GROUPS:
            raise ConfigError(
                f"tune.space.{name}: pbt changes values while a network learns, and may change {', '.join(MUTABLE)}; "
                "search the rest with another tune.scheduler"
            )


def within(space: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Pushed back into their ranges: a step of a fifth may lead out of them."""
    found = dict(fields)
    for name, said in space.items():
        kind = kind_of(said)
        if kind in RANGES and name in found:
            low, high = said[kind]
            value = min(max(found[name], low), high)
            found[name] = round(value) if kind == "integers" else float(value)
    return found
