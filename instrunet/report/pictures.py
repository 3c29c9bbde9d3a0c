"""Pictures of a report as data URIs: vector where there is text, each in a light and a dark variant.

Shapes: K labels, F bands, L frames.
"""

import base64
import importlib.util
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import ConfigError

if TYPE_CHECKING:  # matplotlib is an extra, and takes 0.4 s to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page's own fonts. matplotlib measures with the wider DejaVu Sans, so that nothing runs over.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MAX_COUNTED_LABELS = 40  # beyond this the counts are smaller than can be read, and the cells too many for a vector
MAX_LABEL_LENGTH = 22


@dataclass(frozen=True)
class Theme:
    """Colours of the page (the same values stand in page.html), as matplotlib must know them."""

    ink: str
    muted: str
    line: str
    card: str
    accent: str
    second: str


LIGHT = Theme(ink="#1b2530", muted="#5c6975", line="#dfe4e8", card="#ffffff", accent="#0f6d83", second="#c2672b")
DARK = Theme(ink="#e6ebef", muted="#9aa7b2", line="#313b45", card="#1a2128", accent="#5cbfd3", second="#f0a36b")

# The panels of the training history: title, then the keys of an epoch and their names in the legend.
PANELS: dict[str, dict[str, str]] = {
    "Loss": {"train_loss": "training", "val_loss": "validation"},
    "Accuracy on validation": {"val_balanced_accuracy": "balanced", "val_accuracy": "plain"},
    "Learning rate": {"learning_rate": "learning rate"},
}


@dataclass(frozen=True)
class Picture:
    """Two data URIs of one drawing."""

    light: str
    dark: str


def require() -> None:
    """Fail before any work is done if pictures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "a report needs matplotlib for its pictures, which is not installed; run: pip install instrunet[report]"
        )


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Picture:
    """Counts [K, K] in cells coloured by their share of the row; rows are the true labels."""
    table = np.asarray(counts)
    names = [_short(label) for label in labels]
    return _both(partial(_draw_confusion, table, names), crop=True)


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Picture]:
    """A panel for each group of figures that the history holds, by title."""
    epochs = [float(row.get("epoch", i)) for i, row in enumerate(history)]
    pictures = {}
    for title, names in PANELS.items():
        lines = {name: [_number(row.get(key)) for row in history] for key, name in names.items()}
        known = {name: values for name, values in lines.items() if any(map(math.isfinite, values))}
        if known:
            pictures[title] = _both(partial(_draw_curves, epochs, known), crop=False)
    return pictures


def spectrogram(feature: NDArray[Any]) -> str:
    """A feature [F, L] as a PNG of a pixel per value, low bands at the bottom."""
    from matplotlib.image import imsave

    values = np.asarray(feature, dtype=np.float32)
    # The quietest and loudest half per cent are clipped: one click should not darken all the rest.
    low, high = np.percentile(values, [0.5, 99.5])
    buffer = io.BytesIO()
    imsave(buffer, values, vmin=low, vmax=max(high, low + 1e-6), cmap="magma", origin="lower", format="png")
    return _uri("image/png", buffer.getvalue())


def _both(draw: Callable[[Theme], "Figure"], crop: bool) -> Picture:
    return Picture(*(_uri("image/svg+xml", _svg(draw(theme), theme, crop)) for theme in (LIGHT, DARK)))


def _draw_confusion(counts: NDArray[Any], names: Sequence[str], theme: Theme) -> "Figure":
    from matplotlib.colors import LinearSegmentedColormap

    n = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell_in = min(0.9, max(0.5, 3 / n)) if n <= 16 else max(0.2, 8 / n)
    figure, axes = _figure((n * cell_in, n * cell_in), (0, 0, 1, 1))
    colors = LinearSegmentedColormap.from_list("share", [_mix(theme.card, theme.accent, 0.05), theme.accent])
    if n > MAX_COUNTED_LABELS:
        axes.pcolormesh(share, cmap=colors, vmin=0, vmax=1, edgecolors="face", rasterized=True)
    else:
        axes.pcolormesh(share, cmap=colors, vmin=0, vmax=1, edgecolors=theme.card, linewidth=1.5)
        _write_counts(axes, counts, share, theme)
    style: dict[str, Any] = {"fontsize": 9 if n <= 16 else 7, "color": theme.ink, "parse_math": False}
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor", **style)
    axes.set_yticks(np.arange(n) + 0.5, names, **style)
    axes.set(aspect="equal", xlim=(0, n), ylim=(n, 0))
    axes.set_xlabel("predicted", color=theme.muted, fontsize=9, labelpad=8)
    axes.set_ylabel("true", color=theme.muted, fontsize=9, labelpad=8)
    axes.spines[:].set_visible(False)
    return figure


def _write_counts(axes: "Axes", counts: NDArray[Any], share: NDArray[Any], theme: Theme) -> None:
    size = 9 if len(counts) <= 16 else 6
    for row, column in np.argwhere(counts > 0):  # an empty cell says 0 more quietly than a 0
        color = theme.card if share[row, column] > 0.5 else theme.ink
        axes.text(
            column + 0.5, row + 0.5, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=size
        )


def _draw_curves(epochs: Sequence[float], lines: Mapping[str, Sequence[float]], theme: Theme) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure((3.8, 2.6), (0.17, 0.18, 0.81, 0.7))
    marker = "o" if len(epochs) == 1 else ""  # a single epoch is a point, which no line would show
    for (name, values), color in zip(lines.items(), (theme.accent, theme.second), strict=False):
        axes.plot(epochs, values, color=color, label=name, lw=1.8, marker=marker, clip_on=False)
    if len(lines) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, frameon=False, labelcolor=theme.ink, fontsize=10
        )
    axes.grid(axis="y", color=theme.line, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", color=theme.muted, fontsize=10)
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    if all(value >= 0 for values in lines.values() for value in values if math.isfinite(value)):
        axes.set_ylim(bottom=0)  # a small gain should look small
    axes.yaxis.set_major_formatter("{x:g}")
    axes.tick_params(labelsize=10, labelcolor=theme.muted)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.line)
    return figure


def _figure(size_in: tuple[float, float], box: tuple[float, float, float, float]) -> tuple["Figure", "Axes"]:
    """A figure of our own and axes in this box of it: no pyplot, so no global list of figures that fills up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in)
    axes = figure.add_axes(box)
    axes.tick_params(length=0, pad=6)
    return figure, axes


def _svg(figure: "Figure", theme: Theme, crop: bool) -> bytes:
    """`crop` fits the page of the drawing to its text: right where labels are long, wrong for panels of one scale."""
    import matplotlib

    for axes in figure.axes:
        axes.set_facecolor(theme.card)
    buffer = io.BytesIO()
    box = "tight" if crop else None
    # A fixed salt and no date: the same evaluation gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "instrunet"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts for all scripts
        figure.savefig(
            buffer, format="svg", bbox_inches=box, pad_inches=0.04, facecolor=theme.card, metadata={"Date": None}
        )
    return re.sub(rb'font-family: [^;"]*', b"font-family: " + FONTS.encode(), buffer.getvalue())


def _mix(base: str, color: str, share: float) -> str:
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (1 - share) * np.array(to_rgb(base)) + share * np.array(to_rgb(color))
    return to_hex((red, green, blue))


def _short(label: str) -> str:
    """A label as a tick can carry it; control characters would make the SVG invalid."""
    text = "".join(c if c.isprintable() else " " for c in label)
    return text if len(text) <= MAX_LABEL_LENGTH else text[: MAX_LABEL_LENGTH - 1] + "…"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
