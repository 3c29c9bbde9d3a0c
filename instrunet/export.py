"""The whole function as ONNX, waveform in and scores out, checked against the bundle it came from.

Shapes: B sounds, T samples, W windows, N samples of a window, F bands, L frames, K labels.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instrunet import graph
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.config import canonical_json
from instrunet.errors import ConfigError, JobError
from instrunet.features import summary
from instrunet.features.traced import TRACED
from instrunet.features.traced.summary import ROUNDING
from instrunet.models import Network

OPSET = 18
TOLERANCE = 1e-4
FILE, DATA = "model.onnx", "model.onnx.data"
WIDE = 4  # times the longest window is told to the exporter: it fails where pools leave one length of all that may come
LENGTHS = (0.2, 0.61, 0.83, 1.0, 1.05, 2.4, 5.3)  # windows, of the noise that every export is checked on


class FeaturesToLogits(nn.Module):
    """[W, F, L] of each feature that the network takes, in its order, to [W, K]: what runs on any runtime."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *features: Tensor) -> Tensor:
        logits: Tensor = self.network(dict(zip(self.network.names, features, strict=True)))
        return logits


class WindowsToScores(nn.Module):
    """[W, N] samples at the bundle's rate and level to [W, K] scores."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        specs = bundle.spec.front.features
        self.features = nn.ModuleDict({spec.name: TRACED[spec.name](spec) for spec in specs})
        self.network = bundle.network
        self.temperature, self.softmax = bundle.spec.temperature, bundle.spec.kind == "single"

    def forward(self, windows: Tensor) -> Tensor:
        features = {name: feature(windows) for name, feature in self.features.items()}
        logits: Tensor = self.network(features) / self.temperature
        return logits.softmax(1) if self.softmax else logits.sigmoid()


def require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export needs the extra `onnx`: pip install 'instrunet[onnx]' ({error})") from None


def to_onnx(bundle: Bundle, folder: Path, clips: Sequence[Sound] = (), external: bool = False) -> tuple[Path, float]:
    """Write `folder`/model.onnx; returns it and the largest difference to the bundle, on noise and on `clips`.

    With `external` the weights lie beside it, in model.onnx.data.
    """
    require()
    _check_that_a_graph_repeats(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".export-") as aside:
        _export(bundle, Path(aside) / FILE, external)
        difference = parity(bundle, Path(aside) / FILE, clips)
        if not difference <= TOLERANCE:
            raise JobError(
                f"the exported model differs from the bundle by {difference:.2g}, at most {TOLERANCE:g} is allowed"
            )
        if external:  # a graph is there with its own weights or not at all
            (folder / FILE).unlink(missing_ok=True)
            (Path(aside) / DATA).chmod((Path(aside) / FILE).stat().st_mode)  # onnx leaves it to its owner alone
            (Path(aside) / DATA).replace(folder / DATA)
        (Path(aside) / FILE).replace(folder / FILE)
        if not external:
            (folder / DATA).unlink(missing_ok=True)
    return folder / FILE, difference


def parity(bundle: Bundle, path: Path, clips: Sequence[Sound] = ()) -> float:
    """Largest difference of a score between onnxruntime and the bundle's own serving path."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    noise = [_with_quiet_ends(rng.standard_normal(round(n * bundle.spec.front.window))) for n in LENGTHS]
    for wave in [*noise, *(clip.wave for clip in clips)]:
        said = bundle.decided(Sound(wave))
        if said.scores:
            scores, windows = session.run(None, {"waveform": wave[None]})
            ours: list[NDArray[Any]] = [np.array([*said.scores.values()]), np.array(said.window_scores)]
            for mine, theirs in zip(ours, (scores[0], windows[0]), strict=True):
                worst = max(worst, float(np.abs(mine - theirs).max()))
    return worst


