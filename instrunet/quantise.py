"""A network in eight bits: a quarter of its size, its ranges taken from real clips (post-training, static).

Shapes: W windows, F bands, L frames.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = dict[str, NDArray[np.float32]]  # {name: [W, F, L]}


def int8(graph: bytes, batches: Sequence[Batch]) -> bytes:
    """The same graph with quantised weights (a scale a map) and activations, as both runtimes read it."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self.left, None)

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends, through the root, a fusion that the runtimes do themselves
    try:
        with TemporaryDirectory(prefix="instrunet-") as folder:
            path, model = Path(folder) / "int8.onnx", onnx.load_from_string(graph)
            kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            left = {"nodes_to_exclude": _constant(model)}
            quantize_static(model, path, Reader(), per_channel=True, **kinds, **left)
            return path.read_bytes()
    finally:
        logger.setLevel(level)


def _constant(model: Any) -> list[str]:
    """Nodes that make weights out of weights: OpenVINO takes an LSTM's as a constant alone, not behind eight bits."""
    known, found = {one.name for one in model.graph.initializer}, []
    for node in model.graph.node:
        if all(name in known or not name for name in node.input):
            known.update(node.output)
            found.append(node.name)
    return found
