"""RAVDESS: 24 actors speak and sing two sentences in eight emotions."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from instrunet.data import manifest
from instrunet.data.manifest import Clip
from instrunet.data.readers.common import sounds, with_notes
from instrunet.errors import DataError

RAVDESS_LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08
# Modality (03: sound alone), speech or song, emotion, intensity, sentence, repetition, actor.
RAVDESS_NAME = re.compile(r"03-0[12]-0(?P<emotion>[1-8])-0[12]-0[12]-0[12]-(?P<actor>0[1-9]|1\d|2[0-4])")
# The test actors of EmoBox's folds 1 to 6, as in its data/ravdess/fold_K/ravdess_test_fold_K.jsonl (speech only).
EMOBOX_FOLDS = (
    (1, 11, 20, 21),
    (4, 10, 12, 14),
    (8, 9, 19, 23),
    (3, 5, 7, 24),
    (2, 15, 16, 18),
    (6, 13, 17, 22),
)


def ravdess(root: Path, fold: int | None = None) -> pd.DataFrame:
    """Group = actor. With `fold`, EmoBox's test actors are `test`, the next fold's `val`, and the rest `train`."""
    files = sounds(root)
    if not files:
        raise DataError(f"expected RAVDESS's sound files (03-01-05-01-02-01-12.wav) under {root}, found none")
    once = {path.stem: path for path in reversed(files)}  # a copy that circulates holds every file twice
    clips = [_clip(path) for path in once.values()]
    splits = _emobox_splits({clip.group for clip in clips}, fold) if fold else {}
    clips = [Clip(clip.path, clip.labels, clip.group, splits.get(clip.group, "")) for clip in clips]
    n_copies = len(files) - len(once)
    copies = f"{n_copies} files of {root} have the name of another and are left out" if n_copies else ""
    return with_notes(manifest.make(clips, "ravdess", root), copies)


def emobox_folds(actors: Iterable[str]) -> list[tuple[str, ...]]:
    """The six folds of four actors, as groups of the manifest; none where an actor is missing."""
    folds = [tuple(f"actor-{actor:02d}" for actor in fold) for fold in EMOBOX_FOLDS]
    return folds if {group for fold in folds for group in fold} <= set(actors) else []


def _emobox_splits(actors: set[str], fold: int) -> dict[str, str]:
    folds = emobox_folds(actors)
    if not folds:
        raise DataError(f"EmoBox's folds need all 24 actors, found {len(actors)}; add the others or unset data.fold")
    parts = {group: "train" for group in actors}
    return parts | dict.fromkeys(folds[fold % 6], "val") | dict.fromkeys(folds[fold - 1], "test")


def _clip(path: Path) -> Clip:
    match = RAVDESS_NAME.fullmatch(path.stem)
    if not match:
        raise DataError(
            "expected a name like 03-01-05-01-02-01-12.wav (MM-VV-EE-II-SS-RR-AA: modality 03, channel 01-02, "
            f"emotion 01-08, intensity, statement and repetition 01-02, actor 01-24), got {path.name}"
        )
    return Clip(path, [RAVDESS_LABELS[int(match["emotion"]) - 1]], f"actor-{match['actor']}")
