"""A recurrent layer in both directions that exports for any number of steps: as ONNX's own GRU or LSTM.

torch's exporter unrolls the layer step by step, for which the number of steps must be known.

Shapes: B clips, L steps, N numbers in, H numbers of each direction.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

GATES = {
    nn.GRU: (1, 0, 2),
    nn.LSTM: (0, 3, 1, 2),
}  # of ONNX, as places among torch's: z r h of r z n, i o f c of i f g o


def both_ways(layer: nn.GRU | nn.LSTM, steps: Tensor) -> Tensor:
    """[B, L, N] to [B, L, 2H]: forth, then back."""
    if not torch.compiler.is_exporting():
        found: Tensor = layer(steps)[0]
        return found
    order = GATES[type(layer)]
    into, again, biases = ([], [], [])
    for end in ("l0", "l0_reverse"):
        into.append(_ordered(getattr(layer, f"weight_ih_{end}"), order))
        again.append(_ordered(getattr(layer, f"weight_hh_{end}"), order))
        biases.append(torch.cat([_ordered(getattr(layer, f"bias_{which}_{end}"), order) for which in ("ih", "hh")]))
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size, "direction": "bidirectional"}
    attributes |= {"linear_before_reset": 1} if isinstance(layer, nn.GRU) else {}
    n, length = steps.shape[0], steps.shape[1]
    weights = [torch.stack(part) for part in (into, again, biases)]
    made = torch.onnx.ops.symbolic(
        type(layer).__name__,
        [steps.transpose(0, 1), *weights],
        attributes,
        dtype=steps.dtype,
        shape=(length, 2, n, layer.hidden_size),
        version=18,
    )
    return made.permute(2, 0, 1, 3).flatten(2)


def _ordered(gates: Tensor, order: Sequence[int]) -> Tensor:
    size = len(gates) // len(order)
    return torch.cat([gates[k * size : (k + 1) * size] for k in order])
