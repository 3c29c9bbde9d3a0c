"""Log-mel on one core against librosa, on the same clips in one run.

The last line is JSON: how many times librosa's rate, at hop 512 and 128, and the largest difference in dB.
Seconds are those of the processor, so that what else runs on the machine counts as little as can be.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

import librosa
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from instrunet.data.synth import SynthSpec, render_clip
from instrunet.features.logmel import LogMel, LogMelSpec

RATE = 22_050
N_CLIPS, ROUNDS = 40, 15


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    threadpool_limits(1)  # librosa's matrix product spins with two threads on one core, up to ten times as slow
    clips = _clips()
    found: dict[str, float] = {}
    worst_db = 0.0
    for hop in (512, 128):
        ours, theirs = _ours(hop), _librosa(hop)
        worst_db = max(worst_db, *(float(np.abs(ours(c) - theirs(c)).max() * 10 / np.log(10)) for c in clips))
        ratios = _ratios(ours, theirs, clips)
        found[f"logmel{hop}_vs_librosa"] = round(statistics.median(ratios), 2)
        print(f"hop {hop}: {min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds of {N_CLIPS} clips of 3 s, in turn")
    print(json.dumps(found | {"logmel_max_db": round(worst_db, 5)}))


def _clips() -> list[np.ndarray]:
    spec = SynthSpec(sample_rate=RATE)
    names = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
    stereo = [render_clip(spec, names[k % 11], 1 + k // 11, 1) for k in range(N_CLIPS)]
    return [np.ascontiguousarray(clip.mean(0), dtype=np.float32) for clip in stereo]


def _ours(hop: int) -> Callable[[np.ndarray], np.ndarray]:
    return LogMel(LogMelSpec(sample_rate=RATE, hop_length=hop)).fast


def _librosa(hop: int) -> Callable[[np.ndarray], np.ndarray]:
    def logmel(wave: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=wave, sr=RATE, n_fft=2048, hop_length=hop, n_mels=128, fmin=30.0, fmax=RATE / 2, pad_mode="constant"
        )
        return np.log(mel + 1e-5)

    return logmel


def _ratios(
    ours: Callable[[np.ndarray], np.ndarray], theirs: Callable[[np.ndarray], np.ndarray], clips: list[np.ndarray]
) -> list[float]:
    """In turn, round by round, so that a machine that slows down slows both."""
    _seconds(ours, clips[:5]), _seconds(theirs, clips[:5])
    return [_seconds(theirs, clips) / _seconds(ours, clips) for _ in range(ROUNDS)]


def _seconds(work: Callable[[np.ndarray], np.ndarray], clips: list[np.ndarray]) -> float:
    began = time.process_time()
    for clip in clips:
        work(clip)
    return time.process_time() - began


if __name__ == "__main__":
    main()
