"""One step of training and one pass of validation, on one device.

Shapes: B clips, N windows of the split, K labels.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from instrunet.models.transfer import Held
from instrunet.training.augment import Augment
from instrunet.training.feed import Batch, Feed
from instrunet.training.lesson import Lesson
from instrunet.training.meter import Meter, step_seed
from instrunet.training.optim import TrainSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Stepper:
    """Holds what a step needs. The network may be wrapped for DDP; normalisation and masks run on its device."""

    network: nn.Module
    optimizer: Optimizer
    lesson: Lesson
    device: torch.device
    half: bool
    after_step: Callable[[], None]
    held: Held = field(default_factory=Held)

    def train_epoch(
        self,
        feed: Feed,
        spec: TrainSpec,
        share: tuple[int, int],
        augment: Augment,
        meter: Meter,
        span: slice = slice(None),
    ) -> None:
        """A span of an epoch's steps over this worker's rows, added to the meter."""
        self.network.train()
        self.held.begin(augment.epoch)
        began = mark = time.perf_counter()
        for batch in feed.epoch(spec, augment.epoch, share, span):
            meter.waited += time.perf_counter() - mark
            torch.manual_seed(step_seed(spec.seed, augment.epoch, batch.number, share[0]))
            others = self.lesson.unlabelled(augment, batch.number, feed.n_batches(spec.batch_size), self.device)
            loss, norm = self._step(batch.to(self.device), others, spec, share[1], augment)
            meter.add(sum_over_workers(loss), norm)
            self.after_step()
            mark = time.perf_counter()
        share_buffers(self.network)
        float(meter.loss)  # the device is done
        meter.took += time.perf_counter() - began

    def _step(
        self, batch: Batch, others: dict[str, Tensor], spec: TrainSpec, world: int, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """The loss, summed over the labelled rows, and the norm of the gradient before it is clipped.

        A part is weighed by its rows over an equal share: DDP's mean of gradients then weighs all rows alike.
        """
        features, targets = augment(batch.features, batch.targets, batch.draws, batch.number)
        self.optimizer.zero_grad(set_to_none=True)
        total = self._zero()
        for context, part in self._parts(len(targets), spec.accumulate):
            with context:
                mine, theirs = ({name: value[part] for name, value in rows.items()} for rows in (features, others))
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                    loss, told = self.lesson(self.network, mine, targets[part], theirs)
                n = len(targets[part])
                (loss * (n * world / spec.batch_size)).backward()
                total += told * n
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if spec.clip_norm:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), spec.clip_norm, norm)
        self.optimizer.step()
        return total, norm

    def _parts(self, n: int, n_parts: int) -> Iterator[tuple[AbstractContextManager[Any], slice]]:
        """The rows of a batch in parts; DDP's workers exchange gradients in the last one only."""
        edges = [n * k // n_parts for k in range(n_parts + 1)]
        for k in range(n_parts):
            waits = k + 1 < n_parts and isinstance(self.network, DistributedDataParallel)
            context = self.network.no_sync() if waits else nullcontext()  # type: ignore[operator]
            yield context, slice(edges[k], edges[k + 1])

    @torch.inference_mode()
    def logits(self, network: nn.Module, feed: Feed, batch_size: int, share: tuple[int, int]) -> NDArray[np.float32]:
        """Logits [N, K] of the whole split on every worker, each having computed its rows.

        Not of the network of the steps: DDP's own forward would wait for the other workers.
        """
        network.eval()
        index, found = [], []
        for rows, batch in feed.rows(batch_size, share):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                found.append(network(batch.to(self.device).features).float().cpu().numpy())
            index.append(rows)
        out = np.zeros((feed.n, feed.targets.shape[1]), np.float32)
        for rows, values in chain(*gathered(list(zip(index, found, strict=True)))):
            out[rows] = values
        return out

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.device)


def share_buffers(network: nn.Module) -> None:
    """DDP evens out batch norm's running means before a step only: after the last one, each worker has its own."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def sum_over_workers(value: Tensor) -> Tensor:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def gathered(mine: T) -> list[T]:
    """Of every worker, on every worker: none goes on before all are here."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [mine]
    everyone: list[T] = [mine] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone
