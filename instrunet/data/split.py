"""Train, validation and test by group, never by clip: what shares a recording, speaker or player stays together.

scikit-learn's StratifiedGroupKFold makes folds of one size and may leave a rare class out of training; this one takes
any shares and first gives every class a group in training, then in test, then in validation.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from instrunet.config import Spec
from instrunet.data.parts import read_json
from instrunet.data.unions import unions
from instrunet.errors import DataError

PARTS = ("train", "test", "val")  # in the order in which a rare class gets its groups
ORDERS = 20  # where clips have several labels, classes compete for groups, and another order may serve them all


class SplitSpec(Spec):
    """Shares of the clips. With `folds`, the test split is fold number `fold` (from 0) of so many instead."""

    by: Literal["group", "clip"] = "group"  # clip: at random, to measure what that flatters; the audit calls it leaky
    keep_together: Path | None = None  # together.json of a features folder: groups that must stay on one side
    val: float = Field(0.15, ge=0, lt=1)  # 0: all that is not tested trains, for `train.keep: last`
    test: float = Field(0.15, ge=0, lt=1)  # 0: nothing is tested here, another corpus or the folds are the judge
    seed: int = 0
    folds: int | None = Field(None, ge=2)
    fold: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test must leave something to train on; got {self.val:g} + {self.test:g}")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold counts from 0 to folds - 1; got fold={self.fold} and folds={self.folds}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Of the parts that groups are dealt to; a fold's test groups are dealt already."""
        if self.folds:
            shares = {"train": (1 - self.val) * (1 - 1 / self.folds), "val": self.val * (1 - 1 / self.folds)}
        else:
            shares = {"train": 1 - self.val - self.test, "test": self.test, "val": self.val}
        return {part: share for part, share in shares.items() if share}


