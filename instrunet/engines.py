"""A network on PyTorch, ONNX Runtime and OpenVINO, each as one call; runtime.py says which of them to take.

Shapes: B windows, F bands, L frames, K labels.
"""

import copy
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Run = Callable[[dict[str, Tensor]], NDArray[np.float32]]  # {name: [B, F, L]} to logits [B, K]
CPU = torch.device("cpu")


@functools.cache
def _core() -> Any:
    # One for a process: each brings the stack on which signals are answered, and takes it away: SIGTERM was a SIGSEGV.
    # Left to itself, the import tells Google Analytics of it, from a process that imports our main program once more.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    return importlib.import_module("openvino").Core()


def by_torch(network: nn.Module, device: torch.device = CPU) -> Run:
    """Of a network that is on the device."""

    def run(batch: dict[str, Tensor]) -> NDArray[np.float32]:
        moved = {name: values.to(device) for name, values in batch.items()}
        logits: NDArray[np.float32] = network(moved).float().cpu().numpy()
        return logits

    return run


def by_torch_in_half(network: nn.Module) -> Run:
    """bfloat16 where it is safe (autocast), channels last: 5 times as fast as fp32 where the processor has AMX."""
    network = copy.deepcopy(network)
    for weights in network.parameters():
        if weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    plain = by_torch(network)

    def run(batch: dict[str, Tensor]) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(batch)

    return run


def by_onnxruntime(graph: bytes, names: Sequence[str], precision: str) -> tuple[Run, int | None]:
    """And how many frames its windows have, if not any number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    frames = session.get_inputs()[0].shape[2]

    def run(batch: dict[str, Tensor]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {name: batch[name].numpy() for name in names})[0]
        return logits

    return run, frames if isinstance(frames, int) else None


def by_openvino(graph: bytes, names: Sequence[str], precision: str) -> tuple[Run, int | None]:
    """As `by_onnxruntime`."""
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "LATENCY"}
    # Left to itself it binds a call to the first core there is, and so do all other processes of the machine
    hints |= {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "ENABLE_CPU_PINNING": "NO"}
    model = _core().read_model(graph)
    request = _core().compile_model(model, "CPU", hints).create_infer_request()
    frames = model.inputs[0].partial_shape[2]

    def run(batch: dict[str, Tensor]) -> NDArray[np.float32]:
        found = request.infer({name: batch[name].numpy() for name in names}, share_inputs=True)
        logits: NDArray[np.float32] = found[0].copy()  # the request's own memory, which the next call fills anew
        return logits

    return run, None if frames.is_dynamic else frames.get_length()
