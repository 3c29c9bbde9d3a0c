"""One sound as its model heard it: the spectrogram, what of it the answer rests on, the windows' scores over time.

Shapes: W windows, F bands, L frames.
"""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instrunet import explain
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.features import FRAME_FEATURES
from instrunet.features.shards import Features
from instrunet.prediction import COLOURS, SHOWN, Prediction
from instrunet.report.pictures import LIGHT, _short
from instrunet.report.seen import ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXPLAINED = 60  # windows, those that speak loudest for the answer: each is a pass forward and one backward
DARK = 0.12  # what is left of the brightness where the answer does not rest


def picture(bundle: Bundle, sound: Sound, said: Prediction, title: str = "") -> bytes:
    """A PNG of `said`, which is what `bundle` said of `sound`."""
    from matplotlib.figure import Figure

    panels = _panels(bundle, sound, said)
    figure = Figure(figsize=(10, 0.8 + 2.0 * len(panels) + 1.7), layout="constrained", facecolor=LIGHT.card)
    rows = figure.subplots(len(panels) + 1, 1, sharex=True, squeeze=False, height_ratios=[2.0] * len(panels) + [1.7])
    for (name, images), axes in zip(panels, rows[:-1, 0], strict=True):
        _draw_images(axes, name, images)
        _bands(axes, bundle)
    _draw_scores(rows[-1, 0], bundle, said)
    rows[-1, 0].set_xlim(0, max(said.duration_s, bundle.spec.front.window_s))
    rows[-1, 0].set_xlabel("seconds", color=LIGHT.muted)
    figure.suptitle("".join(c if c.isprintable() else " " for c in f"{title}: {said.answer}"), color=LIGHT.ink)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


Image = tuple[float, float, NDArray[np.float32]]  # from and to which second, [F, L]


def _panels(bundle: Bundle, sound: Sound, said: Prediction) -> list[tuple[str, list[Image]]]:
    """What is heard of the whole sound, and window by window what the answer rests on."""
    name = bundle.network.names[0]
    if name not in FRAME_FEATURES or not len(sound.wave):
        return []
    part: Any = bundle.featurizer.parts[name]
    heard: list[tuple[str, list[Image]]] = [(name, [(0.0, said.duration_s, part.fast(sound.wave))])]
    if not said.scores:
        return heard
    label = said.labels[0] if said.labels else said.ranked[0][0]
    images = _rests_on(bundle, sound, said, label)
    return [*heard, (f"what {_short(label)} rests on", images)] if images else heard


def _rests_on(bundle: Bundle, sound: Sound, said: Prediction, label: str) -> list[Image]:
    seen, k = bundle.featurizer.fast(sound.wave), list(said.scores).index(label)
    n = len(seen.start_s)
    loudest = np.argsort([-row[k] for row in said.window_scores])[:EXPLAINED]
    some = {name: values[loudest] for name, values in seen.features.items()}
    held = Features(some, {"clip_id": [""] * len(loudest)})  # type: ignore[arg-type]
    maps = explain.looked_at(bundle, held, np.full(len(loudest), k))
    if maps is None:
        return []
    pictures = seen.features[bundle.network.names[0]]
    low, n_bands = float(np.percentile(pictures, 0.5)), pictures.shape[1]
    went_by = dict(zip(loudest.tolist(), maps, strict=True))
    front = bundle.spec.front
    seconds = min(front.window_s, max(said.duration_s, front.least / front.sample_rate))
    return [
        (
            seen.start_s[w],
            seen.start_s[w] + seconds,
            low + (pictures[w] - low) * (DARK + (1 - DARK) * went_by[w][:n_bands] if w in went_by else DARK),
        )
        for w in range(n)
    ]


def _draw_images(axes: "Axes", name: str, images: Sequence[Image]) -> None:
    values = np.concatenate([image.ravel() for _, _, image in images])
    low, high = np.percentile(values, [0.5, 99.5])
    for start_s, stop_s, image in images:
        axes.imshow(
            image,
            extent=(start_s, stop_s, 0, len(image)),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=low,
            vmax=max(high, low + 1e-6),
        )
    axes.set_facecolor("black")
    axes.set_title(name, loc="left", fontsize=10, color=LIGHT.muted, parse_math=False)


def _bands(axes: "Axes", bundle: Bundle) -> None:
    """Hertz beside a mel spectrogram; other features have bands of their own."""
    hertz, bands = ticks(bundle)
    if hertz:
        axes.set_yticks(bands)
        axes.set_yticklabels([f"{hz:,} Hz" for hz in hertz])
    axes.tick_params(length=0, labelcolor=LIGHT.muted)


def _draw_scores(axes: "Axes", bundle: Bundle, said: Prediction) -> None:
    names, least = list(bundle.spec.labels), bundle.thresholds
    span = min(bundle.spec.front.window_s, said.duration_s)
    for (label, score), colour in zip(said.ranked[:SHOWN], COLOURS, strict=False):
        k = names.index(label)
        middle = [at + span / 2 for at in said.window_start_s]
        axes.plot(middle, [row[k] for row in said.window_scores], color=colour, marker="o", ms=4)
        axes.plot([], [], color=colour, lw=3, label=f"{_short(label)} {score:.2f}".replace("$", r"\$"))
        if bundle.spec.kind == "multi":
            axes.axhline(least[k], color=colour, lw=0.8, ls=":")
    if said.scores:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=LIGHT.ink)
    axes.set_ylim(-0.02, 1.02)
    title = "scores of the windows" + (", dotted: the thresholds" if bundle.spec.kind == "multi" else "")
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT.muted)
    axes.grid(color=LIGHT.line, lw=0.8)
    axes.tick_params(length=0, labelcolor=LIGHT.muted)
    axes.spines[:].set_visible(False)
