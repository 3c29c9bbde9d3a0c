"""The same figure of parts of the clips: where a model is weak that is good on the whole.

Shapes: N clips.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instrunet.metrics import intervals
from instrunet.metrics.intervals import Interval, Judged

FEWEST, MOST_VALUES = 5, 24  # clips of a part; values of a trait, of which more are names and no kinds
Part = tuple[str, str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Slice:
    """`figure` of the clips whose `by` is `value`; its interval is 0 to 1 where they are of one group."""

    by: str
    value: str
    n: int
    n_groups: int
    figure: float
    interval: Interval


def slices(
    judged: Judged,
    n_labels: int,
    name: str,
    traits: Sequence[Sequence[str]],
    numbers: Mapping[str, NDArray[np.floating]],
) -> list[Slice]:
    """Of the figure `name`, by each trait (`genre=pop`) and by the thirds of each number; the weakest part first."""
    found = []
    for by, value, rows in [*_by_trait(traits), *_by_thirds(numbers), *_by_labels(judged)]:
        if rows.sum() < FEWEST:
            continue
        groups = [group for group, yes in zip(judged.groups, rows, strict=True) if yes]
        part = Judged(judged.y_true[rows], judged.y_pred[rows], groups)
        interval = intervals.of(part, n_labels)[name]
        figure = intervals.figures(part, n_labels)[name]
        found.append(Slice(by, value, int(rows.sum()), interval.n_groups, figure, interval))
    parts = [one.by for one in found]
    return sorted((one for one in found if parts.count(one.by) > 1), key=lambda one: (one.by, one.figure))


def _by_trait(traits: Sequence[Sequence[str]]) -> Iterable[Part]:
    values: dict[str, set[str]] = {}
    for own in traits:
        for by, _, value in (trait.partition("=") for trait in own):
            values.setdefault(by, set()).add(value)
    for by, there in values.items():
        if 2 <= len(there) <= MOST_VALUES:
            for value in sorted(there):
                yield by, value, np.array([f"{by}={value}" in own for own in traits])


def _by_thirds(numbers: Mapping[str, NDArray[np.floating]]) -> Iterable[Part]:
    for by, values in numbers.items():
        low, high = np.nanpercentile(values, (100 / 3, 200 / 3))
        if low < high:
            yield by, f"up to {low:.3g}", values <= low
            yield by, f"{low:.3g} to {high:.3g}", (values > low) & (values <= high)
            yield by, f"over {high:.3g}", values > high


def _by_labels(judged: Judged) -> Iterable[Part]:
    """Polyphony."""
    if judged.y_true.ndim == 2:
        n_true = judged.y_true.sum(1)
        for n in np.unique(n_true):
            yield "labels", str(n), n_true == n
