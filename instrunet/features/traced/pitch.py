"""What of the summary depends on how a clip is tuned, in torch alone: its tuning, the chroma and the tonnetz.

Shapes: B clips, T samples, L frames, K frequency bins, W bins of a filter.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from instrunet.errors import ConfigError
from instrunet.features.spectra import constant_q
from instrunet.features.summary import C1_HZ, HOP_LENGTH, N_FFT, TINY
from instrunet.features.traced.cqt import Slower

STEPS = 100  # of a bin, of which a tuning is one: from half a bin below to half a bin above
BINS = 36  # an octave, of the tonnetz
N_OCTAVES = 7
A0_HZ = 27.5


class Tuning(nn.Module):
    """Spectra [B, K, L] to the step [B] in which most of the strong peaks are: features/summary.py's `_tuning`.

    All bins of all frames stay, those that are no peaks are masked: a graph has one shape.
    """

    def __init__(self, sample_rate: int, bins_per_octave: int) -> None:
        super().__init__()
        self.sample_rate, self.bins_per_octave = sample_rate, bins_per_octave
        hz = np.linspace(0, sample_rate / 2, N_FFT // 2 + 1)
        self.low, self.high = (int(k) for k in np.searchsorted(hz, (150, min(4000, sample_rate / 2))))

    def forward(self, spectrum: Tensor) -> Tensor:
        below, at, above = (spectrum[:, self.low + k : self.high + k] for k in (-1, 0, 1))
        peak = (at > below) & (at >= above) & (at > 0.1 * spectrum.amax(1, keepdim=True))
        curve, slope = (above + below).double() - 2 * at.double(), (above - below).double() / 2
        bent = slope.abs() < curve.abs()
        shift = torch.where(bent, -slope / torch.where(bent, curve, 1.0), 0.0).float()
        bins = torch.arange(self.low, self.high, dtype=torch.float64)[:, None]
        hz = ((bins + shift) * self.sample_rate / N_FFT).float()
        height = at + 0.5 * ((above - below) / 2) * shift
        strong = peak & (height >= _median(height, peak)[:, None, None])
        # Rounded where librosa rounds: a residual may be at the edge of a step
        octaves = torch.log2((hz / A0_HZ).double()).float() * self.bins_per_octave
        residual = octaves - octaves.floor()
        residual = torch.where(residual >= 0.5, residual - 1, residual)
        step = ((residual.double() + 0.5) * STEPS).floor().long().clamp(0, STEPS - 1)
        counts = torch.zeros(spectrum.shape[0], STEPS).scatter_add(1, step.flatten(1), strong.float().flatten(1))
        return torch.where(counts.amax(1) > 0, counts.argmax(1), STEPS // 2)


class TunedChroma(nn.Module):
    """Power [B, K, L] to pitch classes [B, 12, L]: librosa.filters.chroma, made for each clip's tuning.

    A hundred of them as a table are 5 MB.
    """

    notes: Tensor
    widths: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.tuning = Tuning(sample_rate, 12)
        notes = 12 * np.log2(np.arange(1, N_FFT) * (sample_rate / N_FFT) / A0_HZ)
        notes = np.concatenate([notes[:1] - 18, notes])  # 0 Hz is one and a half octaves below the first bin
        widths = np.maximum(np.diff(notes), 1)[: N_FFT // 2 + 1]
        self.register_buffer("notes", torch.from_numpy(notes[: len(widths)]), persistent=False)  # [K], double
        self.register_buffer("widths", torch.from_numpy(widths), persistent=False)  # [K]

    def forward(self, power: Tensor) -> Tensor:
        tuning = self.tuning(power).double() / STEPS - 0.5
        notes = (self.notes - tuning[:, None])[:, None]  # [B, 1, K]
        classes = torch.arange(12, dtype=torch.float64)[:, None]
        apart = torch.remainder(notes - classes + 126, 12.0) - 6
        near = (-0.5 * (2 * apart / self.widths).square()).exp()
        near = near / near.square().sum(1, keepdim=True).sqrt()
        filters = near * (-0.5 * ((notes / 12 - 5) / 2).square()).exp()
        return normal((filters.roll(-3, 1)).float() @ power)  # from A to C


class TracedTonnetz(nn.Module):
    """Waveforms [B, T] and their magnitudes [B, K, L] to the six coordinates [B, 6, L].

    All seven octaves have the same filters, at rates that are halved. What a filter has of a spectrum is W bins from
    its `first` on, for each tuning; put among zeros, they are one matrix a clip.
    """

    first: Tensor
    values: Tensor
    classes: Tensor
    corners: Tensor
    ones: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        import librosa

        self.tuning = Tuning(sample_rate, BINS)
        basis, self.n_early, self.n_fft = _bases(sample_rate)  # [STEPS, BINS, bins of the spectrum]
        first = (basis != 0).argmax(2)
        wide = int((basis.shape[2] - (basis != 0)[..., ::-1].argmax(2) - first).max())  # W
        self.low, self.high = int(first.min()), int(first.max()) + wide
        values = np.take_along_axis(np.pad(basis, ((0, 0), (0, 0), (0, wide))), first[..., None] + np.arange(wide), 2)
        to_classes = librosa.filters.cq_to_chroma(BINS, bins_per_octave=BINS).astype(np.float32)
        corners = librosa.feature.tonnetz(chroma=np.eye(12, dtype=np.float32)).astype(np.float32)
        self.early = Slower(2**self.n_early) if self.n_early else nn.Identity()
        self.halved = Slower(2)
        self.register_buffer("first", torch.from_numpy(first - self.low).int(), persistent=False)  # [STEPS, BINS]
        both = np.stack([values.real, values.imag], 1).astype(np.float32)
        self.register_buffer("values", torch.from_numpy(both), persistent=False)  # [STEPS, 2, BINS, W]
        self.register_buffer("classes", torch.from_numpy(to_classes), persistent=False)  # [12, BINS]
        self.register_buffer("corners", torch.from_numpy(corners), persistent=False)  # [6, 12]
        self.register_buffer("ones", torch.ones(self.n_fft), persistent=False)

    def forward(self, wave: Tensor, magnitude: Tensor, quiet: float) -> Tensor:
        """Frames of which less than the share `quiet` of the loudest is left count as silent."""
        n_frames, tuning = magnitude.shape[2], self.tuning(magnitude)
        values = self.values[tuning]  # [B, 2, BINS, W]
        place = (self.first[tuning].long()[..., None] + torch.arange(values.shape[3])).unsqueeze(1).expand_as(values)
        empty = torch.zeros(wave.shape[0], 2, BINS, self.high - self.low)
        real, imaginary = empty.scatter(3, place, values).unbind(1)
        wave = self.early(wave)
        amplitudes = self._octave(wave, 0, real, imaginary)[..., :n_frames]
        for octave in range(1, N_OCTAVES):
            wave = self.halved(wave)
            amplitudes = amplitudes + self._octave(wave, octave, real, imaginary)[..., :n_frames]
        loud = amplitudes.sum(1, keepdim=True)
        chroma = normal(self.classes @ (amplitudes * (loud >= quiet * loud.amax(2, keepdim=True))))
        whole = chroma.sum(1, keepdim=True)
        return self.corners @ (chroma / torch.where(whole < TINY, 1.0, whole))

    def _octave(self, wave: Tensor, octave: int, real: Tensor, imaginary: Tensor) -> Tensor:
        padded = F.pad(wave.float(), (self.n_fft // 2, self.n_fft // 2))
        hop_length = HOP_LENGTH >> (self.n_early + octave)
        found = torch.stft(padded, self.n_fft, hop_length, window=self.ones, center=False, return_complex=True)
        spectrum = torch.view_as_real(found)[:, self.low : self.high]
        re, im = spectrum[..., 0], spectrum[..., 1]
        return ((real @ re - imaginary @ im).square() + (real @ im + imaginary @ re).square()).sqrt()


def normal(chroma: Tensor) -> Tensor:
    """Each frame's largest class is 1, but for frames without sound: librosa.util.normalize."""
    largest = chroma.amax(1, keepdim=True)
    return chroma / torch.where(largest < TINY, 1.0, largest)


