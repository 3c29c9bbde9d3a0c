"""One set of scores under several rules and thresholds: what the choice alone makes of a figure.

`own`         the thresholds of the bundle, or 0.5 where a rule has a scale of its own
`validation`  one for all classes, by micro F1 on clips of groups that no weights were fitted on
`oracle`      one for all classes, by micro F1 on the very clips that are scored: as papers choose it, and too good
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from instrunet.bundle import Bundle
from instrunet.metrics import bootstrap, intervals, multi, single, voting
from instrunet.scoring import Judgement, Scored, judge, truth_of, voted
from instrunet.thresholds import one_threshold

FIGURES = {"single": ("accuracy", "balanced_accuracy", "macro_f1"), "multi": ("micro_f1", "macro_f1", "lrap")}
PAPERS = {rule: name for name, rule in voting.PUBLISHED.items()}


@dataclass(frozen=True)
class Row:
    """Figures, {name: value}, and the intervals of those that have one, {name: [low, high]}."""

    rule: str
    published: str  # the name that a paper gave it
    thresholds: str  # own, validation, oracle; empty where the best score decides
    threshold: float | None  # None: one a label
    n: int
    figures: dict[str, float]
    intervals: dict[str, list[float]]


def table(bundle: Bundle, scored: Scored, rules: Sequence[str], val: Scored | None = None) -> list[Row]:
    """A row a rule and kind of threshold; where the best score decides, a row a rule."""
    return [row for rule in rules for row in _rows(bundle, scored, rule, val)]


def _rows(bundle: Bundle, scored: Scored, rule: str, val: Scored | None) -> Iterator[Row]:
    found = judge(bundle, scored, rule)
    if found.kind == "single":
        yield _row(found, rule, "")
        return
    yield _row(found, rule, "own")
    if val is not None:
        yield _row(_with_one(found, one_threshold(truth_of(bundle, val), voted(bundle, val, rule))), rule, "validation")
    yield _row(_with_one(found, one_threshold(found.truth, found.scores)), rule, "oracle")


def _with_one(found: Judgement, threshold: float) -> Judgement:
    return replace(found, thresholds=np.full(len(found.labels), threshold, np.float32))


def _row(found: Judgement, rule: str, thresholds: str) -> Row:
    own = set(found.thresholds.tolist())
    one = float(found.thresholds[0]) if thresholds and len(own) == 1 else None
    return Row(rule, PAPERS.get(rule, ""), thresholds, one, len(found.truth), _figures(found), _limits(found))


def _figures(found: Judgement) -> dict[str, float]:
    if found.kind == "single":
        y_true, y_pred = found.truth.argmax(1), found.scores.argmax(1)
        return {name: getattr(single, name)(y_true, y_pred) for name in FIGURES["single"]}
    of_labels = {name: getattr(multi, name)(found.truth, found.chosen) for name in ("micro_f1", "macro_f1")}
    return of_labels | {"lrap": multi.lrap(found.truth, found.scores)}


def _limits(found: Judgement) -> dict[str, list[float]]:
    """As bootstrap.py has them, of these figures alone: there may be 15 rows."""
    drawn = intervals.draws(found.groups)
    if drawn.n_groups < intervals.FEWEST_GROUPS:
        return {}
    limits = {name: [i.low, i.high] for name, i in intervals.of(found.judged, len(found.labels)).items()}
    if found.kind == "multi":
        lraps = intervals.middle(bootstrap.mean(multi.lrap_of_clips(found.truth, found.scores), drawn), drawn.n_groups)
        limits["lrap"] = [lraps.low, lraps.high]
    return limits
