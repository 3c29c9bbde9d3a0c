"""Which parameters made these spectrograms? A search over log-mel settings, given the features and their sound.

First every geometry (rate, FFT, hop, mel bands) that fits the shape is ranked on some frames by how straight a line
leads from it to the features; then the best are tried with every logarithm, floor, level and scaling on all frames.
Frames that reach over an end of the sound are left out, so that it does not matter how it was padded.

Shapes: T samples, F mel bands, L frames, K frequency bins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from instrunet.audio import io
from instrunet.errors import DataError

Array = NDArray[np.float64]

RATES = (8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
N_FFTS = (256, 400, 512, 800, 1024, 1200, 2048, 4096)
HOPS = (64, 80, 100, 110, 128, 160, 200, 220, 221, 240, 256, 320, 400, 441, 480, 512, 640, 800, 882, 1024, 2048)
FMINS = (0.0, 20.0, 27.5, 30.0, 40.0, 50.0, 64.0, 80.0, 125.0)
FMAXS = (4000.0, 7600.0, 8000.0, 10_000.0, 11_025.0, 14_000.0, 16_000.0)  # and half the rate
FLOORS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10)
FIRST_FRAMES, KEPT = 40, 12
EXACT = 1e-5  # an error below it is rounding: the plainer settings go first


@dataclass(frozen=True)
class Match:
    """One answer; `error` is the deviation from the features over their own, 0 where they are the same."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    fmin_hz: float
    fmax_hz: float
    mel_scale: str  # slaney or htk
    norm: str  # slaney (triangles of equal area) or none
    power: int  # 2: energies, 1: magnitudes
    level: str = "none"  # or peak: the sound was brought to full scale first
    log: str = ""
    scaled: str = "no"  # or how the numbers were scaled afterwards
    error: float = 1.0


def match(features: Path, audio: Path, n_best: int = 5) -> list[Match]:
    """The best settings, best first."""
    values = read_features(features)
    waves: dict[int, Array] = {}
    geometries = list(_geometries(values.shape, audio, waves))
    if not geometries:
        raise DataError(
            f"expected frames of a usual hop length ({HOPS[0]} to {HOPS[-1]}) over the whole of {audio}; "
            f"{features} has the shape {values.shape}, taken as (bands, frames): transpose it, or give its own sound"
        )
    ranked = sorted((m for g in geometries for m in _banks(g, values, waves[g.sample_rate])), key=lambda m: m.error)
    found = [m for g in ranked[:KEPT] for m in _finished(g, values, waves[g.sample_rate])]
    native = io.probe(audio).sample_rate
    best: dict[Match, Match] = {}  # of each geometry and kind of log the best, so that five answers are five
    for m in sorted(found, key=lambda m: _rank(m, native)):
        best.setdefault(replace(m, error=0.0, scaled="", level="", log=m.log.split(",")[0]), m)
    return list(best.values())[:n_best]


def _rank(m: Match, native: int) -> tuple[float, bool, bool, bool, float]:
    return m.error if m.error > EXACT else 0.0, m.scaled != "no", m.level != "none", m.sample_rate != native, m.error


