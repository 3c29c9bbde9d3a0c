"""The emotion seed's 392 numbers on one core against librosa called one by one, on the same clips in one run.

The last line is JSON: how many times librosa's rate, and the largest relative difference of a number.
"""

import json
import os
import statistics
import time
import warnings
from collections.abc import Callable

import librosa
import numpy as np
import torch

from instrunet.data.synth import SynthSpec, render_clip
from instrunet.features.spectra import chroma_filters, constant_q
from instrunet.features.summary import Summary, SummarySpec

RATE = 22_050
N_CLIPS, ROUNDS = 22, 7


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # librosa's, of clips without a tuning
    clips = _clips()
    ours = Summary(SummarySpec(sample_rate=RATE)).fast
    worst = max(_relative(ours(clip)[:, 0], _librosa(clip)) for clip in clips)
    for kept in (constant_q, chroma_filters):
        kept.cache_clear()
    cold = _seconds(_librosa, clips) / _seconds(ours, clips)
    ratios = [_seconds(_librosa, clips) / _seconds(ours, clips) for _ in range(ROUNDS)]
    print(f"392 numbers: {min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds of {N_CLIPS} clips of 3 s, in turn;")
    print(f"{cold:.2f} in a first round, which makes the filters of each new tuning")
    found = {"summary_vs_librosa": round(statistics.median(ratios), 2), "summary_max_rel": float(f"{worst:.2g}")}
    print(json.dumps(found))


def _clips() -> list[np.ndarray]:
    spec = SynthSpec(sample_rate=RATE)
    names = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
    stereo = [render_clip(spec, names[k % 11], 1 + k // 11, 1) for k in range(N_CLIPS)]
    return [np.ascontiguousarray(clip.mean(0), dtype=np.float32) for clip in stereo]


def _librosa(wave: np.ndarray) -> np.ndarray:
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


def _seconds(work: Callable[[np.ndarray], np.ndarray], clips: list[np.ndarray]) -> float:
    began = time.perf_counter()
    for clip in clips:
        work(clip)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
