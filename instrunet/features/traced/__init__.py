"""Features as a graph can hold them: in torch alone what `fast` computes with numpy, for `instrunet/export.py`.

Training and tagging take `fast`: clip by clip on the CPU it is several times as quick.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from instrunet.features import FEATURES
from instrunet.features.traced.cqt import TracedCqt
from instrunet.features.traced.hpss import TracedHpss
from instrunet.features.traced.summary import TracedSummary

# By the name of the feature, made of its spec: [B, T] to [B, F, L]
TRACED: dict[str, Callable[[Any], nn.Module]] = {
    **FEATURES,
    "cqt": TracedCqt,
    "hpss": TracedHpss,
    "summary": TracedSummary,
}
