"""What the steps since the last validation add up to."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Meter:
    """Sums over all workers, on the device. They are the same in each worker, so any one's checkpoint holds them."""

    loss: Tensor
    norm: Tensor  # of the gradient
    n: int = 0  # steps
    timed: int = 0  # of them in this process
    took: float = 0.0
    waited: float = 0.0

    @classmethod
    def on(cls, device: torch.device) -> "Meter":
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))

    def add(self, loss: Tensor, norm: Tensor) -> None:
        self.loss, self.norm = self.loss + loss, self.norm + norm
        self.n, self.timed = self.n + 1, self.timed + 1

    def figures(self, batch_size: int) -> dict[str, float]:
        """Means of the steps; a resumed worker's clock knows its own steps only."""
        return {
            "train_loss": float(self.loss) / (self.n * batch_size),
            "gradient_norm": float(self.norm) / self.n,
            "clips_per_s": self.timed * batch_size / self.took if self.took else 0.0,
            "wait_share": self.waited / self.took if self.took else 0.0,
        }


def step_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """Of what torch draws in one step, as dropout does: a run resumed there draws what an undisturbed one would."""
    return int(np.random.SeedSequence([seed, epoch, number, rank]).generate_state(1, np.uint64)[0])
