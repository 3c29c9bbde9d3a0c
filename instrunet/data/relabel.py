"""Labels of other data in the words of a model: renamed or left out, as asked, and never by guessing."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from instrunet.data.manifest import labels_of
from instrunet.errors import ConfigError, DataError


@dataclass(frozen=True)
class Relabel:
    """`names` are other names of labels, `ignored` those that are taken off a clip."""

    names: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, maps: Sequence[str], ignored: Sequence[str]) -> "Relabel":
        """From the texts `old=new` and the labels to leave out."""
        pairs = [text.partition("=") for text in maps]
        for text, (old, _, new) in zip(maps, pairs, strict=True):
            if not old or not new:
                raise ConfigError(f"expected --map OLD=NEW, got {text!r}")
        names = {old: new for old, _, new in pairs}
        if len(names) < len(pairs):
            raise ConfigError(f"expected each label once in --map, got {', '.join(maps)}; keep one of a name")
        both = sorted(set(names) & set(ignored))
        if both:
            raise ConfigError(f"{both[0]!r} stands in --map and in --ignore; choose one")
        return cls(names, frozenset(ignored))

    def __call__(self, labels: Sequence[str]) -> list[str]:
        return sorted({self.names.get(label, label) for label in labels if label not in self.ignored})

    def of(self, frame: pd.DataFrame, known: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
        """A manifest in the words of the model, and what a user should read. What is left unknown is refused."""
        there = labels_of(frame)
        self._check(there, known)
        unknown = sorted({label for label in there if self.names.get(label, label) not in known} - self.ignored)
        if unknown:
            n = int(frame["labels"].map(lambda labels: bool(set(labels) & set(unknown))).sum())
            raise DataError(
                f"the data has labels the bundle does not know: {', '.join(unknown)} ({n} of {len(frame)} clips); it "
                f"knows {', '.join(known)}; say what they are with --map {unknown[0]}=KNOWN, or leave them out with "
                f"--ignore {unknown[0]}"
            )
        told = frame.assign(labels=frame["labels"].map(self))
        had = frame["labels"].map(len) > 0
        lost = had & (told["labels"].map(len) == 0)
        if lost.all() and len(frame):
            raise DataError(f"--ignore {' '.join(sorted(self.ignored))} leaves none of {len(frame)} clips; ignore less")
        notes = [f"{int(lost.sum())} of {len(frame)} clips had no label but ignored ones and are left out"]
        return told[~lost], notes if lost.any() else []

    def _check(self, there: Sequence[str], known: Collection[str]) -> None:
        for option, names in (("--map", self.names), ("--ignore", self.ignored)):
            for name in sorted(set(names) - set(there)):
                raise DataError(f"{option} names {name!r}, which no clip has; {_near(name, there)}")
        for name in sorted(set(self.names.values()) - set(known)):
            raise DataError(f"--map leads to {name!r}, which the bundle does not know; {_near(name, known)}")


def _near(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
