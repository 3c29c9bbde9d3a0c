"""Small things that several tests need: tones, a features folder made of them, and the bundle they may become."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
from numpy.typing import NDArray

from instrunet.bundle_spec import BundleSpec
from instrunet.data import parts
from instrunet.features import shards
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.models import ModelSpec
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Task8Spec

RATE = 8000
TONES_HZ = {"low": 300.0, "middle": 900.0, "top": 2500.0}
LABELS = tuple(TONES_HZ)
# 16 bands x 16 frames of half a second: an epoch of 24 clips takes 0.02 s
FRONT = FrontEnd(
    features=(LogMelSpec(sample_rate=RATE, n_fft=512, hop_length=256, n_mels=16, fmax_hz=4000.0),),
    window_s=0.5,
    hop_s=0.5,
)
SMALL = Task8Spec(picture=PictureSpec(size=None, colour=False))


def tone(hz: float, seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """[T]: a sine in noise 20 dB below it."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (hz * t + rng.random())) + 0.035 * rng.standard_normal(len(t))
    return wave.astype(np.float32)


def chord(labels: Iterable[str], seconds: float, seed: int) -> NDArray[np.float32]:
    return np.sum([tone(TONES_HZ[label], seconds, seed) for label in labels], axis=0) / 2


def clip(path: Path, labels: list[str], split: str, **other: Any) -> dict[str, Any]:
    """A row of a manifest, as far as features need it."""
    row = {"clip_id": path.stem, "uri": str(path), "start_s": 0.0, "stop_s": None, "labels": labels}
    return row | {"group": path.stem, "split": split, "corpus": "tones"} | other


def tone_clips(folder: Path, n_train: int, n_val: int, labels: list[list[str]], seconds: float) -> list[dict[str, Any]]:
    """Sound files under `folder`; the label sets take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for k in range(n_train + n_val):
        path = folder / f"clip{k:03d}.wav"
        sf.write(path, chord(labels[k % len(labels)], seconds, seed=k), RATE, subtype="FLOAT")
        clips.append(clip(path, labels[k % len(labels)], "train" if k < n_train else "val"))
    return clips


def tones_corpus(folder: Path, n: int) -> Path:
    """A folder with metadata.csv, of n half-second tones: a group holds two of a label."""
    folder.mkdir(parents=True)
    rows = ["path,label,group"]
    for k in range(n):
        label = LABELS[k % len(LABELS)]
        sf.write(folder / f"{k}.wav", chord([label], 0.5, k), RATE, subtype="FLOAT")
        rows.append(f"{k}.wav,{label},{label}{k // 6}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def features_folder(folder: Path, clips: list[dict[str, Any]], front: FrontEnd = FRONT, per_part: int = 10) -> Path:
    featurizer = Featurizer(front)
    for number, at in enumerate(range(0, len(clips), per_part)):
        table = shards.make_part(clips[at : at + per_part], featurizer)
        parts.publish(parts.part_path(folder, shards.KIND, number), lambda aside, t=table: pq.write_table(t, aside))
    return folder


def tones_folder(
    folder: Path, n_train: int = 24, n_val: int = 9, labels: list[list[str]] | None = None, seconds: float = 0.5
) -> Path:
    """A features folder of generated tones, one label a clip if nothing else is asked for."""
    one_each = [[label] for label in LABELS]
    return features_folder(folder, tone_clips(folder / "sound", n_train, n_val, labels or one_each, seconds))


def draft(
    folder: Path | None = None,
    kind: str = "single",
    model: ModelSpec = SMALL,
    front: FrontEnd = FRONT,
    labels: tuple[str, ...] = LABELS,
) -> BundleSpec:
    """A bundle without weights, with the statistics of `folder` or made-up ones."""
    if folder:
        statistics = shards.statistics_of(folder, len(list((folder / shards.KIND).iterdir())))
    else:
        statistics = Statistics(mean={"logmel": (-4.0,)}, std={"logmel": (3.0,)}, n_windows=1)
    return BundleSpec(kind=kind, labels=labels, front=front, model=model, statistics=statistics)
