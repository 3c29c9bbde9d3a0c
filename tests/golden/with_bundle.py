"""Makes bundle-1 and networks.json: what this version wrote, for later ones to read. Run once for each format.

PYTHONPATH=tests python tests/golden/with_bundle.py
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from making import LABELS, RATE, draft, tone

from instrunet.bundle import Bundle
from instrunet.bundle_spec import Parity, Provenance
from instrunet.decisions import Curve, Decisions
from instrunet.drift import Profile
from instrunet.features.featurizer import FrontEnd
from instrunet.models import Network, without_weights
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.resnet import HarmonicsResnetSpec
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec
from instrunet.models.soundmind import SoundMindTimeSpec

HERE = Path(__file__).parent
NETWORKS = (Task8Spec, Iteration11Spec, MultiscaleSpec, HarmonicsResnetSpec, SoundMindTimeSpec, AttentiveSpec)


def bundle() -> Bundle:
    """With something in every field."""
    spec = draft(
        kind="multi", model=AttentiveSpec(stem=4, widths=(4, 8), pools=((2, 2), (2, 2)), views=("plain", "position"))
    )
    heard = [Bundle(spec, _network(spec)).hear(Bundle(spec, _network(spec)).read(wave, RATE)) for wave in waves()]
    curve = Curve(at=(0.1, 0.5, 0.9), to=(0.05, 0.6, 0.95))
    more: dict[str, Any] = {
        "profile": Profile.of([one.measures for one in heard], [[label] for label in LABELS]),
        "temperature": 1.3,
        "thresholds": (0.4, 0.5, 0.6),
        "decisions": Decisions(isotonic=(curve, curve, curve), abstain_below=0.2),
        "runtimes": (Parity(runtime="openvino", precision="bf16", n_clips=9, changed=0, largest=0.004),),
        "trained": Provenance(experiment="0123456789abcdef", corpus="tones", seed=7, audit="clean", epoch=3),
    }
    return Bundle(spec.model_copy(update=more), _network(spec))


def waves() -> list[Any]:
    return [tone(hz, 1.3, seed=k) for k, hz in enumerate((300.0, 900.0, 2500.0))]


def layouts() -> dict[str, str]:
    """Of each network by its defaults: a hash of the names and shapes of its weights."""
    found = {}
    for kind in NETWORKS:
        state = without_weights(kind(), FrontEnd(), 11).state_dict()
        told = "\n".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
        found[kind().name] = hashlib.sha256(told.encode()).hexdigest()[:16]
    return found


def _network(spec: Any) -> Network:
    torch.manual_seed(0)
    network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():
        network.train()({"logmel": torch.randn(8, 16, 16) * 3 - 4})  # running means other than 0 and 1
        network.body.head[-1].weight.mul_(600)
    return network.eval()


if __name__ == "__main__":
    Bundle.load(bundle().save(HERE / "bundle-1"))
    said = [Bundle.load(HERE / "bundle-1")(wave, RATE).to_dict() for wave in waves()]
    (HERE / "bundle-1.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    (HERE / "networks.json").write_text(json.dumps(layouts(), indent=1) + "\n", encoding="utf-8")