def read_features(path: Path) -> Array:
    """[F, L] of a .npy file; axes of length one are left out. Nothing in it is ever unpickled."""
    try:
        values = np.squeeze(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"expected an array of numbers (.npy) at {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"expected one spectrogram (bands, frames) in {path}, got shape {np.shape(values)}")
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise DataError(f"expected finite values that differ in {path}; it holds NaN, infinity or one value alone")
    return values.astype(np.float64)


def _geometries(shape: tuple[int, int], audio: Path, waves: dict[int, Array]) -> Iterator[Match]:
    """Rates, hops and FFTs by which this sound has this many frames; `waves` is filled with what they need."""
    n_mels, n_frames = shape
    native = io.probe(audio)
    for rate in sorted({*RATES, native.sample_rate}):
        n_samples = round(native.duration_s * rate)
        if not any(abs(1 + n_samples // hop - n_frames) <= 1 for hop in HOPS):
            continue
        waves[rate] = io.read(audio, rate).wave.astype(np.float64)
        for hop in HOPS:
            if 1 + len(waves[rate]) // hop == n_frames:
                for n_fft in (n for n in N_FFTS if n >= hop and n // 2 + 1 > n_mels):
                    yield Match(rate, n_fft, hop, n_mels, 0.0, rate / 2, "slaney", "slaney", 2)


def _banks(g: Match, values: Array, wave: Array) -> Iterator[Match]:
    """All mel banks on a geometry, each with the error of a straight line on some of the frames."""
    inside = _inside(g, values.shape[1], len(wave))
    index = inside[np.linspace(0, len(inside) - 1, min(FIRST_FRAMES, len(inside))).astype(int)]
    magnitude = _magnitudes(wave, g, index)
    some = values[:, index]
    high = some > some.min() + 0.25 * np.ptp(some)  # below, a floor may have bent the line
    for scale in ("slaney", "htk"):
        for fmin in FMINS:
            for fmax in {g.sample_rate / 2, *(f for f in FMAXS if f < g.sample_rate / 2)}:
                bank = replace(g, fmin_hz=fmin, fmax_hz=fmax, mel_scale=scale, norm="none")
                weights, area = _weights(bank)
                for power in (1, 2):
                    plain = weights @ magnitude**power
                    for norm, mel in (("none", plain), ("slaney", plain * area[:, None])):
                        error = min(_bent(np.log(mel + 1e-30)[high], some[high]), _bent(mel.ravel(), some.ravel()))
                        yield replace(bank, norm=norm, power=power, error=error)


def _finished(g: Match, values: Array, wave: Array) -> Iterator[Match]:
    """A mel bank with every logarithm and level, as it is or scaled to the features' numbers."""
    index = _inside(g, values.shape[1], len(wave))
    weights, area = _weights(g)
    mel = weights @ _magnitudes(wave, g, np.arange(values.shape[1])) ** g.power
    mel = mel * area[:, None] if g.norm == "slaney" else mel
    wanted = values[:, index]
    spread = wanted.std()
    if not spread:
        return
    for level, gain in (("none", 1.0), ("peak", 1 / max(float(np.abs(wave).max()), 1e-6))):
        for log, made in _logs(mel * gain**g.power, g.power):
            ours = made[:, index]
            error = float(np.sqrt(np.mean((ours - wanted) ** 2)) / spread)
            yield replace(g, level=level, log=log, error=error)
            a, b = np.polyfit(ours.ravel(), wanted.ravel(), 1) if ours.std() else (0.0, 0.0)
            fitted = float(np.sqrt(np.mean((a * ours + b - wanted) ** 2)) / spread)
            if error > EXACT and fitted < 0.5 * error:
                yield replace(g, level=level, log=log, error=fitted, scaled=_scaled(values, a, b))


def _logs(mel: Array, power: int) -> Iterator[tuple[str, Array]]:
    """What people make of mel energies or magnitudes."""
    yield "none", mel
    yield "ln(1 + x)", np.log1p(mel)
    for floor in FLOORS:
        yield f"ln, x + {floor:g}", np.log(mel + floor)
        yield f"ln, at least {floor:g}", np.log(np.maximum(mel, floor))
        yield f"log10, x + {floor:g}", np.log10(mel + floor)
        yield f"log10, at least {floor:g}", np.log10(np.maximum(mel, floor))
    # librosa.power_to_db and amplitude_to_db: amin 1e-10 in power
    db = 10 * np.log10(np.maximum(mel ** (2 / power), 1e-10))
    yield "dB, ref 1", db
    yield "dB, ref 1, top 80", np.maximum(db, db.max() - 80)
    yield "dB, ref max", db - db.max()
    yield "dB, ref max, top 80", np.maximum(db - db.max(), -80)


def _scaled(values: Array, a: float, b: float) -> str:
    if np.isclose(values.min(), 0) and np.isclose(values.max(), 1):
        return "to 0..1"
    if abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-2:
        return "to mean 0, deviation 1"
    return f"{a:.4g} x {b:+.4g}"


def _inside(g: Match, n_frames: int, n_samples: int) -> NDArray[np.int64]:
    """Frames whose window lies in the sound; all of them where none does."""
    centres = np.arange(n_frames) * g.hop_length
    inside = np.flatnonzero((centres >= g.n_fft // 2) & (centres + g.n_fft // 2 <= n_samples))
    return inside if len(inside) > 1 else np.arange(n_frames)


def _magnitudes(wave: Array, g: Match, index: NDArray[np.int64]) -> Array:
    """[K, l]: the STFT at some frames, centred, with a periodic Hann window."""
    padded = np.pad(wave, (g.n_fft // 2, g.n_fft))
    frames = padded[index[:, None] * g.hop_length + np.arange(g.n_fft)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(g.n_fft) / g.n_fft)
    magnitude: Array = np.abs(np.fft.rfft(frames * hann)).T
    return magnitude


def _weights(g: Match) -> tuple[scipy.sparse.csr_matrix, Array]:
    """Triangles [F, K] of height one, and what brings each to Slaney's equal area [F]."""
    low, high = (_mel(hz, g.mel_scale) for hz in (g.fmin_hz, g.fmax_hz))
    edges = _hz(np.linspace(low, high, g.n_mels + 2), g.mel_scale)
    bins = np.arange(g.n_fft // 2 + 1) * (g.sample_rate / g.n_fft)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    return scipy.sparse.csr_matrix(bands), 2 / (edges[2:] - edges[:-2])


def _mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return float(2595 * np.log10(1 + hz / 700))
    return float(hz * 0.015 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4))


def _hz(mel: Array, scale: str) -> Array:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    return np.where(mel < 15, mel / 0.015, 1000 * 6.4 ** ((mel - 15) / 27))


def _bent(x: Array, y: Array) -> float:
    """The part of y that no straight line from x explains, 0 to 1."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(x @ x) * float(y @ y)
    return 1 - float(x @ y) ** 2 / scale if scale else 1.0
