"""Score over cost, each model a point: those that none beats in both are joined by a line."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from instrunet.report.pictures import Picture, Theme, _both, _figure, _short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Those that no other beats in both, the cheapest first."""
    order = sorted(range(len(costs)), key=lambda k: (costs[k], -scores[k]))
    found: list[int] = []
    for k in order:
        if not found or scores[k] > scores[found[-1]]:
            found.append(k)
    return found


def picture(
    names: Sequence[str], costs: Sequence[float], scores: Sequence[float], axes: tuple[str, str], marked: str
) -> Picture:
    """`axes` are the names of cost and score; `marked` is the one that was chosen."""
    return _both(partial(_draw, names, costs, scores, axes, marked), crop=True)


def _draw(
    names: Sequence[str],
    costs: Sequence[float],
    scores: Sequence[float],
    titles: tuple[str, str],
    marked: str,
    theme: Theme,
) -> "Figure":
    figure, axes = _figure((5.2, 3.2), (0, 0, 1, 1))
    best = front(costs, scores)
    axes.plot([costs[k] for k in best], [scores[k] for k in best], color=theme.muted, lw=1.2, ls="--", zorder=1)
    for k, name in enumerate(names):
        color = theme.second if name == marked else theme.accent
        axes.scatter([costs[k]], [scores[k]], s=44 if k in best else 26, color=color, zorder=2, clip_on=False)
        if k in best or name == marked:
            axes.annotate(
                _short(name), (costs[k], scores[k]), (6, 5), textcoords="offset points", color=theme.ink, fontsize=9
            )
    if min(costs) > 0 and max(costs) / min(costs) > 20:
        axes.set_xscale("log")
    axes.set_xlabel(titles[0], color=theme.muted, fontsize=10)
    axes.set_ylabel(titles[1], color=theme.muted, fontsize=10)
    axes.grid(color=theme.line, lw=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.tick_params(labelsize=9, labelcolor=theme.muted, which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure
