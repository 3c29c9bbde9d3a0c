"""What each network costs, into the table of docs/MODELS.md. The last line is JSON: the number of rows."""

import json
import re
from pathlib import Path

from instrunet.features.featurizer import FrontEnd
from instrunet.features.summary import SummarySpec
from instrunet.models import NUMBER_MODELS, ModelSpec
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.backbone import BackboneSpec
from instrunet.models.functionals import FunctionalsSpec
from instrunet.models.picture import PictureSpec
from instrunet.models.resnet import HarmonicsResnetSpec
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec
from instrunet.models.sizes import size
from instrunet.models.soundmind import Dense40Spec, SoundMindSpec, SoundMindTimeSpec

PAGE = Path(__file__).resolve().parent.parent / "docs/MODELS.md"
HEAD = "| network | sees | parameters | GMAC | GFLOP |\n| --- | --- | --- | --- | --- |\n"
N_LABELS = 11
NATIVE = PictureSpec()
SPECS: list[ModelSpec] = [
    *(Task8Spec(), Task8Spec(picture=NATIVE)),
    *(Iteration11Spec(), Iteration11Spec(picture=NATIVE), Iteration11Spec(picture=NATIVE, se=True)),
    *(MultiscaleSpec(), MultiscaleSpec(picture=NATIVE), MultiscaleSpec(picture=NATIVE, se=True)),
    HarmonicsResnetSpec(),
    *(SoundMindSpec(), SoundMindTimeSpec(), Dense40Spec()),
    AttentiveSpec(),
    FunctionalsSpec(),
    *(BackboneSpec(timm_name=n) for n in ("mobilenetv4_conv_small", "mobilenetv3_large_100", "efficientnet_b0")),
    *(BackboneSpec(timm_name=n) for n in ("convnext_atto", "resnet18")),
]


def main() -> None:
    rows = [row(spec) for spec in SPECS]
    page = PAGE.read_text(encoding="utf-8")
    table = re.compile(re.escape(HEAD) + r"(\|.*\n)*")
    PAGE.write_text(table.sub(lambda _: HEAD + "\n".join(rows) + "\n", page), encoding="utf-8")
    print("\n".join(rows))
    print(json.dumps({"networks": len(rows)}))


def row(spec: ModelSpec) -> str:
    """One window of 3 s at 22,050 Hz: 128 mel bands x 130 frames, or the 392 numbers."""
    front = FrontEnd(features=(SummarySpec(),)) if spec.name in NUMBER_MODELS else FrontEnd()
    found = size(spec, front, N_LABELS)
    name = f"`{spec.name}`" + (f" `{spec.timm_name}`" if isinstance(spec, BackboneSpec) else "")
    name += " + SE" if getattr(spec, "se", False) and not isinstance(spec, AttentiveSpec) else ""
    return f"| {name} | {_sees(spec)} | {found.parameters:,} | {_short(found.macs / 1e9)} | {_short(found.gflop)} |"


def _short(value: float) -> str:
    return f"{value:.4f}" if value > 0.001 else f"{value:.6f}"


def _sees(spec: ModelSpec) -> str:
    if isinstance(spec, SoundMindSpec | Dense40Spec):
        return "392 numbers"
    grid = " x ".join(map(str, spec.picture.grid(128, 130)))
    return grid + (" x 3" if spec.picture.colour else "")


if __name__ == "__main__":
    main()
