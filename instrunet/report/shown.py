"""The clips that a report shows: which they are, what the network heard of them and went by, and how they sound.

Shapes: N windows, F bands, L frames, K labels.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray

from instrunet import explain
from instrunet.audio.io import DecodeError, Sound
from instrunet.bundle import Bundle
from instrunet.features import FRAME_FEATURES
from instrunet.features.logmel import LogMelSpec, edges_hz
from instrunet.features.shards import Features
from instrunet.report.evaluation import ClipResult, Shown, Why

MISTAKES, UNSURE = 12, 6
LOUDEST = 3  # windows of a clip that are told, where it has several
POINTS, HEARD = 400, 64  # windows of the map, and of the search for bands that are needed
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

Read = Callable[[str, int, float, float], Sound]  # of a clip: its id, a rate, from and to which second of the clip


def why(bundle: Bundle, held: Features, clips: Sequence[ClipResult], read: Read, seed: int = 0) -> Why:
    """Of all windows of the evaluated clips."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(held))
    points = held.take(np.sort(some[:POINTS]))
    heard = held.take(np.sort(some[:HEARD]))
    truth = np.array([[label in names for label in bundle.spec.labels] for names in heard.clips["labels"]])
    strips = explain.needed_bands(bundle, heard, truth) if truth.any() else []
    by_id = {clip.clip_id: clip for clip in clips}
    of_points = [by_id[name] for name in points.clips["clip_id"]]
    return Why(
        shown=_shown(bundle, held, chosen(clips, bundle.spec.labels), read),
        strips=[(_range(bundle, strip), strip.fall) for strip in strips],
        maps=explain.arranged(bundle, points, seed),
        point_labels=[clip.true[0] if clip.true else "" for clip in of_points],
        point_wrong=[clip.wrong for clip in of_points],
    )


def chosen(clips: Sequence[ClipResult], labels: Sequence[str]) -> list[ClipResult]:
    """The surest mistakes, then what is right by the narrowest margin."""
    wrong = sorted((clip for clip in clips if clip.wrong), key=lambda clip: -clip.score)
    right = sorted((clip for clip in clips if clip.answered and not clip.wrong), key=lambda clip: margin(clip, labels))
    return [*wrong[:MISTAKES], *right[:UNSURE]]


def margin(clip: ClipResult, labels: Sequence[str]) -> float:
    """How far the least score of what was answered lies above the best of what was not."""
    scores = dict(zip(labels, clip.scores, strict=True))
    answered = min((scores[label] for label in clip.predicted), default=1.0)
    return answered - max((score for label, score in scores.items() if label not in clip.predicted), default=0.0)


def mp3(sound: Sound, rate: int) -> bytes:
    """What every browser plays."""
    target = io.BytesIO()
    sf.write(target, np.clip(sound.wave, -1, 1), rate, format="MP3")
    return target.getvalue()


def _shown(bundle: Bundle, held: Features, clips: Sequence[ClipResult], read: Read) -> list[Shown]:
    """The window of each that speaks loudest for what was answered."""
    windows = held.only({clip.clip_id for clip in clips})
    if not len(windows):
        return []
    labels = bundle.spec.labels
    scores = bundle.predict({n: torch.from_numpy(v) for n, v in windows.values.items()}, frames=windows.frames)
    rows, said, told = [], [], []
    for clip in clips:
        answer = labels.index(clip.predicted[0]) if clip.predicted else int(np.argmax(clip.scores))
        own = np.flatnonzero([name == clip.clip_id for name in windows.clips["clip_id"]])
        own = own[np.argsort(-scores[own, answer], kind="stable")]
        rows.append(int(own[0]))
        said.append(answer)
        told.append([(float(windows.clips["start_s"][row]), float(scores[row, answer])) for row in own[:LOUDEST]])
    best = windows.take(np.array(rows))
    went_by = explain.looked_at(bundle, best, np.array(said))
    pictures = _pictures(bundle, best)
    found = []
    for k, clip in enumerate(clips):
        start_s = float(best.clips["start_s"][k])
        n_bands = len(pictures[k]) if pictures else 0
        found.append(
            Shown(
                clip=clip,
                start_s=start_s,
                loudest=told[k],
                heard=pictures[k] if pictures else None,
                went_by=went_by[k][:n_bands] if went_by else None,
                audio=_audio(bundle, read, clip.clip_id, start_s),
            )
        )
    return found


def _pictures(bundle: Bundle, windows: Features) -> list[NDArray[np.float32]]:
    """Of the first feature that is a picture, which stands at the bottom of what the network sees."""
    name = bundle.network.names[0]
    if name not in FRAME_FEATURES:
        return []
    values = windows.values[name]
    own = [values.shape[2]] * len(values) if windows.frames is None else windows.frames.tolist()
    return [value[:, :n].astype(np.float32) for value, n in zip(values, own, strict=True)]


def _audio(bundle: Bundle, read: Read, clip_id: str, start_s: float) -> bytes:
    """None where the recording is not there any more: a report is made of features."""
    own = bundle.spec.front.sample_rate
    rate = own if own in MP3_RATES else 22_050
    try:
        sound = read(clip_id, rate, start_s, start_s + bundle.spec.front.window_s)
    except DecodeError:
        return b""
    return mp3(sound, rate) if len(sound.wave) else b""


def _range(bundle: Bundle, strip: explain.Strip) -> str:
    """Bands as hertz where they are: from where the first is heard best to where the last is."""
    spec = next(one for one in bundle.spec.front.features if one.name == strip.feature)
    if isinstance(spec, LogMelSpec):
        low, high = edges_hz(spec)[[strip.first + 1, strip.stop]]
        return f"{low:,.0f} Hz" if strip.first + 1 == strip.stop else f"{low:,.0f} to {high:,.0f} Hz"
    return f"{strip.feature} {strip.first + 1} to {strip.stop}"
