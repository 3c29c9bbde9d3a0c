"""What a run begins with: another bundle's weights and statistics, teachers, and whether they fit this network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instrunet import bundle as bundles
from instrunet.bundle_spec import BundleSpec
from instrunet.errors import ConfigError
from instrunet.features import shards
from instrunet.features.featurizer import FrontEnd
from instrunet.losses import Loss
from instrunet.models import ModelSpec, Network
from instrunet.models.adversarial import DomainAdversarial
from instrunet.models.distill import DistillSpec
from instrunet.models.transfer import hold, is_weights, load_matching, rate_scales, read_weights
from instrunet.training.average import Average
from instrunet.training.feed import Feed
from instrunet.training.job import Job
from instrunet.training.lesson import Domain, Lesson, Teaching
from instrunet.training.meter import Meter
from instrunet.training.optim import TrainSpec, build_optimizer, build_schedule, half_precision
from instrunet.training.state import Trainee, copied

CUTTING = ("hop_s", "long")  # how many windows a sound has; none of them is another for it
WITHOUT_WEIGHTS = ("dropout", "block_dropout", "drop_path", "l2_dense")  # they matter while training alone
MOST_TOLD = 3

Parent = bundles.Bundle | dict[str, torch.Tensor]  # or the tensors of a file of weights, of which no more is known


def check_front(theirs: FrontEnd, ours: FrontEnd, said: str) -> None:
    """A network is of use on the features that it has learnt from alone."""
    found = _differing(theirs.model_dump(exclude=set(CUTTING)), ours.model_dump(exclude=set(CUTTING)), "front")
    if found:
        raise ConfigError(f"{said} was trained on features computed otherwise: {_told(found)}, or give another bundle")


def check_model(theirs: ModelSpec, ours: ModelSpec, said: str) -> None:
    leave = set(WITHOUT_WEIGHTS)
    if theirs.name != ours.name:
        found: list[tuple[str, Any, Any]] = [("model.name", theirs.name, ours.name)]
    else:
        found = _differing(theirs.model_dump(exclude=leave), ours.model_dump(exclude=leave), "model")
    if found:
        raise ConfigError(f"{said} has another network: {_told(found)}, or give another bundle")


def check_labels(teacher: BundleSpec, student: BundleSpec, said: str) -> None:
    if (teacher.kind, teacher.labels) != (student.kind, student.labels):
        raise ConfigError(
            f"{said} answers with other labels ({teacher.kind}: {', '.join(teacher.labels)}) than the student "
            f"({student.kind}: {', '.join(student.labels)}); expected the same in the same order: give another bundle, "
            "or begin from this one (train.init_from), which takes all but the labels over"
        )


def from_parent(draft: BundleSpec, path: Path | None) -> tuple[BundleSpec, Parent | None]:
    """The draft as it is trained from the bundle, or the weights, at `path`.

    The statistics are the bundle's: its first layer has learnt to read numbers that were normalised by them. Refitted
    ones would move every input of a network that is held fast. What is new in the sound is for the profile to say.
    """
    if path is None:
        return draft, None
    if is_weights(path):
        return draft, read_weights(path)
    parent, said = bundles.Bundle.load(path), f"train.init_from={path}"
    check_front(parent.spec.front, draft.front, said)
    check_model(parent.spec.model, draft.model, said)
    return draft.model_copy(update={"statistics": parent.spec.statistics}), parent


def trainee(job: Job, parent: Parent | None, device: torch.device, n_steps: int) -> Trainee:
    """The network, new or with the parent's weights, and all that is trained with it in a run of `n_steps`."""
    spec, draft = job.train, job.draft
    network = network_of(draft)
    if parent is not None:
        take_over(network, draft, parent)
    to_device(network, device, spec)
    held = hold(network.body, spec.transfer)
    adversary = DomainAdversarial(network, n_domains=2).to(device) if job.domain else None
    scales = rate_scales(network.body, spec.transfer.rate_decay, spec.transfer.body_rate)
    optimizer = build_optimizer(adversary or network, spec, draft.model.l2_dense, scales)
    schedule = build_schedule(optimizer, spec, n_steps)
    average = Average(network, spec.ema) if spec.ema else None
    good = copied(adversary or network) if spec.on_collapse == "recover" else {}
    meter = Meter.on(device)
    return Trainee(network, optimizer, schedule, average, meter, good, adversary=adversary, held=held)


def take_over(network: Network, draft: BundleSpec, parent: Parent) -> None:
    """The parent's weights; the head stays as it is unless it would give the same answers in the same order."""
    if not isinstance(parent, bundles.Bundle):
        load_matching(network, parent, fresh="body.head.")
        return
    same = (parent.spec.kind, parent.spec.labels) == (draft.kind, draft.labels)
    state = parent.network.state_dict()
    taken = {name: value for name, value in state.items() if same or not name.startswith("body.head.")}
    network.load_state_dict(taken, strict=same)


def lesson(
    job: Job, of_labels: Loss, adversary: DomainAdversarial | None, device: torch.device, share: tuple[int, int]
) -> Lesson:
    """What a step is scored by."""
    teaching = domain = None
    if job.distill:
        found = [to_device(network, device, job.train) for network in teachers(job.distill, job.draft)]
        teaching = Teaching(job.distill, found, job.draft.kind)
    if job.domain and adversary:
        assert job.target, "a job with a domain comes with the features of its target"
        rows = shards.load(job.target, job.draft.front, "train")
        domain = Domain(job.domain, adversary, Feed(rows, job.draft.labels, "target"), share)
    return Lesson(of_labels, teaching, domain)


def teachers(spec: DistillSpec, draft: BundleSpec) -> list[Network]:
    found = []
    for path in spec.teacher:
        teacher, said = bundles.Bundle.load(path), f"distill.teacher={path}"
        check_front(teacher.spec.front, draft.front, said)
        check_labels(teacher.spec, draft, said)
        found.append(teacher.network.requires_grad_(False))
    return found


def network_of(draft: BundleSpec) -> Network:
    return Network(draft.model, draft.front, draft.statistics, len(draft.labels))


def to_device(network: Network, device: torch.device, spec: TrainSpec) -> nn.Module:
    network.to(device)
    if half_precision(device, spec.precision):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _differing(theirs: Any, ours: Any, key: str) -> list[tuple[str, Any, Any]]:
    """(dotted key, theirs, ours) of all that is not the same."""
    if theirs == ours:
        return []
    pairs = [_children(theirs), _children(ours)]
    if not all(pairs):
        return [(key, theirs, ours)]
    names = list(dict.fromkeys([*pairs[0], *pairs[1]]))
    return [one for n in names for one in _differing(pairs[0].get(n), pairs[1].get(n), f"{key}.{n}")]


def _children(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    groups = isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value)
    return {str(k): one for k, one in enumerate(value)} if groups else {}


def _told(found: list[tuple[str, Any, Any]]) -> str:
    named = [f"{key} is {_short(theirs)} there and {_short(ours)} here" for key, theirs, ours in found[:MOST_TOLD]]
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    key, theirs, _ = found[0]
    return f"{', '.join(named)}{more}; set {key} to {_short(theirs)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
