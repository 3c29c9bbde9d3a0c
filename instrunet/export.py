"""The whole function as ONNX, waveform in and scores out, checked against the bundle it came from.

Shapes: W windows, N samples of a window, K labels.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instrunet.bundle import Bundle
from instrunet.config import canonical_json
from instrunet.data.parts import write_aside
from instrunet.errors import ConfigError, InstrunetError, JobError

OPSET = 18
TOLERANCE = 1e-4
FILE = "model.onnx"


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


def to_onnx(bundle: Bundle, folder: Path) -> tuple[Path, float]:
    """Write `folder`/model.onnx; returns it and the largest difference to the bundle on noise of three lengths."""
    require()
    if bundle.spec.front.length != "fixed":
        raise ConfigError(
            "export expects windows of one length, this bundle has front.length=adaptive (each window its own); "
            "train with front.length=fixed to export"
        )
    path = write_aside(folder / FILE, lambda aside: _export(bundle, aside))
    difference = parity(bundle, path)
    if difference > TOLERANCE:
        path.unlink()
        raise JobError(
            f"the exported model differs from the bundle by {difference:.2g}, at most {TOLERANCE:g} is allowed"
        )
    return path, difference


def parity(bundle: Bundle, path: Path) -> float:
    """Largest difference of a score between onnxruntime and the bundle's own serving path."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for n_windows in (1, 2, 5):
        wave = rng.standard_normal(n_windows * bundle.spec.front.window).astype(np.float32) * 0.1
        windows = wave.reshape(n_windows, -1)
        ours = bundle.scores(bundle.featurizer.fast_windows(windows))
        theirs = session.run(None, {"windows": windows})[0]
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return worst


def _export(bundle: Bundle, path: Path) -> None:
    import onnx

    # It warns that torchvision, which we do not use, is missing
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.zeros(2, bundle.spec.front.window)
    dynamic = {"windows": {0: torch.export.Dim("windows", min=1, max=4096)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes on deprecations inside torch
        program = _exported(bundle, example, dynamic)
    assert program is not None  # it is None only in the exporter's other mode
    model = program.model_proto
    front = bundle.spec.front
    facts: dict[str, Any] = {"labels": bundle.spec.labels, "fingerprint": bundle.fingerprint, "kind": bundle.spec.kind}
    # The temperature is in the graph; what is decided on the mean over a sound's windows is for its caller to do
    facts |= {"thresholds": bundle.thresholds.tolist()} if bundle.spec.kind == "multi" else {}
    facts |= (
        {"decisions": bundle.decisions.model_dump(mode="json", exclude={"fitted"})} if bundle.spec.decisions else {}
    )
    for key, value in {**facts, "sample_rate": front.sample_rate, "window": front.window}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"instrunet.{key}", canonical_json(value)
    onnx.save(model, str(path))


def _exported(bundle: Bundle, example: Tensor, dynamic: dict[str, Any]) -> torch.onnx.ONNXProgram | None:
    try:
        return torch.onnx.export(
            WindowsToScores(bundle).eval(),
            (example,),
            input_names=["windows"],
            output_names=["scores"],
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except Exception as error:
        if isinstance(error.__cause__, InstrunetError):  # the exporter wraps what a feature says of itself
            raise error.__cause__ from None
        raise
