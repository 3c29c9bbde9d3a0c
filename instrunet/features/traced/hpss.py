"""Harmonic and percussive log-mels in torch alone: features/hpss.py says what they are.

Shapes: B clips, T samples, F mel bands, L frames, K frequency bins, N numbers of which a median is taken.
"""

import torch
from torch import Tensor, nn
from torchaudio.transforms import Spectrogram

from instrunet.features.hpss import HpssSpec
from instrunet.features.logmel import hann
from instrunet.features.spectra import mel_bands


class TracedHpss(nn.Module):
    """Waveforms [B, T] to log-mel energies [B, 2 F, L], harmonic below percussive."""

    bands: Tensor

    def __init__(self, spec: HpssSpec) -> None:
        super().__init__()
        self.spec = spec
        bands = mel_bands(spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin_hz, spec.fmax_hz)
        self.register_buffer("bands", torch.from_numpy(bands.toarray()), persistent=False)  # [F, K]
        self.magnitude = Spectrogram(
            spec.n_fft, hop_length=spec.hop_length, power=1.0, pad_mode="constant", window_fn=hann
        )

    def forward(self, wave: Tensor) -> Tensor:
        margin, magnitude = self.spec.margin, self.magnitude(wave)  # [B, K, L]
        harmonic = median(magnitude, self.spec.harmonic_frames)
        percussive = median(magnitude.transpose(1, 2), self.spec.percussive_bins).transpose(1, 2)
        masks = self._mask(harmonic, percussive * margin), self._mask(percussive, harmonic * margin)
        energies = [self.bands @ (magnitude * mask).square() for mask in masks]
        return torch.log(torch.cat(energies, 1) + self.spec.floor)

    def _mask(self, mine: Tensor, other: Tensor) -> Tensor:
        """librosa.util.softmask: the larger of the two is 1, so that no power of a small one is lost."""
        larger = torch.maximum(mine, other)
        empty = larger < torch.finfo(larger.dtype).tiny
        larger = torch.where(empty, 1.0, larger)
        mine, other = ((part / larger) ** self.spec.power for part in (mine, other))
        return torch.where(empty, 0.5 if self.spec.margin == 1 else 0.0, mine / (mine + other))


def median(rows: Tensor, size: int) -> Tensor:
    """Of `size` neighbours along the last axis, mirrored at its ends, and again where it is shorter than that."""
    n = rows.shape[-1]
    place = torch.arange(-(size // 2), n + size // 2) % torch.full((1,), 2 * n)  # ONNX takes no plain number here
    mirrored = rows.index_select(-1, torch.minimum(place, 2 * n - 1 - place))
    windows = mirrored.unfold(-1, size, 1)  # [.., N]
    return windows.topk(size // 2 + 1).values[..., -1]
