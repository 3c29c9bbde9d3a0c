"""What the rows of a step teach: their labels, what teachers say of them, and to hide where they come from.

Shapes: B rows of one worker's batch, L frames, K labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instrunet.features import SHARE
from instrunet.losses import Loss
from instrunet.models.adversarial import DomainAdversarial, DomainSpec
from instrunet.models.distill import DistillSpec, distillation, soft_targets
from instrunet.training.augment import Augment
from instrunet.training.feed import Feed

Features = dict[str, Tensor]
Losses = tuple[Tensor, Tensor]
OURS, THEIRS = 0, 1  # the domains


@dataclass(frozen=True)
class Teaching:
    """Teachers in evaluation, on the device."""

    spec: DistillSpec
    teachers: list[nn.Module]
    kind: str

    def mixed(self, of_labels: Tensor, logits: Tensor, features: Features) -> Tensor:
        """The loss of the labels and that of the teachers' answers to the same rows, augmented as they are."""
        soft = soft_targets(self.teachers, features, self.kind, self.spec.temperature)
        soft = soft.repeat_interleave(len(logits) // len(soft), 0)
        of_teachers = distillation(logits, soft, self.kind, self.spec.temperature)
        return (1 - self.spec.weight) * of_labels + self.spec.weight * of_teachers


class Domain:
    """Unlabelled sound of the target beside each batch: as many rows of it, augmented alike.

    Otherwise the domain head would learn to tell what was masked. Which rows is drawn for each step anew from (seed,
    epoch, number): no state is kept, and a worker has as many steps as the others however few the rows are.
    """

    def __init__(self, spec: DomainSpec, adversary: DomainAdversarial, feed: Feed, share: tuple[int, int]) -> None:
        self.spec, self.adversary, self.feed, self.share = spec, adversary, feed, share
        self.tally = torch.zeros(3)  # loss, rows told rightly, rows

    def rows(self, augment: Augment, number: int, n_batches: int, device: torch.device) -> Features:
        train = augment.spec
        warmup = self.spec.warmup_share * train.epochs
        far = (augment.epoch + number / n_batches) / warmup if warmup else 1.0
        self.adversary.strength = self.spec.weight * min(1.0, far)
        batch = self.feed.sample(train, augment.epoch, number, self.share).to(device)
        return augment(batch.features, batch.targets, batch.draws, number)[0]

    def loss(self, logits: Tensor, n_ours: int) -> Tensor:
        where = torch.full((len(logits),), THEIRS, device=logits.device)
        where[:n_ours] = OURS
        loss = F.cross_entropy(logits, where)
        right = (logits.argmax(1) == where).sum()
        n = torch.tensor(float(len(logits)), device=logits.device)
        self.tally = self.tally.to(logits.device) + torch.stack([loss.detach() * n, right.float(), n])
        return loss


class Lesson:
    """The loss of a step, whatever it is made of. Only labelled rows count for labels and teachers."""

    def __init__(self, of_labels: Loss, teaching: Teaching | None = None, domain: Domain | None = None) -> None:
        self.of_labels, self.teaching, self.domain = of_labels, teaching, domain

    def unlabelled(self, augment: Augment, number: int, n_batches: int, device: torch.device) -> Features:
        """This worker's rows of the target beside batch `number`; nothing where there is none."""
        return self.domain.rows(augment, number, n_batches, device) if self.domain else {}

    def __call__(self, network: nn.Module, features: Features, targets: Tensor, others: Features) -> Losses:
        """The mean loss of the rows: what is lowered, and what of it is not of domains."""
        said = network(joined(features, others) if others else features)
        n_ours = len(targets)
        logits = (said[0][:n_ours] if others else said).float()
        if logits.ndim == 3:  # of an ensemble [B, M, K]: each member learns by itself
            logits, targets = logits.flatten(0, 1), targets.repeat_interleave(logits.shape[1], 0)
        loss = self.of_labels(logits, targets)
        if self.teaching:
            loss = self.teaching.mixed(loss, logits, features)
        if not (self.domain and others):
            return loss, loss.detach()
        return loss + self.domain.loss(said[1].float(), n_ours), loss.detach()

    def figures(self, over_workers: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Of the epoch that ends here: at 0.5 the domain head is at a loss."""
        if not self.domain:
            return {}
        loss, right, n = over_workers(self.domain.tally).tolist()
        self.domain.tally = torch.zeros(3)
        return {"domain_loss": loss / n, "domain_accuracy": right / n}


def joined(features: Features, others: Features) -> Features:
    """Both as one batch. Where windows differ in length, the shorter ones' frames are filled up to the longer's."""
    if SHARE not in features:
        return {name: torch.cat([value, others[name]]) for name, value in features.items()}
    longest = max(value.shape[2] for both in (features, others) for name, value in both.items() if name != SHARE)
    filled = [_filled(both, longest) for both in (features, others)]
    return {name: torch.cat([one[name] for one in filled]) for name in features}


def _filled(features: Features, n_frames: int) -> Features:
    own = next(value.shape[2] for name, value in features.items() if name != SHARE)
    found = {name: F.pad(value, (0, n_frames - own)) for name, value in features.items() if name != SHARE}
    return found | {SHARE: features[SHARE] * (own / n_frames)}
