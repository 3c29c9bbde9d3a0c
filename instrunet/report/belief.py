"""Pictures of how far scores can be believed: the reliability curve, and what answering less would bring."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from instrunet.report.pictures import Picture, Theme, _both, _figure

if TYPE_CHECKING:  # matplotlib is an extra, and takes 0.4 s to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[Mapping[str, float]]


def drawn(belief: Mapping[str, Any] | None) -> dict[str, Picture]:
    """By title; nothing where the scores are no probabilities."""
    if not belief or not belief["after"]["reliability"]:
        return {}
    lines = {"as it is": belief["after"]["reliability"]}
    if belief["before"]:
        lines["before calibration"] = belief["before"]["reliability"]
    return {
        "What is said, and what is true": _both(partial(_draw_reliability, lines), crop=False),
        "Wrong labels, if only the surest are answered": _both(
            partial(_draw_risk, belief["risk_coverage"], belief["abstain_below"]), crop=False
        ),
    }


def _draw_reliability(lines: Mapping[str, Points], theme: Theme) -> "Figure":
    figure, axes = _figure((3.8, 2.9), (0.17, 0.18, 0.8, 0.7))
    axes.plot([0, 1], [0, 1], color=theme.line, lw=1.2)
    for (name, points), color in zip(lines.items(), (theme.accent, theme.second), strict=False):
        x, y, largest = [p["said"] for p in points], [p["true"] for p in points], max(p["n"] for p in points)
        axes.plot(x, y, color=color, label=name, lw=0.9)
        axes.scatter(x, y, [6 + 70 * p["n"] / largest for p in points], color=color, lw=0, clip_on=False)
    if len(lines) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, frameon=False, labelcolor=theme.ink, fontsize=10
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _style(axes, "score", "share that is right", theme)
    return figure


def _draw_risk(points: Points, below: float, theme: Theme) -> "Figure":
    figure, axes = _figure((3.8, 2.9), (0.17, 0.18, 0.8, 0.7))
    axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=theme.accent, lw=1.8)
    kept = [p for p in points if p["below"] >= below]
    if below and kept:
        axes.plot([kept[-1]["coverage"]], [kept[-1]["risk"]], color=theme.second, marker="o", clip_on=False)
    axes.set(xlim=(0, 1))
    axes.set_ylim(bottom=0)
    _style(axes, "share of clips that get an answer", "share of labels that are wrong", theme)
    return figure


def _style(axes: "Axes", x: str, y: str, theme: Theme) -> None:
    axes.grid(color=theme.line, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=theme.muted, fontsize=10)
    axes.set_ylabel(y, color=theme.muted, fontsize=10)
    axes.tick_params(labelsize=10, labelcolor=theme.muted)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.line)