def _check_that_a_graph_repeats(bundle: Bundle) -> None:
    """Whether the network reads ROUNDING is asked of its answers, whichever network it is."""
    front, statistics = bundle.spec.front, bundle.spec.statistics
    unsure = any(isinstance(feature, summary.SummarySpec) and not feature.quiet for feature in front.features)
    if not unsure or "summary" not in bundle.network.names:
        return
    mean, std = (torch.tensor(values["summary"])[:, None] for values in (statistics.mean, statistics.std))
    generator, rows = torch.Generator().manual_seed(0), [name.startswith(ROUNDING) for name in summary.names()]
    drawn = torch.randn(2, 16, len(rows), 1, generator=generator)
    drawn[1, :, [not row for row in rows]] = drawn[0, :, [not row for row in rows]]
    rest = {name: torch.zeros(16, *shape) for name, shape in front.shapes().items()}
    with torch.inference_mode():
        one, other = (bundle.network.eval()(rest | {"summary": mean + std * numbers}) for numbers in drawn)
    if not torch.equal(one, other):
        raise ConfigError(
            "this network reads summary's contrast and tonnetz, which are in part what numpy's FFT and soxr round to: "
            "no graph repeats that: train with quiet_db: 80 in the feature, or run the bundle by bundle.on()"
        )


def _with_quiet_ends(noise: NDArray[np.float64]) -> NDArray[np.float32]:
    """As of a recording that begins too soon and ends too late: what `trim_db` leaves out."""
    edge = len(noise) // 8
    noise[:edge] *= 1e-3
    noise[len(noise) - edge :] *= 1e-3
    return (noise * 0.1).astype(np.float32)


def network(bundle: Bundle) -> bytes:
    """The network alone as ONNX, any number of windows: features by their names in, `logits` out."""
    require()
    names, front = bundle.network.names, bundle.spec.front
    longest, shortest = (front.shapes(n)[names[0]][1] for n in (front.window, front.least))
    # Not the length of any window: what the exporter takes for a constant would show
    n_frames = (longest + shortest) // 2
    examples = tuple(torch.zeros(2, front.shapes()[name][0], n_frames) for name in names)
    free = {2: torch.export.Dim("frames", min=shortest, max=WIDE * longest)} if shortest < longest else {}
    made: bytes = _exported(FeaturesToLogits(bundle.network), examples, names, "logits", free).SerializeToString()
    return made


def _export(bundle: Bundle, path: Path, external: bool) -> None:
    import onnx

    front = bundle.spec.front
    adaptive = front.least < front.window
    free = {1: torch.export.Dim("samples", min=front.least, max=WIDE * front.window)} if adaptive else {}
    example = torch.zeros(2, (front.least + front.window) // 2)
    model = _exported(WindowsToScores(bundle), (example,), ["windows"], "row_scores", free)
    graph.around(bundle, model)
    facts: dict[str, Any] = {"labels": bundle.spec.labels, "fingerprint": bundle.fingerprint, "kind": bundle.spec.kind}
    # The temperature and the curves are in the graph; who is sure enough of what is for its caller to compare
    facts |= {"thresholds": bundle.thresholds.tolist()} if bundle.spec.kind == "multi" else {}
    facts |= {"abstain_below": bundle.decisions.abstain_below} if bundle.decisions.abstain_below else {}
    for key, value in {**facts, "sample_rate": front.sample_rate, "window": front.window, "hop": front.hop}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"instrunet.{key}", canonical_json(value)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path), save_as_external_data=external, location=DATA)


def _exported(
    module: nn.Module, examples: tuple[Tensor, ...], names: Sequence[str], output: str, free: dict[int, Any]
) -> Any:
    """The model as ONNX's own object; the first axis of all that goes in is free, and what `free` says besides."""
    each = tuple({0: torch.export.Dim("rows", min=1, max=1 << 20)} | free for _ in examples)
    # It warns that torchvision, which we do not use, is missing
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes on deprecations inside torch
        # Pooling asks whether a length is odd; the answer changes nothing, but would bind the graph to it
        traced = torch.export.export(
            module.eval(),
            examples,
            dynamic_shapes=(each,) if isinstance(module, FeaturesToLogits) else each,  # of `*features`, one tuple
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced, examples, input_names=list(names), output_names=[output], opset_version=OPSET, verbose=False
        )
    assert program is not None  # it is None only in the exporter's other mode
    return program.model_proto
