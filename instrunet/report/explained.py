"""Pictures and sounds of why a network answered as it did.

Shapes: N windows, F bands, L frames.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instrunet.report.pictures import Picture, Theme, _both, _figure, _short, _uri, spectrogram

if TYPE_CHECKING:  # matplotlib is an extra, and takes 0.4 s to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def looked_at(heard: NDArray[Any] | None, went_by: NDArray[Any] | None) -> tuple[str | None, str | None]:
    """A feature [F, L] as it is, and as far as the network went by it: the rest of it is dark."""
    if heard is None:
        return None, None
    if went_by is None:
        return spectrogram(heard), None
    low = float(np.percentile(heard, 0.5))
    return spectrogram(heard), spectrogram(low + (heard - low) * (0.1 + 0.9 * went_by))


def sound(audio: bytes) -> str | None:
    return _uri("audio/mpeg", audio) if audio else None


def strips(fallen: Sequence[tuple[str, float]]) -> Picture | None:
    """How far the score falls without each strip of bands: bars, high pitch at the top."""
    return _both(partial(_draw_strips, fallen), crop=True) if fallen else None


def scatter(
    maps: Mapping[str, NDArray[Any]], labels: Sequence[str], wrong: Sequence[bool], order: Sequence[str]
) -> Picture | None:
    """Maps of the same windows [N, 2] beside each other: colour by true label, a cross where its clip was mistaken."""
    if not maps:
        return None
    return _both(partial(_draw_maps, maps, np.array(labels), np.array(wrong), list(order)), crop=True)


def _draw_strips(fallen: Sequence[tuple[str, float]], theme: Theme) -> "Figure":
    names, values = zip(*fallen, strict=True)
    figure, axes = _figure((6.4, 0.3 * len(names) + 0.4), (0.3, 0.12, 0.68, 0.86))
    axes.barh(names, values, color=[theme.accent if value >= 0 else theme.second for value in values], height=0.7)
    axes.axvline(0, color=theme.muted, lw=0.8)
    axes.set_xlabel("fall of the true labels' mean score", color=theme.muted, fontsize=10)
    axes.tick_params(labelsize=10, labelcolor=theme.ink)
    axes.grid(axis="x", color=theme.line, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure


def _draw_maps(
    maps: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    wrong: NDArray[np.bool_],
    order: Sequence[str],
    theme: Theme,
) -> "Figure":
    n = len(maps)
    figure, axes = _figure((6.4 if n == 1 else 4.4 * n, 5.2 if n == 1 else 4.0), (0, 0, 0.97 / n, 1))
    there = [label for label in order if (labels == label).any()]
    for k, (title, points) in enumerate(maps.items()):
        own = axes if k == 0 else figure.add_axes((k / n, 0, 0.97 / n, 1))
        own.set_title(title, color=theme.muted, fontsize=10)
        _draw_points(own, points, {label: labels == label for label in there}, wrong)
        own.set_xticks([])
        own.set_yticks([])
        own.spines[:].set_color(theme.line)
    own.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, labelcolor=theme.ink, fontsize=9, scatterpoints=1
    )
    return figure


def _draw_points(
    axes: "Axes", points: NDArray[Any], rows: Mapping[str, NDArray[np.bool_]], wrong: NDArray[np.bool_]
) -> None:
    from matplotlib import colormaps

    for k, (label, mine) in enumerate(rows.items()):
        color = colormaps["tab20" if len(rows) > 10 else "tab10"](k % 20)
        name = _short(label).replace("$", r"\$")
        right, mistaken = points[mine & ~wrong], points[mine & wrong]
        axes.scatter(right[:, 0], right[:, 1], s=22, color=color, label=name, linewidths=0)
        axes.scatter(mistaken[:, 0], mistaken[:, 1], s=30, color=color, marker="x", linewidths=1.6)
