"""Decoding, log-mel and the 392 numbers on one core against soundfile, soxr and librosa: same clips, one run, in turn.

The last line is JSON: how many times the rival's rate, and the largest differences. Seconds are those of the
processor, so that what else runs on the machine counts as little as can be.
"""

import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile as sf
import soxr
import torch
from threadpoolctl import threadpool_limits

from instrunet.audio import io
from instrunet.data.synth import SynthSpec, render_clip
from instrunet.features.logmel import LogMel, LogMelSpec
from instrunet.features.spectra import chroma_filters, constant_q
from instrunet.features.summary import Summary, SummarySpec

RATE, SOURCE_RATE = 22_050, 44_100
N_CLIPS = 40
NAMES = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
Work = Callable[[Any], Any]


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    threadpool_limits(1)  # librosa's matrix product spins with two threads on one core, up to ten times as slow
    warnings.simplefilter("ignore")  # librosa's, of clips without a tuning
    clips = [np.ascontiguousarray(clip.mean(0), dtype=np.float32) for clip in _stereo(RATE)]
    print(json.dumps(_logmel(clips) | _summary(clips[:22]) | _decode()))


def _logmel(clips: list[np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {}
    worst_db = 0.0
    for hop in (512, 128):
        ours, theirs = LogMel(LogMelSpec(sample_rate=RATE, hop_length=hop)).fast, _librosa_logmel(hop)
        worst_db = max(worst_db, *(float(np.abs(ours(c) - theirs(c)).max() * 10 / np.log(10)) for c in clips))
        found[f"logmel{hop}_vs_librosa"] = _times(f"log-mel, hop {hop}", ours, theirs, clips, 15)
    return found | {"logmel_max_db": round(worst_db, 5)}


def _summary(clips: list[np.ndarray]) -> dict[str, float]:
    ours = Summary(SummarySpec(sample_rate=RATE)).fast
    worst = max(_relative(ours(clip)[:, 0], _librosa_summary(clip)) for clip in clips)
    for kept in (constant_q, chroma_filters):
        kept.cache_clear()
    _times("392 numbers, the filters of each tuning made first", ours, _librosa_summary, clips, 1)
    times = _times("392 numbers", ours, _librosa_summary, clips, 7)
    return {"summary_vs_librosa": times, "summary_max_rel": float(f"{worst:.2g}")}


def _decode() -> dict[str, float]:
    """Stereo FLAC of 16 bits at 44.1 kHz to mono at 22.05 kHz; ours counts, checks, flags and sums as it goes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [_flac(Path(folder) / f"{k}.flac", clip.T) for k, clip in enumerate(_stereo(SOURCE_RATE))]
        unchecked = [_without_checksum(path) for path in paths]
        worst = max(float(np.abs(_ours(path) - _soundfile(path)).max()) for path in paths)
        assert worst < 1e-6, worst
        times = _times("decode, mix, resample", _ours, _soundfile, paths, 15)
        bare = _times("the same, of files without a checksum", _ours, _soundfile, unchecked, 15)
        _times("the same, if the rival mixed as we do", _ours, _soundfile_mixed_fast, paths, 15)
    return {"decode_vs_soundfile": times, "decode_unchecked_vs_soundfile": bare}


def _times(name: str, ours: Work, theirs: Work, inputs: Sequence[Any], rounds: int) -> float:
    """The median, in turn, round by round, so that a machine that slows down slows both."""
    if rounds > 1:
        _seconds(ours, inputs[:5]), _seconds(theirs, inputs[:5])
    ratios = [_seconds(theirs, inputs) / _seconds(ours, inputs) for _ in range(rounds)]
    median = statistics.median(ratios)
    print(f"{name}: {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {rounds} x {len(inputs)} clips of 3 s)")
    return round(median, 2)


def _seconds(work: Work, inputs: Sequence[Any]) -> float:
    began = time.process_time()
    for one in inputs:
        work(one)
    return time.process_time() - began


def _stereo(rate: int) -> list[np.ndarray]:
    """Clips [2, T]."""
    spec = SynthSpec(sample_rate=rate)
    return [render_clip(spec, NAMES[k % 11], 1 + k // 11, 1) for k in range(N_CLIPS)]


def _librosa_logmel(hop: int) -> Work:
    def logmel(wave: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=wave, sr=RATE, n_fft=2048, hop_length=hop, n_mels=128, fmin=30.0, fmax=RATE / 2, pad_mode="constant"
        )
        return np.log(mel + 1e-5)

    return logmel


def _librosa_summary(wave: np.ndarray) -> np.ndarray:
    feature = librosa.feature
    rows = [
        feature.mfcc(y=wave, sr=RATE, n_mfcc=40),
        feature.chroma_stft(y=wave, sr=RATE),
        feature.melspectrogram(y=wave, sr=RATE),
        feature.spectral_contrast(y=wave, sr=RATE),
        feature.tonnetz(y=wave, sr=RATE),
        feature.zero_crossing_rate(wave),
        feature.spectral_centroid(y=wave, sr=RATE),
        feature.spectral_rolloff(y=wave, sr=RATE),
    ]
    return np.concatenate([statistic(row, axis=1) for row in rows for statistic in (np.mean, np.std)])


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-9)).max())


def _ours(path: Path) -> np.ndarray:
    return io.read(path, RATE).wave


def _soundfile(path: Path) -> np.ndarray:
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE)


def _soundfile_mixed_fast(path: Path) -> np.ndarray:
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples @ np.float32([0.5, 0.5]), rate, RATE)


def _flac(path: Path, samples: np.ndarray) -> Path:
    sf.write(path, samples, SOURCE_RATE)
    return path


def _without_checksum(path: Path) -> Path:
    """A copy whose encoder left the MD5 of STREAMINFO empty, as some do."""
    content = bytearray(path.read_bytes())
    content[26:42] = bytes(16)
    copy = path.with_suffix(".unchecked.flac")
    copy.write_bytes(content)
    return copy


if __name__ == "__main__":
    main()
