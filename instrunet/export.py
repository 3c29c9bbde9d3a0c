"""The whole function as ONNX, waveform in and scores out, checked against the bundle it came from.

Shapes: B sounds, T samples, W windows, N samples of a window, F bands, L frames, K labels.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instrunet import graph
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.config import canonical_json
from instrunet.data.parts import write_aside
from instrunet.errors import ConfigError, InstrunetError, JobError
from instrunet.models import Network

OPSET = 18
TOLERANCE = 1e-4
FILE = "model.onnx"
LENGTHS = (0.2, 1.0, 1.05, 2.4, 5.3)  # windows, of the noise that every export is checked on


class FeaturesToLogits(nn.Module):
    """[W, F, L] of each feature that the network takes, in its order, to [W, K]: what runs on any runtime."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *features: Tensor) -> Tensor:
        logits: Tensor = self.network(dict(zip(self.network.names, features, strict=True)))
        return logits


class WindowsToScores(nn.Module):
    """[W, N] samples at the bundle's rate to [W, K] scores."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.featurizer, self.network = bundle.featurizer, bundle.network
        self.temperature, self.softmax = bundle.spec.temperature, bundle.spec.kind == "single"

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.network(self.featurizer(windows)) / self.temperature
        return logits.softmax(1) if self.softmax else logits.sigmoid()


def require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export needs the extra `onnx`: pip install 'instrunet[onnx]' ({error})") from None


def to_onnx(bundle: Bundle, folder: Path, clips: Sequence[Sound] = ()) -> tuple[Path, float]:
    """Write `folder`/model.onnx; returns it and the largest difference to the bundle, on noise and on `clips`."""
    require()
    front = bundle.spec.front
    if front.length != "fixed":
        raise ConfigError(
            "export expects windows of one length, this bundle has front.length=adaptive (each window its own); "
            "train with front.length=fixed to export"
        )
    if front.trim_db is not None:
        raise ConfigError(
            f"export expects sounds as they are, this bundle has front.trim_db={front.trim_db:g} (silence at both ends "
            "is left out before windows are cut); train without it to export"
        )
    path = write_aside(folder / FILE, lambda aside: _export(bundle, aside))
    difference = parity(bundle, path, clips)
    if not difference <= TOLERANCE:
        path.unlink()
        raise JobError(
            f"the exported model differs from the bundle by {difference:.2g}, at most {TOLERANCE:g} is allowed"
        )
    return path, difference


def parity(bundle: Bundle, path: Path, clips: Sequence[Sound] = ()) -> float:
    """Largest difference of a score between onnxruntime and the bundle's own serving path."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    noise = [rng.standard_normal(round(n * bundle.spec.front.window)).astype(np.float32) * 0.1 for n in LENGTHS]
    for wave in [*noise, *(clip.wave for clip in clips)]:
        said = bundle.decided(Sound(wave))
        if said.scores:
            scores, windows = session.run(None, {"waveform": wave[None]})
            ours: list[NDArray[Any]] = [np.array([*said.scores.values()]), np.array(said.window_scores)]
            for mine, theirs in zip(ours, (scores[0], windows[0]), strict=True):
                worst = max(worst, float(np.abs(mine - theirs).max()))
    return worst


def network(bundle: Bundle) -> bytes:
    """The network alone as ONNX, any number of whole windows: features by their names in, `logits` out."""
    require()
    names, shapes = bundle.network.names, bundle.spec.front.shapes()
    examples = tuple(torch.zeros(2, *shapes[name]) for name in names)
    made: bytes = _exported(FeaturesToLogits(bundle.network), examples, names, "logits").SerializeToString()
    return made


def _export(bundle: Bundle, path: Path) -> None:
    import onnx

    front = bundle.spec.front
    model = _exported(WindowsToScores(bundle), (torch.zeros(2, front.window),), ["windows"], "row_scores")
    graph.around(bundle, model)
    facts: dict[str, Any] = {"labels": bundle.spec.labels, "fingerprint": bundle.fingerprint, "kind": bundle.spec.kind}
    # The temperature and the curves are in the graph; who is sure enough of what is for its caller to compare
    facts |= {"thresholds": bundle.thresholds.tolist()} if bundle.spec.kind == "multi" else {}
    facts |= {"abstain_below": bundle.decisions.abstain_below} if bundle.decisions.abstain_below else {}
    for key, value in {**facts, "sample_rate": front.sample_rate, "window": front.window, "hop": front.hop}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"instrunet.{key}", canonical_json(value)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _exported(module: nn.Module, examples: tuple[Tensor, ...], names: Sequence[str], output: str) -> Any:
    """The model as ONNX's own object; the first axis of all that goes in is free."""
    free = {0: torch.export.Dim("rows", min=1, max=1 << 20)}
    each = tuple(free for _ in examples)
    # It warns that torchvision, which we do not use, is missing
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own notes on deprecations inside torch
            program = torch.onnx.export(
                module.eval(),
                examples,
                input_names=list(names),
                output_names=[output],
                dynamic_shapes=(each,) if isinstance(module, FeaturesToLogits) else each,  # of `*features`, one tuple
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        if isinstance(error.__cause__, InstrunetError):  # the exporter wraps what a feature says of itself
            raise error.__cause__ from None
        raise
    assert program is not None  # it is None only in the exporter's other mode
    return program.model_proto
