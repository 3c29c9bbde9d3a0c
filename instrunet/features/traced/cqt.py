"""The constant-Q transform in torch alone: the recursion over octaves of features/spectra.py as convolutions.

Shapes: B clips, T samples, F bins, L frames, N samples of a filter, R samples that a filter of the resampler reaches.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from instrunet.features.cqt import CqtSpec
from instrunet.features.spectra import Octave, constant_q, slower

REACH = 104  # samples of the lower rate: the rest of soxr's filter is noise of its FFT, below 1e-7
AT_ONCE = 104  # samples of the lower rate: three products, 0.5 MB; with 32 eight, and twice the time to export
BEGUN = 4  # samples of the lower rate: what soxr, halving more than once, leaves out of a sound's begin


class Slower(nn.Module):
    """[B, T] to [B, T / factor], rounded up: soxr's filter, told by impulses.

    `AT_ONCE` samples are a sum of products with matrices, in double precision: a convolution in single leaves twice the
    noise that soxr leaves, and ONNX Runtime has none in double. What soxr's FFT leaves where nothing sounds, 1e-7 of
    what sounds beside it, depends on where its blocks begin and is no filter's: here it is silent.
    """

    blocks: Tensor
    begin: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor, self.reach = factor, REACH * factor
        kernel, begin = _impulses(factor)
        self.step = AT_ONCE * factor
        n_steps = -(-(2 * self.reach + self.step) // self.step)
        every = np.zeros((n_steps * self.step, AT_ONCE))
        for k in range(AT_ONCE):
            every[k * factor : k * factor + 2 * self.reach, k] = kernel
        blocks = torch.from_numpy(every).unflatten(0, (n_steps, self.step))
        self.register_buffer("blocks", blocks, persistent=False)  # [parts, samples, AT_ONCE]
        self.register_buffer("begin", torch.from_numpy(begin), persistent=False)  # [samples, at the lower rate]

    def forward(self, wave: Tensor) -> Tensor:
        n_slow = (wave.shape[1] + self.factor - 1) // self.factor
        n_blocks = (n_slow + AT_ONCE - 1) // AT_ONCE
        n_padded = (n_blocks + len(self.blocks) - 1) * self.step
        padded = F.pad(wave.double(), (self.reach, n_padded - self.reach - wave.shape[1]))
        steps = padded.unflatten(1, (-1, self.step))
        parts = [steps[:, k : k + n_blocks] @ block for k, block in enumerate(self.blocks)]
        slow = torch.stack(parts).sum(0).flatten(1)[:, :n_slow]
        if self.factor == 2:
            return slow
        begin = padded[:, self.reach : self.reach + self.begin.shape[0]] @ self.begin
        slow = slow + torch.cat([begin, torch.zeros_like(slow)], 1)[:, :n_slow]
        # soxr rounds the number of samples, librosa fills it up
        made = torch.arange(n_slow) < (wave.shape[1] + self.factor // 2) // self.factor
        return slow * made


class Filters(nn.Module):
    """A sound at an octave's rate [B, T] to amplitudes [B, F, L], by the filters as they are in time."""

    kernels: Tensor

    def __init__(self, octave: Octave) -> None:
        super().__init__()
        self.n_fft = octave.n_fft
        kernels = in_time(octave.basis, octave.n_fft)
        self.register_buffer("kernels", torch.from_numpy(kernels)[:, None], persistent=False)  # [2 F, 1, N]

    def forward(self, wave: Tensor, hop_length: int) -> Tensor:
        padded = F.pad(wave.float(), (self.n_fft // 2, self.n_fft // 2))
        real, imaginary = F.conv1d(padded[:, None], self.kernels, stride=hop_length).chunk(2, 1)
        return (real.square() + imaginary.square()).sqrt()


class TracedCqt(nn.Module):
    """Waveforms [B, T] to log-amplitudes [B, F, L]."""

    gain: Tensor

    def __init__(self, spec: CqtSpec) -> None:
        super().__init__()
        self.spec = spec
        constant = constant_q(spec.sample_rate, spec.hop_length, spec.fmin_hz, spec.n_bins, spec.bins_per_octave)
        self.early = Slower(2**constant.n_early) if constant.n_early else nn.Identity()
        self.halved, self.octaves = Slower(2), constant.octaves
        filters: list[Filters] = []
        for octave, before in zip(constant.octaves, (None, *constant.octaves), strict=False):
            filters.append(filters[-1] if before and octave.basis is before.basis else Filters(octave))
        self.filters = nn.ModuleList(filters)
        self.register_buffer("gain", torch.from_numpy(constant.gain), persistent=False)  # [F, 1]

    def forward(self, wave: Tensor) -> Tensor:
        n_frames = 1 + wave.shape[1] // self.spec.hop_length
        wave, rows = self.early(wave), []
        for octave, filters in zip(self.octaves, self.filters, strict=True):
            wave = self.halved(wave) if octave.halved else wave
            rows.append(filters(wave, octave.hop_length)[..., :n_frames])
        return torch.log(torch.cat(rows[::-1], 1) * self.gain + self.spec.floor)


def in_time(basis: Any, n_fft: int) -> NDArray[np.float32]:
    """What spectra are multiplied with, [F, K], to what samples are: [2 F, N], the real parts first."""
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft / n_fft
    kernels = basis @ np.exp(-2j * np.pi * turns)
    return np.concatenate([kernels.real, kernels.imag]).astype(np.float32)


def _impulses(factor: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What soxr makes of them: amid a sound [2 R], and what is more at its begin [BEGUN * factor, REACH]."""
    reach = REACH * factor
    kernel = np.empty(2 * reach)
    for phase, row in enumerate(np.eye(factor, 4 * reach, 2 * reach, dtype=np.float32)):
        kernel[phase::factor] = slower(row, factor)[3 * REACH : REACH : -1]
    first = np.eye(BEGUN * factor, 4 * reach, dtype=np.float32)
    place = reach + np.arange(BEGUN * factor)[:, None] - factor * np.arange(REACH)
    return kernel, np.stack([slower(row, factor)[:REACH] for row in first]) - kernel[place]
