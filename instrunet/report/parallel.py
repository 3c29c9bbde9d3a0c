"""Trials as lines over one axis for each field that was searched: which values go with good scores is seen at once."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from instrunet.report.pictures import Picture, Theme, _both, _figure, _mix, _short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_AXES, MAX_TICKS = 7, 9
LOG_RATIO = 30  # from where on a range of numbers is drawn by its logarithm
NONE = "–"  # a trial of another branch has no such field


def coordinates(
    told: Sequence[Mapping[str, Any]], scores: Sequence[float], names: Sequence[str], metric: str, sign: int = 1
) -> Picture | None:
    """The fields `names`, the most important first, and the figure; nothing where no field has two values."""
    names = [name for name in names if len({repr(one.get(name)) for one in told}) > 1][:MAX_AXES]
    if not names or not scores:
        return None
    axes = [_Axis(name, [one.get(name) for one in told]) for name in names]
    axes.append(_Axis(metric.removeprefix("val_").replace("_", " "), list(scores), numeric=True))
    return _both(partial(_draw, axes, [sign * score for score in scores]), crop=True)


class _Axis:
    """Values to places from 0 to 1, and the ticks that say which is where."""

    def __init__(self, name: str, values: Sequence[Any], numeric: bool = False) -> None:
        self.name = name
        known = [v for v in values if v is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
        self.missing = 0.12 if len(known) < len(values) else 0.0  # room below for those that have none
        if numeric or (numbers and len(set(known)) > 1):
            self._of_numbers([float(v) for v in known])
            self.at = [self._place(v) for v in values]
        else:
            self._of_words([_word(v) for v in known])
            self.at = [0.0 if v is None else self.places[_word(v)] for v in values]
        if self.missing:
            self.ticks.insert(0, (0.0, NONE))

    def _of_numbers(self, known: Sequence[float]) -> None:
        low, high = min(known), max(known)
        self.log = low > 0 and high / low >= LOG_RATIO
        self.low, self.high = low, high
        some = sorted(set(known))
        shown = some if len(some) <= 5 else [low, self._between(1 / 3), self._between(2 / 3), high]
        self.ticks = [(self._place(v), f"{v:.3g}") for v in shown]

    def _between(self, share: float) -> float:
        return self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)

    def _place(self, value: Any) -> float:
        if value is None:
            return 0.0
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        share = (scale(value) - low) / (high - low) if high > low else 0.5
        return self.missing + (1 - self.missing) * share

    def _of_words(self, known: Sequence[str]) -> None:
        words = sorted(set(known))
        step = (1 - self.missing) / max(1, len(words) - 1)
        middle = len(words) == 1
        self.places = {word: self.missing + (0.4 if middle else k * step) for k, word in enumerate(words)}
        every = math.ceil(len(words) / MAX_TICKS)
        self.ticks = [(self.places[word], _short(word)) for word in words[::every]]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _draw(axes_of: Sequence[_Axis], goodness: Sequence[float], theme: Theme) -> "Figure":
    figure, axes = _figure((1.75 * len(axes_of), 3.6), (0, 0, 1, 1))
    order = sorted(range(len(goodness)), key=lambda k: goodness[k])
    low, high = goodness[order[0]], goodness[order[-1]]
    for k in order:
        share = (goodness[k] - low) / (high - low) if high > low else 1.0
        best = k == order[-1]
        color = theme.second if best else _mix(theme.line, theme.accent, share)
        places = [axis.at[k] for axis in axes_of]
        axes.plot(range(len(axes_of)), places, color=color, lw=2.6 if best else 1.3, solid_joinstyle="round")
    for x, axis in enumerate(axes_of):
        _draw_axis(axes, x, axis, theme)
    axes.set(xlim=(-0.3, len(axes_of) - 0.3), ylim=(-0.06, 1.16))
    axes.set_axis_off()
    return figure


def _draw_axis(axes: "Axes", x: int, axis: _Axis, theme: Theme) -> None:
    axes.plot([x, x], [0, 1], color=theme.muted, lw=1)
    name = axis.name if len(axis.name) <= 24 else "…" + axis.name[-23:]
    axes.text(x, 1.08, name, ha="center", color=theme.ink, fontsize=9, fontweight="bold", parse_math=False)
    for place, text in axis.ticks:
        box = {"facecolor": theme.card, "edgecolor": "none", "pad": 1.0, "alpha": 0.82}
        axes.text(
            x + 0.04, place, text, va="center", color=theme.ink, fontsize=8.5, bbox=box, parse_math=False, zorder=9
        )
