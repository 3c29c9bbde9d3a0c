"""One step of training and one pass of validation, on one device.

Shapes: B clips, N windows of the split, K labels.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from instrunet.augment.specaugment import mask
from instrunet.errors import JobError
from instrunet.features import FRAME_FEATURES
from instrunet.features.featurizer import Statistics
from instrunet.losses import Loss
from instrunet.training.feed import Batch, Feed
from instrunet.training.optim import TrainSpec

Autocast = Callable[[], AbstractContextManager[object]]


class Stepper:
    """Holds what a step needs. The network may be wrapped for DDP; normalisation and masks run on its device."""

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, loss: Loss, weights: Tensor | None, device: torch.device
    ) -> None:
        self.network, self.optimizer, self.loss = network, optimizer, loss
        self.weights, self.device = weights, device
        self.half = False

    def train_epoch(
        self, feed: Feed, spec: TrainSpec, epoch: int, share: tuple[int, int], statistics: Statistics
    ) -> dict[str, float]:
        """One pass over this worker's rows; the mean loss is over all workers."""
        self.network.train()
        total, rows, waited = torch.zeros((), device=self.device), 0, 0.0
        began = mark = time.perf_counter()
        for batch in feed.epoch(spec.seed, epoch, spec.batch_size, share, spec.specaugment):
            waited += time.perf_counter() - mark
            part = len(batch.targets) * share[1] / spec.batch_size
            loss = self._step(batch.to(self.device), spec, statistics, part)
            total += loss.detach() * len(batch.targets)
            rows += len(batch.targets)
            mark = time.perf_counter()
        _share_buffers(self.network)
        summed = _sum_over_workers(torch.stack([total, torch.tensor(float(rows), device=self.device)]))
        mean, took = float(summed[0] / summed[1]), time.perf_counter() - began
        if not np.isfinite(mean):
            raise JobError(
                f"the training loss is {mean} in epoch {epoch}; expected a finite number: lower train.learning_rate "
                f"(now {spec.learning_rate:g}) or set train.precision=fp32"
            )
        return {"train_loss": mean, "clips_per_s": float(summed[1]) / took, "wait_share": waited / took}

    def _step(self, batch: Batch, spec: TrainSpec, statistics: Statistics, part: float) -> Tensor:
        """`part` is this worker's rows over an equal share: DDP's mean of gradients then weighs all rows alike."""
        features = batch.features
        if spec.specaugment:
            features = {
                n: mask(v, batch.draws, spec.specaugment, statistics.mean[n][0]) if n in FRAME_FEATURES else v
                for n, v in features.items()
            }
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(features)
        loss = self.loss(logits.float(), batch.targets, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * part).backward()
        self.optimizer.step()
        return loss

    @torch.inference_mode()
    def logits(self, feed: Feed, batch_size: int, share: tuple[int, int]) -> NDArray[np.float32]:
        """Logits [N, K] of the whole split on every worker, each having computed its rows."""
        network = getattr(self.network, "module", self.network)  # DDP's own forward would wait for the other workers
        network.eval()
        index, found = [], []
        for rows, batch in feed.rows(batch_size, share):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                found.append(network(batch.to(self.device).features).float().cpu().numpy())
            index.append(rows)
        out = np.zeros((feed.n, feed.targets.shape[1]), np.float32)
        for rows, values in _gather([(rows, values) for rows, values in zip(index, found, strict=True)]):
            out[rows] = values
        return out


def _share_buffers(network: nn.Module) -> None:
    """DDP evens out batch norm's running means before a step only: after the last one, each worker has its own."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def _sum_over_workers(value: Tensor) -> Tensor:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def _gather(
    mine: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return mine
    everyone: list[list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, mine)
    return [pair for worker in everyone for pair in worker]
