"""The trainer's state on disk: tensors in safetensors, everything else in JSON; nothing is pickled.

CHECKPOINT/bundle/              the best epoch so far, ready to use
CHECKPOINT/state.json           epoch, best, history, schedule, optimizer settings
CHECKPOINT/state.safetensors    the latest weights and the optimizer's moments
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from instrunet.config import canonical_json
from instrunet.data.parts import read_json

STATE_FILE, TENSORS_FILE, BUNDLE_FOLDER = "state.json", "state.safetensors", "bundle"


@dataclass
class Progress:
    """How far a run is. `best` is the monitored figure, larger is better, at `best_epoch`."""

    epoch: int = -1
    best: float = float("-inf")
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(
    folder: Path, progress: Progress, network: nn.Module, optimizer: Optimizer, schedule: ReduceLROnPlateau
) -> None:
    state = optimizer.state_dict()
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, moments in state["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    safetensors.torch.save_file({n: v.detach().cpu().contiguous() for n, v in tensors.items()}, folder / TENSORS_FILE)
    tree = {
        "progress": vars(progress),
        "groups": state["param_groups"],
        "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | str | list)},
    }
    (folder / STATE_FILE).write_text(canonical_json(_finite(tree)), encoding="utf-8")


def load_state(folder: Path, network: nn.Module, optimizer: Optimizer, schedule: ReduceLROnPlateau) -> Progress:
    tree = read_json(folder / STATE_FILE)
    tensors = safetensors.torch.load_file(folder / TENSORS_FILE)
    network.load_state_dict(_under("network.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": tree["groups"]})
    schedule.load_state_dict(schedule.state_dict() | _infinite(tree["schedule"]))
    return Progress(**tree["progress"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _finite(value: Any) -> Any:
    """JSON has no infinity; a run always has a finite best by the time it is saved, a schedule may not."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return "inf" if value == float("inf") else "-inf" if value == float("-inf") else value


def _infinite(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if v in ("inf", "-inf") else v for k, v in tree.items()}
