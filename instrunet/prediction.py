"""What a model says of one sound: as data, as a table in a terminal, as a picture in a notebook."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from instrunet.decisions import NO_ANSWER

if TYPE_CHECKING:  # 0.1 s that a script may not need
    from rich.table import Table

SHOWN = 5  # labels that are drawn
COLOURS = ("#0f6d83", "#c2672b", "#7a5195", "#4f8a10", "#8a8f98")
WIDE, HIGH = 460, 110  # of the curves, in pixels


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sound: `labels` is its decision, `scores` the mean over the windows, calibrated.

    `status` is `tagged`, `damaged` (decided on what was kept), `silent` or `too_short` (no decision), or why a file
    could not be decoded: `corrupt`, `unreadable`. A sound of which it is not sure enough has the flag `no_answer` and
    no labels.
    """

    status: str
    labels: list[str]
    scores: dict[str, float]
    window_start_s: list[float]
    window_scores: list[list[float]]
    duration_s: float
    flags: list[str]
    error: str
    drift: float | None = None  # see `Profile.drift`
    start_s: float = 0.0  # of this sound in its file

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def answer(self) -> str:
        """The decision in words."""
        if not self.scores:
            return self.status
        return "no answer" if NO_ANSWER in self.flags else ", ".join(self.labels) or "none of its labels"

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Labels and scores, the best first."""
        return sorted(self.scores.items(), key=lambda pair: -pair[1])

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table("label", "score", "", title=Text(self.answer), caption=Text(self._facts()))
        for label, score in self.ranked:
            chosen = "bold" if label in self.labels else ""
            table.add_row(Text(label, chosen), Text(f"{score:.3f}", chosen), Text("█" * round(20 * score), chosen))
        return table

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td style='text-align:left'>{_bold(escape(label), label in self.labels)}</td><td>{score:.3f}</td>"
            f"<td style='text-align:left'>{_bar(score, COLOURS[min(k, SHOWN - 1)])}</td></tr>"
            for k, (label, score) in enumerate(self.ranked[: 2 * SHOWN])
        ]
        facts = f"<div style='opacity:.7'>{escape(self._facts())}</div>"
        return f"<div><b>{escape(self.answer)}</b>{facts}<table>{''.join(rows)}</table>{self._curves()}</div>"

    def _facts(self) -> str:
        told = [self.status, f"{self.duration_s:.2f} s", f"{len(self.window_start_s)} windows", *self.flags]
        told += [] if self.drift is None else [f"drift {self.drift:g}"]
        return ", ".join([*told, *([self.error] if self.error else [])])

    def _curves(self) -> str:
        """The windows' scores over time of the best labels, as SVG: one window is no curve."""
        if len(self.window_start_s) < 2:
            return ""
        names = list(self.scores)
        lines = [
            _line(self.window_start_s, [row[names.index(label)] for row in self.window_scores], COLOURS[k])
            for k, (label, _) in enumerate(self.ranked[:SHOWN])
        ]
        first, last = (f"{at:.1f} s" for at in (self.window_start_s[0], self.window_start_s[-1]))
        return (
            f"<svg width='{WIDE}' height='{HIGH + 20}' role='img' aria-label='scores of the windows over time'>"
            f"<rect width='{WIDE}' height='{HIGH}' fill='none' stroke='#8a8f98' stroke-width='.5'/>{''.join(lines)}"
            f"<g font-size='11' fill='#8a8f98'><text y='{HIGH + 15}'>{first}</text>"
            f"<text x='{WIDE}' y='{HIGH + 15}' text-anchor='end'>{last}</text></g></svg>"
        )


def _line(at: Sequence[float], scores: Sequence[float], colour: str) -> str:
    span = at[-1] - at[0]
    points = " ".join(f"{WIDE * (t - at[0]) / span:.1f},{HIGH * (1 - s):.1f}" for t, s in zip(at, scores, strict=True))
    return f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.5'/>"


def _bar(score: float, colour: str) -> str:
    return f"<div style='height:.7em;width:{150 * score:.0f}px;background:{colour}'></div>"


def _bold(text: str, bold: bool) -> str:
    return f"<b>{text}</b>" if bold else text
