"""Train, validation and test by group, never by clip: what shares a recording, speaker or player stays together.

scikit-learn's StratifiedGroupKFold makes folds of one size and may leave a rare class out of training; this one takes
any shares and first gives every class a group in training, then in test, then in validation.
"""

from collections import Counter
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from instrunet.config import Spec
from instrunet.errors import DataError

PARTS = ("train", "test", "val")  # in the order in which a rare class gets its groups


class SplitSpec(Spec):
    val: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test must leave something to train on; got {self.val:g} + {self.test:g}")
        return self


def assign(frame: pd.DataFrame, spec: SplitSpec) -> tuple[pd.DataFrame, list[str]]:
    """Fill the empty `split` fields; splits that the corpus states are kept. Returns the notes a user should read."""
    check_no_group_on_both_sides(frame)
    open_rows = frame[frame["split"] == ""]
    if open_rows.empty:
        return frame, []
    notes = _check_classes(open_rows)
    chosen = _by_group(open_rows, spec)
    split = frame["split"].where(frame["split"] != "", frame["group"].map(chosen))
    return frame.assign(split=split), notes


def check_no_group_on_both_sides(frame: pd.DataFrame) -> None:
    sides = frame[frame["split"] != ""].groupby("group")["split"].unique()
    shared = sides[sides.map(len) > 1]
    if len(shared):
        raise DataError(
            f"group {shared.index[0]!r} is in {' and '.join(sorted(shared.iloc[0]))} at once "
            f"({len(shared)} such groups); a recording, speaker or player must be on one side only: "
            "correct the split column, or leave it empty and it is made by group"
        )


def _check_classes(frame: pd.DataFrame) -> list[str]:
    groups: dict[str, set[str]] = {}
    for labels, group in zip(frame["labels"], frame["group"], strict=True):
        for label in labels:
            groups.setdefault(label, set()).add(group)
    single = sorted(label for label, names in groups.items() if len(names) == 1)
    if single:
        raise DataError(
            f"class {single[0]!r} has one group only ({next(iter(groups[single[0]]))!r}), so it cannot be both trained "
            f"on and tested honestly ({len(single)} such classes); add another recording of it or drop the class"
        )
    two = sorted(label for label, names in groups.items() if len(names) == 2)
    return [f"{', '.join(two)}: two groups only, so none in validation"] if two else []


def _by_group(frame: pd.DataFrame, spec: SplitSpec) -> dict[str, str]:
    counts = _label_counts(frame)
    rng = np.random.default_rng(spec.seed)
    order = list(rng.permutation(sorted(counts)))
    chosen = _one_each(counts, order)
    shares = {"train": 1 - spec.val - spec.test, "test": spec.test, "val": spec.val}
    total: Counter[str] = sum(counts.values(), Counter())
    have = {part: sum((counts[g] for g, p in chosen.items() if p == part), Counter[str]()) for part in PARTS}
    for group in sorted(order, key=lambda g: -counts[g].total()):  # large ones first: small ones even the rest out
        if group in chosen:
            continue
        want = {part: _need(counts[group], have[part], total, shares[part]) for part in PARTS}
        chosen[group] = max(PARTS, key=lambda part: want[part])
        have[chosen[group]] += counts[group]
    return chosen


def _one_each(counts: dict[str, Counter[str]], order: list[str]) -> dict[str, str]:
    """One group of every class in each part while it has groups to give, rarest class first; small ones go to test."""
    chosen: dict[str, str] = {}
    groups_of = {label: [g for g in order if label in counts[g]] for c in counts.values() for label in c}
    for label in sorted(groups_of, key=lambda name: (len(groups_of[name]), name)):
        for part in PARTS:
            mine = [g for g in groups_of[label] if g not in chosen]
            if any(chosen.get(g) == part for g in groups_of[label]) or not mine:
                continue
            pick = max if part == "train" else min
            chosen[pick(mine, key=lambda g: counts[g][label])] = part
    return chosen


def _need(group: Counter[str], have: Counter[str], total: Counter[str], share: float) -> float:
    """How far a part is below its share of this group's labels after taking half of it: 1 is empty, below 0 is over."""
    return sum(n * (1 - (have[label] + n / 2) / (share * total[label])) for label, n in group.items()) / group.total()


def _label_counts(frame: pd.DataFrame) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for labels, group in zip(frame["labels"], frame["group"], strict=True):
        counts.setdefault(str(group), Counter()).update(labels)
    return counts
