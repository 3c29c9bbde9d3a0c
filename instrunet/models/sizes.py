"""What a network costs: parameters, and multiplications with addition (MAC) for one window.

Convention: convolutions, dense layers and recurrent layers count, one MAC each as 2 FLOP; norms, activations, pooling
and the picture do not. Parameters are those that are trained, without running means.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from instrunet.features.featurizer import FrontEnd
from instrunet.models import ModelSpec, n_parameters, without_weights


@dataclass(frozen=True)
class Size:
    parameters: int
    macs: int

    @property
    def gflop(self) -> float:
        return 2 * self.macs / 1e9


def size(spec: ModelSpec, front: FrontEnd, n_labels: int) -> Size:
    """Counted on the `meta` device, where an LSTM is the products it is made of; on the CPU it would count nothing."""
    network = without_weights(spec, front, n_labels).eval()
    shapes = front.shapes()
    features = {name: torch.zeros(1, *shapes[name], device="meta") for name in network.names}
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        x, share = network.see(features)
        counter.flop_counts.clear()
        network.body(x, share)
    return Size(n_parameters(network), counter.get_total_flops() // 2)