def _median(values: Tensor, counted: Tensor) -> Tensor:
    """Of those of each clip that count, [B, ..] to [B]."""
    ordered = torch.where(counted, values, -torch.inf).flatten(1).sort(1, descending=True).values
    n = counted.flatten(1).sum(1, keepdim=True)
    middle = torch.cat([(n - 1).clamp(min=0) // 2, n // 2], 1)
    return ordered.gather(1, middle).sum(1) / 2


def _bases(sample_rate: int) -> tuple[NDArray[np.complex64], int, int]:
    """The filters of an octave for each tuning, gain and all; how often the sound is halved before; and their FFT."""
    fmins_hz = [C1_HZ * 2.0 ** ((step / STEPS - 0.5) / BINS) for step in range(STEPS)]
    tuned = [constant_q(sample_rate, HOP_LENGTH, hz, N_OCTAVES * BINS, BINS) for hz in fmins_hz]
    kinds = {(one.n_early, one.octaves[0].n_fft) for one in tuned}
    if len(kinds) > 1:
        raise ConfigError(
            f"summary at {sample_rate} Hz has no form in ONNX: its filters differ in length by the tuning of a clip; "
            "take another sample_rate"
        )
    return np.stack([one.octaves[0].basis.toarray() * one.gain[:BINS] for one in tuned]), *kinds.pop()
