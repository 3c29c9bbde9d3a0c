"""TASKS: what is asked of a model. The kind decides head, loss and metrics; labels are fixed or the data's."""

from typing import Literal

from instrunet.config import Spec
from instrunet.data.corpora import IRMAS_CLASSES

EMOTIONS = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")


class Task(Spec):
    """`single`: one label a clip, softmax. `multi`: any number of labels, a sigmoid each."""

    kind: Literal["single", "multi"] = "single"
    labels: tuple[str, ...] = ()  # empty: those of the manifest, sorted


TASKS = {
    "any": Task(),
    "any_multi": Task(kind="multi"),
    "instruments": Task(labels=IRMAS_CLASSES),
    "instruments_multi": Task(kind="multi", labels=IRMAS_CLASSES),
    "guitar_notes": Task(labels=("dead_note", "general_note", "harmonic")),
    "emotion": Task(labels=EMOTIONS),
    "genre": Task(),
}
