"""Features and network of many units at once, on a device; their windows are cut by the threads that decode them.

What it says differs from what the bundle says by rounding alone.

Shapes: W windows, B of a batch, N samples of a window, F bands, L frames, K labels, E numbers of an embedding.
"""

import copy
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet import engines, runtime
from instrunet.archive.speed import Clock
from instrunet.audio import io
from instrunet.audio.ahead import Threads
from instrunet.bundle import Bundle
from instrunet.errors import JobError
from instrunet.features import IN_TORCH
from instrunet.features.featurizer import Cut, Featurizer, FrontEnd
from instrunet.features.measures import Level, Levels, levels, peak, with_feature
from instrunet.hearing import Heard, Seen, looked

SIZES = (16, 32, 64, 128, 256, 512)  # windows of a batch, as far as memory goes
ENOUGH = 0.9  # of the best rate: what is smaller shares its device and its time better
ROOM = 0.5  # of the memory that is free; the rest is for fragments, and for who shares the device
LONG_S = 1.0  # a batch that takes so long is the largest that is tried
TRIES = 3


class Ready(NamedTuple):
    """All of a sound that needs no device."""

    cut: Cut
    levels: Levels


Batch = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16] | None]  # logits, range of values, [B, E]


class Device:
    """A bundle's features and network on `name`, as torch calls it. Threads may share it; they wait for each other."""

    def __init__(self, bundle: Bundle, name: str, threads: Threads) -> None:
        self.device, self.threads = _found(name), threads
        self._bundle, self._lock = bundle, threading.Lock()
        torch.backends.cudnn.allow_tf32 = False  # ten bits of a product would be further from the bundle than rounding
        self._network = copy.deepcopy(bundle.network).to(self.device)
        self._featurizer = Featurizer(bundle.spec.front).to(self.device)
        runtime.agree(bundle, engines.by_torch(self._network, self.device), name, "fp32")
        self.n_windows = smallest(self.rates())

    @property
    def enough(self) -> int:
        """Of what `size` counts, for a call of `hear`."""
        return self.n_windows

    def size(self, one: Seen[Ready]) -> int:
        return len(one.windows.cut.start_s)

    def ready(self, sound: io.Sound, start_s: float) -> Seen[Ready]:
        """The first step, for threads that decode."""
        return looked(sound, self._bundle.spec.front, start_s, self._cut)

    @torch.inference_mode()
    def hear(self, sounds: Sequence[Seen[Ready]], embed: bool, clock: Clock) -> list[Heard]:
        """Their windows in shared batches; of short sounds that keep their own length only those of one length."""
        found: dict[int, Heard] = {}
        lengths = [len(one.windows.cut.waves[0]) if one.windows.cut.waves else 0 for one in sounds]
        with self._lock:
            for length in sorted(set(lengths)):
                some = [k for k, own in enumerate(lengths) if own == length]
                found |= zip(some, self._heard([sounds[k] for k in some], embed, clock), strict=True)
        return [found[k] for k in range(len(sounds))]

    def rates(self) -> dict[int, float]:
        """Windows a second at each size of a batch that fits."""
        found: dict[int, float] = {}
        free = torch.cuda.mem_get_info(self.device)[0] if self._is_cuda else 0
        for n in SIZES:
            try:
                took, most = self._tried(n)
            except torch.OutOfMemoryError:
                break
            if self._is_cuda and found and most > ROOM * free:
                break
            found[n] = n / took
            if took > LONG_S:
                break
        if not found:
            raise JobError(f"expected memory for {SIZES[0]} windows on {self.device}, {free >> 20} MiB are free of it")
        return found

    @property
    def _is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def _cut(self, wave: NDArray[np.float32]) -> Ready:
        cut = self._bundle.featurizer.cut(wave)
        each = [Level.of(own, peak(own)) for own in (wave[: cut.own] for wave in cut.waves)]
        return Ready(cut, levels(each, self._bundle.spec.front.sample_rate))

    def _heard(self, sounds: Sequence[Seen[Ready]], embed: bool, clock: Clock) -> Iterable[Heard]:
        waves = [one.windows.cut.waves for one in sounds]
        ends = np.cumsum([len(own) for own in waves])[:-1]
        made = [self._batch(rows, embed, clock) for rows in self._gathered([*chain(*waves)]).split(self.n_windows)]
        logits, ranges = (np.concatenate([batch[k] for batch in made]) for k in (0, 1))
        scores, values = np.split(self._bundle.activated(logits), ends), np.split(ranges, ends)
        embedded = np.split(np.concatenate([batch[2] for batch in made]), ends) if embed else [None] * len(sounds)
        for one, of_one, extremes, own in zip(sounds, scores, values, embedded, strict=True):
            cut, loud = one.windows
            measures = with_feature(loud, extremes, cut.duration_s).tolist()
            yield Heard(*one[:4], cut.start_s, of_one, measures, own)

    def _gathered(self, waves: Sequence[NDArray[np.float32]]) -> Tensor:
        """One [W, N], in memory that a GPU copies from while we go on."""
        gathered = torch.empty(len(waves), len(waves[0]) if waves else 0, pin_memory=self._is_cuda)
        for wave, place in zip(waves, gathered.numpy(), strict=True):
            place[:] = wave
        return gathered

    def _batch(self, wave: Tensor, embed: bool, clock: Clock) -> Batch:
        """[B, N] to logits [B, K], the smallest and largest value of the first feature [B, 1, 2] and embeddings."""
        network, body = self._network, self._network.body
        if not len(wave):
            none = np.zeros((0, len(self._bundle.spec.labels)), np.float32)
            return none, np.zeros((0, 1, 2), np.float32), np.zeros((0, body.width), np.float16) if embed else None
        with clock("features"):
            features = self._featurizer(wave.to(self.device, non_blocking=True))
            first = features[self._bundle.spec.front.features[0].name]
            ranges = torch.stack([first.amin((1, 2)), first.amax((1, 2))], 1)[:, None].cpu().numpy()  # waits for all
        with clock("network"):
            embedded = network.embed(features) if embed else None
            logits = body.head(embedded) if embed else network(features)
            kept = embedded.cpu().numpy().astype(np.float16) if embedded is not None else None
            return logits.float().cpu().numpy(), ranges, kept

    @torch.inference_mode()
    def _tried(self, n: int) -> tuple[float, int]:
        """Seconds of a batch of so many windows of noise, and the bytes that it took at most."""
        front = self._bundle.spec.front
        wave = 0.1 * torch.randn(n, front.window, generator=torch.Generator().manual_seed(0))
        took = []
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        for _ in range(1 + TRIES):
            began = time.perf_counter()
            self._batch(wave, False, Clock())
            took.append(time.perf_counter() - began)
        return min(took[1:]), torch.cuda.max_memory_allocated(self.device) if self._is_cuda else 0


def able(front: FrontEnd) -> bool:
    """Whether a device gains by it: what numpy makes it would wait for."""
    return all(feature.name in IN_TORCH for feature in front.features)


def smallest(rates: Mapping[int, float]) -> int:
    """The smallest size that is nearly as fast as the best."""
    best = max(rates.values())
    return min(n for n, rate in rates.items() if rate >= ENOUGH * best)


def _found(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise JobError(
            f"expected CUDA where Ray gives a GPU, torch {torch.__version__} finds none: install torch's CUDA build "
            "and a driver on the nodes with GPUs, or tag on cores with --runtime torch/fp32 into another --out"
        )
    return torch.device(name)
