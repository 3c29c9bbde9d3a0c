"""The trainer's state on disk: tensors in safetensors, everything else in JSON; nothing is pickled.

CHECKPOINT/bundle/              the best epoch so far, ready to use; not there before the first validation
CHECKPOINT/snapshots/cycle-1/   the weights at the end of each cycle of the rate, where there are several
CHECKPOINT/misclassified.json   its worst mistakes on the validation split
CHECKPOINT/state.json           epoch, step, best, history, schedule, optimizer settings
CHECKPOINT/state.safetensors    the latest weights (a domain head's, too), their mean, the optimizer's moments, the last
                                good weights, the sums since the last validation
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from instrunet.config import canonical_json
from instrunet.data.parts import read_json
from instrunet.models.adversarial import DomainAdversarial
from instrunet.models.transfer import Held
from instrunet.training.average import Average
from instrunet.training.meter import Meter
from instrunet.training.optim import RATES, slow_down

Save = Callable[[Path], None]
STATE_FILE, TENSORS_FILE, BUNDLE_FOLDER = "state.json", "state.safetensors", "bundle"
MISSES_FILE, SNAPSHOTS = "misclassified.json", "snapshots"


@dataclass
class Progress:
    """How far a run was at its last validation. `best` is the monitored figure, larger is better, at `best_epoch`,
    whose weights are kept (the last ones, where the spec says so).

    Epoch 0 is the first, when it is done; half an epoch later is 0.5.
    """

    epoch: float = -1
    step: int = 0
    best: float = float("-inf")
    best_epoch: float = -1
    recoveries: int = 0  # from collapses
    history: list[dict[str, float]] = field(default_factory=list)

    def metrics_of(self, epoch: float) -> dict[str, float]:
        return next(metrics for metrics in self.history if metrics["epoch"] == epoch)


@dataclass
class Trainee:
    """All that changes from step to step.

    `good` are the weights to go back to after a collapse, if that is wanted, `clock` the rates and schedule to go back
    to: those of the last validation. `meter` is what came since.
    """

    network: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: Average | None
    meter: Meter
    good: dict[str, Tensor] = field(default_factory=dict)
    clock: dict[str, Any] = field(default_factory=dict)
    adversary: DomainAdversarial | None = None
    held: Held = field(default_factory=Held)

    @property
    def trained(self) -> nn.Module:
        """What a step is taken with: the network, and the domain head where there is one."""
        return self.adversary or self.network

    @property
    def served(self) -> nn.Module:
        """What is validated and kept: the mean of the weights where there is one."""
        return self.average.network if self.average else self.network

    @property
    def learning_rate(self) -> float:
        """The head's, where a body learns slower."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def validated(self) -> None:
        """From here the next steps count."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.clock = deepcopy({"groups": groups, "schedule": schedule_state(self.schedule)})
        self.meter = Meter.on(self.meter.loss.device)

    def go_back(self) -> None:
        """To the last good weights with a tenth of the rate. The optimizer's moments led astray: they begin anew."""
        self.trained.load_state_dict(self.good)
        if self.average:
            self.average.restart()
        self.optimizer.state.clear()
        for group, settings in zip(self.optimizer.param_groups, self.clock["groups"], strict=True):
            group.update(deepcopy(settings))
        self.schedule.load_state_dict(self.schedule.state_dict() | deepcopy(self.clock["schedule"]))
        slow_down(self.optimizer, self.schedule, 0.1)
        self.validated()


def save_state(folder: Path, progress: Progress, trainee: Trainee) -> None:
    state = trainee.optimizer.state_dict()
    tensors = {f"network.{name}": value for name, value in trainee.network.state_dict().items()}
    tensors |= {f"good.{name}": value for name, value in trainee.good.items()}
    if trainee.adversary:
        tensors |= {f"domain.{name}": value for name, value in trainee.adversary.domain.state_dict().items()}
    tensors |= {"meter.loss": trainee.meter.loss, "meter.norm": trainee.meter.norm}
    if trainee.average:
        tensors |= {f"average.{name}": value for name, value in trainee.average.network.state_dict().items()}
    for number, moments in state["state"].items():
        found = {f"optimizer.{number}.{name}": value for name, value in moments.items() if value is not None}
        tensors |= {name: torch.as_tensor(value) for name, value in found.items()}
    safetensors.torch.save_file({n: v.detach().cpu().contiguous() for n, v in tensors.items()}, folder / TENSORS_FILE)
    tree = {
        "progress": vars(progress),
        "groups": state["param_groups"],
        "schedule": schedule_state(trainee.schedule),
        "averaged": trainee.average.n if trainee.average else 0,
        "metered": trainee.meter.n,
        "clock": trainee.clock,
    }
    (folder / STATE_FILE).write_text(canonical_json(_finite(tree)), encoding="utf-8")


def load_state(folder: Path, trainee: Trainee) -> Progress:
    tree = read_json(folder / STATE_FILE)
    tensors = safetensors.torch.load_file(folder / TENSORS_FILE)
    trainee.network.load_state_dict(_under("network.", tensors))
    if trainee.adversary:
        trainee.adversary.domain.load_state_dict(_under("domain.", tensors))
    trainee.good = _under("good.", tensors)
    if trainee.average:
        trainee.average.network.load_state_dict(_under("average.", tensors))
        trainee.average.n = tree["averaged"]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    trainee.optimizer.load_state_dict({"state": moments, "param_groups": tree["groups"]})
    trainee.schedule.load_state_dict(trainee.schedule.state_dict() | _infinite(tree["schedule"]))
    trainee.meter.loss.copy_(tensors["meter.loss"])
    trainee.meter.norm.copy_(tensors["meter.norm"])
    trainee.meter.n = tree["metered"]
    trainee.clock = {"groups": tree["clock"]["groups"], "schedule": _infinite(tree["clock"]["schedule"])}
    return Progress(**_infinite(tree["progress"]))


def rescale(folder: Path, factor: float) -> None:
    """Every rate that a checkpoint remembers, times a factor: what goes on from it learns faster or slower."""
    tree = read_json(folder / STATE_FILE)
    for group in [*tree["groups"], *tree["clock"]["groups"]]:
        group.update({key: group[key] * factor for key in RATES if key in group})
    for schedule in (tree["schedule"], tree["clock"]["schedule"]):
        schedule.update({k: [rate * factor for rate in schedule[k]] for k in ("base_lrs", "_last_lr") if k in schedule})
    (folder / STATE_FILE).write_text(canonical_json(tree), encoding="utf-8")


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def schedule_state(schedule: LRScheduler) -> dict[str, Any]:
    """The part of it that is data."""
    return {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | str | list)}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _finite(value: Any) -> Any:
    """JSON has no infinity: the best before a first validation, the schedule's best."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return "inf" if value == float("inf") else "-inf" if value == float("-inf") else value


def _infinite(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if v in ("inf", "-inf") else v for k, v in tree.items()}