def assign(frame: pd.DataFrame, spec: SplitSpec, allow_leaks: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Fill the empty `split` fields; splits that the corpus states are kept. Returns the notes a user should read."""
    if not allow_leaks:
        check_no_group_on_both_sides(frame)
    stated = frame[frame["split"] != ""]
    if len(stated) == len(frame):
        return frame, []
    keyed, joins = _keyed(frame, spec)
    known = keyed["split"] != ""
    fixed = dict(zip(keyed.loc[known, "group"], stated["split"], strict=True))  # and for the open rows of such a group
    ours = keyed[keyed["group"].map(fixed) != "official"]
    counts = _label_counts(ours)
    if spec.folds or len(spec.shares) > 1:
        _check_classes(counts, fixed)
    fold = _test_fold(counts, fixed, spec.folds, spec) if spec.folds else {}
    chosen = fold | _by_group(counts, fixed | fold, spec)
    filled = frame["split"].where(known, keyed["group"].map(fixed | chosen))
    return frame.assign(split=filled), joins + _notes(counts, chosen, {*spec.shares, *fold.values()})


def _test_fold(counts: dict[str, Counter[str]], fixed: dict[str, str], k: int, spec: SplitSpec) -> dict[str, str]:
    if set(counts) & set(fixed):
        raise DataError("the corpus states its own splits, which folds would cross; unset split.folds")
    _check_folds(counts, k)
    fold_of = _folds(counts, k, np.random.default_rng(spec.seed))
    return {group: "test" for group, n in fold_of.items() if n == spec.fold}


def _keyed(frame: pd.DataFrame, spec: SplitSpec) -> tuple[pd.DataFrame, list[str]]:
    """The manifest with what must stay together as its `group`."""
    if spec.by == "clip":
        return frame.assign(group=frame["clip_id"]), ["split.by=clip: recordings fall on both sides of the split"]
    free = frame[frame["split"] != "official"]  # the published test set is neither left nor joined
    bytes_ = free[free["sha256"] != ""] if "sha256" in free else free[:0].assign(sha256="")
    shared = [list(rows["group"]) for _, rows in bytes_.groupby("sha256") if rows["group"].nunique() > 1]
    there = set(free["group"])
    asked = [[name for name in names if name in there] for names in _together(spec.keep_together)]
    sets = unions([names for names in [*shared, *asked] if names])
    key = {name: names[0] for names in sets for name in names}
    notes = [f"{len(key)} groups that share files or are kept together were joined into {len(sets)}"] if sets else []
    return frame.assign(group=frame["group"].map(lambda name: key.get(name, name))), notes


def _together(path: Path | None) -> list[list[str]]:
    groups = [] if path is None else read_json(path).get("groups")
    if not isinstance(groups, list) or not all(isinstance(names, list) for names in groups):
        raise DataError(f"{path} should hold groups: [[NAME, NAME], ...]; give a features folder's together.json")
    return groups


def _check_folds(counts: dict[str, Counter[str]], k: int) -> None:
    if not 2 <= k <= len(counts):
        raise DataError(
            f"expected 2 to {len(counts)} folds, as there are {len(counts)} groups; got {k}; choose fewer folds"
        )


def check_no_group_on_both_sides(frame: pd.DataFrame) -> None:
    sides = frame[frame["split"] != ""].groupby("group")["split"].unique()
    shared = sides[sides.map(len) > 1]
    if len(shared):
        raise DataError(
            f"group {shared.index[0]!r} is in {' and '.join(sorted(shared.iloc[0]))} at once "
            f"({len(shared)} such groups); a recording, speaker or player must be on one side only: "
            "correct the split column, or leave it empty and it is made by group"
        )


def _check_classes(counts: dict[str, Counter[str]], fixed: dict[str, str]) -> None:
    groups = _groups_of(counts)
    single = [label for label, names in sorted(groups.items()) if len(names) == 1 and names[0] not in fixed]
    if single:
        raise DataError(
            f"class {single[0]!r} has one group only ({groups[single[0]][0]!r}), so it cannot be both trained "
            f"on and tested honestly ({len(single)} such classes); add another recording of it or drop the class"
        )


def _notes(counts: dict[str, Counter[str]], chosen: dict[str, str], parts: Collection[str]) -> list[str]:
    words = {"train": "training", "test": "test", "val": "validation"}
    absent = _absent(counts, chosen, parts)
    return [
        f"{', '.join(label for label, where in absent if where == part)}: none in {words[part]}, for want of groups"
        for part in PARTS
        if any(where == part for _, where in absent)
    ]


def _by_group(counts: dict[str, Counter[str]], fixed: dict[str, str], spec: SplitSpec) -> dict[str, str]:
    """The part of every group: first one of each class everywhere, then what brings the parts to their shares."""
    rng, shares = np.random.default_rng(spec.seed), spec.shares
    for _ in range(ORDERS):
        order = [str(group) for group in rng.permutation(sorted(counts))]
        chosen = _one_each(counts, order, fixed, tuple(shares))
        if not _absent(counts, chosen, tuple(shares)):
            break
    total: Counter[str] = sum(counts.values(), Counter())
    have = {part: sum((counts[g] for g, p in chosen.items() if p == part), Counter[str]()) for part in shares}
    for group in sorted(order, key=lambda g: -counts[g].total()):  # large ones first: small ones even the rest out
        if group in chosen:
            continue
        want = {part: _need(counts[group], have[part], total, shares[part]) for part in shares}
        chosen[group] = max(shares, key=lambda part: want[part])
        have[chosen[group]] += counts[group]
    return chosen


def _folds(counts: dict[str, Counter[str]], k: int, rng: np.random.Generator) -> dict[str, int]:
    """The fold of every group: rarest class first, then large ones, each to the fold that lacks its labels most."""
    groups_of, total = _groups_of(counts), sum(counts.values(), Counter[str]())
    rarity = {group: min((len(groups_of[label]) for label in labels), default=0) for group, labels in counts.items()}
    order = [str(group) for group in rng.permutation(sorted(counts))]
    have = [Counter[str]() for _ in range(k)]
    chosen: dict[str, int] = {}
    for group in sorted(order, key=lambda g: (rarity[g] > k, -counts[g].total())):
        labels = counts[group]
        # A fold without the class comes before any that has some of it; of those, the emptiest
        want = [(sum(have[n][label] == 0 for label in labels), _need(labels, have[n], total, 1 / k)) for n in range(k)]
        chosen[group] = max(range(k), key=lambda n: (want[n], -have[n].total()))
        have[chosen[group]] += labels
    return chosen


def _one_each(
    counts: dict[str, Counter[str]], order: list[str], fixed: dict[str, str], parts: tuple[str, ...]
) -> dict[str, str]:
    """One group of every class in each part while it has groups to give, rarest class first; small ones go to test."""
    chosen = {group: part for group, part in fixed.items() if group in counts}
    groups_of = _groups_of({group: counts[group] for group in order})
    for label in sorted(groups_of, key=lambda name: (len(groups_of[name]), name)):
        for part in parts:
            mine = [g for g in groups_of[label] if g not in chosen]
            if any(chosen.get(g) == part for g in groups_of[label]) or not mine:
                continue
            pick = max if part == "train" else min
            chosen[pick(mine, key=lambda g: counts[g][label])] = part
    return chosen


def _absent(counts: dict[str, Counter[str]], chosen: dict[str, str], parts: Collection[str]) -> list[tuple[str, str]]:
    """The (class, part) pairs without a group; groups not chosen yet could still bring one, but rarely do."""
    there = {(label, chosen[group]) for group in chosen for label in counts[group]}
    return [(label, part) for label in sorted(_groups_of(counts)) for part in parts if (label, part) not in there]


def _groups_of(counts: dict[str, Counter[str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for group, labels in counts.items():
        for label in labels:
            groups.setdefault(label, []).append(group)
    return groups


def _need(group: Counter[str], have: Counter[str], total: Counter[str], share: float) -> float:
    """How far a part is below its share of this group's labels after taking half of it: 1 is empty, below 0 is over."""
    return sum(n * (1 - (have[label] + n / 2) / (share * total[label])) for label, n in group.items()) / group.total()


def _label_counts(frame: pd.DataFrame) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for labels, group in zip(frame["labels"], frame["group"], strict=True):
        counts.setdefault(str(group), Counter()).update(labels)
    return counts
