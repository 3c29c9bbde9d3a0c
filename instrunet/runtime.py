"""Where a network runs: PyTorch, ONNX Runtime or OpenVINO behind one call, and the fastest of them that decides alike.

Conventions: in fp32 all of them give the same scores to 1e-4, which is looked at whenever one is taken. Another
precision may change decisions: `auto` takes it only where the bundle knows that on real clips it changed none
(`Parity`, which jobs/export.py --clips measures).
Shapes: B windows, F bands, L frames, K labels.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet.bundle_spec import Precision
from instrunet.config import canonical_json
from instrunet.data.parts import read_json, write_aside, write_json
from instrunet.engines import Run, by_onnxruntime, by_openvino, by_torch, by_torch_in_half
from instrunet.errors import ConfigError, DataError, JobError
from instrunet.features import SHARE

if TYPE_CHECKING:
    from instrunet.bundle import Bundle

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "torch": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}
AUTO, PLAIN = "auto", "torch/fp32"
EXTRA = {"onnxruntime": "onnx", "openvino": "openvino,onnx"}
ONNX = ("onnx", "onnxscript")  # the exporter's
NEEDS = {"torch": (), "onnxruntime": ("onnxruntime", *ONNX), "openvino": ("openvino", *ONNX)}
TOLERANCE = 1e-4  # of a score, in fp32
PROBE_S = 1.0  # all candidates together


def named(text: str) -> tuple[str, Precision]:
    """`openvino/bf16`, or `openvino` for fp32."""
    where, _, precision = text.partition("/")
    known = next((one for of in PRECISIONS.values() for one in of if one == (precision or "fp32")), None)
    if known is None:
        raise ConfigError(f"expected a precision of fp32, bf16, int8 behind {where}/, got {precision!r}")
    return where, known


def run_on(bundle: "Bundle", runtime: str, precision: Precision = "fp32") -> Run:
    """The network of a bundle on a runtime; windows of several lengths in one batch stay with torch."""
    if runtime not in PRECISIONS:
        raise ConfigError(f"expected a runtime of {', '.join(PRECISIONS)} or auto, got {runtime!r}")
    if precision not in PRECISIONS[runtime]:
        others = [name for name, has in PRECISIONS.items() if precision in has]
        raise ConfigError(
            f"{runtime} runs {' and '.join(PRECISIONS[runtime])}, got {precision!r}"
            + (f"; {' and '.join(others)} run it" if others else "")
        )
    if not installed(runtime):
        raise ConfigError(f"{runtime} is not installed; run: pip install 'instrunet[{EXTRA[runtime]}]'")
    if precision == "int8" and not bundle.int8:
        raise ConfigError(
            "int8 needs ranges from real clips: take DIR/bundle of jobs/export.py BUNDLE --out DIR --clips FOLDER"
        )
    if runtime == "torch":
        return by_torch(bundle.network) if precision == "fp32" else by_torch_in_half(bundle.network)
    names, torch_run = bundle.network.names, by_torch(bundle.network)
    engine = by_onnxruntime if runtime == "onnxruntime" else by_openvino
    run, n_frames = engine(graph(bundle, precision), names, precision)

    def either(batch: dict[str, Tensor]) -> NDArray[np.float32]:
        mixed = SHARE in batch or n_frames not in (
            None,
            batch[names[0]].shape[2],
        )  # int8 of older bundles: whole windows
        return torch_run(batch) if mixed else run(batch)

    agree(bundle, either, runtime, precision)
    return either


def installed(runtime: str) -> bool:
    return all(importlib.util.find_spec(name) for name in NEEDS[runtime])


def fastest(bundle: "Bundle", n_windows: int = 1) -> tuple[str, Precision]:
    """By a second of trying what is installed, the first time on this machine; what was found is kept."""
    candidates = [*trusted(bundle)]
    if len(candidates) == 1:
        return candidates[0]
    key: dict[str, Any] = {"bundle": _key(bundle), "machine": _machine(), "candidates": candidates}
    key |= {"windows": n_windows} if n_windows > 1 else {}
    path = cache() / f"fastest-{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]}.json"
    try:
        kept = read_json(path)
        return next(one for one in candidates if one == (kept["runtime"], kept["precision"]))
    except (DataError, KeyError, StopIteration):  # never looked, or what was found cannot be taken now
        pass
    took = {one: _seconds(bundle, run_on(bundle, *one), PROBE_S / len(candidates), n_windows) for one in candidates}
    runtime, precision = best = min(took, key=lambda one: took[one])
    told = {"/".join(one): round(1e3 * seconds, 3) for one, seconds in took.items()}
    write_json(path, {"runtime": runtime, "precision": precision, "ms": told})
    return best


def trusted(bundle: "Bundle") -> Iterator[tuple[str, Precision]]:
    """What may be taken without being asked for by name."""
    # Half a precision that differs by nothing at all was not tried: short windows were once left to torch
    told = [p for p in bundle.spec.runtimes if p.n_clips and not p.changed and (p.largest or p.precision == "fp32")]
    unchanged = {(p.runtime, p.precision) for p in told}
    for runtime in filter(installed, PRECISIONS):
        for precision in PRECISIONS[runtime]:
            there = precision != "int8" or bundle.int8
            if precision == "fp32" or (there and (runtime, precision) in unchanged):
                yield runtime, precision


def everywhere(int8: bool = False) -> Iterator[tuple[str, Precision]]:
    for runtime in filter(installed, PRECISIONS):
        yield from ((runtime, precision) for precision in PRECISIONS[runtime] if int8 or precision != "int8")


def cache() -> Path:
    """Where exported networks and what was found fastest are kept; it may be deleted at any time."""
    home = os.environ.get("INSTRUNET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "instrunet"
    return Path(home).expanduser()


def probe_batch(bundle: "Bundle", n_windows: int = 1, n_samples: int | None = None) -> dict[str, Tensor]:
    """Noise like the training data: [B, F, L] of each feature, of whole windows or of so many samples."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in bundle.network.names:
        noise = torch.randn(n_windows, *bundle.spec.front.shapes(n_samples)[name], generator=generator)
        mean, std = (getattr(bundle.network, f"{kind}_{name}") for kind in ("mean", "std"))
        found[name] = noise * std + mean
    return found


def agree(bundle: "Bundle", run: Run, runtime: str, precision: Precision) -> None:
    """Refuse what scores otherwise than the bundle does."""
    least, most = bundle.spec.front.least, bundle.spec.front.window
    batches = [probe_batch(bundle, 2, n) for n in {least, (2 * least + most) // 3, most}]
    with torch.inference_mode():
        pairs = [(bundle.activated(run(one)), bundle.activated(by_torch(bundle.network)(one))) for one in batches]
    apart = max(float(np.abs(a - b).max()) for a, b in pairs)
    if precision == "fp32" and not apart <= TOLERANCE:
        raise JobError(
            f"{runtime} differs from the bundle by {apart:.2g}, at most {TOLERANCE:g} is allowed; take torch, or "
            f"delete {cache()} if it was copied from another machine"
        )


@torch.inference_mode()
def _seconds(bundle: "Bundle", run: Run, budget_s: float, n_windows: int = 1) -> float:
    """Median of the time that so many windows take."""
    batch = probe_batch(bundle, n_windows)
    took: list[float] = []
    run(batch)
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(took) < 3:
        start = time.perf_counter()
        run(batch)
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def graph(bundle: "Bundle", precision: Precision = "fp32") -> bytes:
    """The network as ONNX; exporting takes 5 s, so it is kept. In eight bits it is the bundle's."""
    if precision == "int8":
        return bundle.int8
    from instrunet import export

    version = importlib.metadata.version("onnxscript")
    path = cache() / f"{_key(bundle)}-{torch.__version__.split('+')[0]}-{version}.onnx"
    if not path.is_file():
        made = export.network(bundle)
        write_aside(path, lambda aside: aside.write_bytes(made))
    return path.read_bytes()


def _key(bundle: "Bundle") -> str:
    """What a network's graph is a function of; bundles that differ in their thresholds alone share one."""
    spec = bundle.spec
    said = spec.model_dump(mode="json", include={"model", "statistics", "labels"})
    # A bundle that was never saved does not know what its weights are
    weights = spec.weights_sha256 or hashlib.sha256(safetensors.torch.save(bundle.network.state_dict())).hexdigest()
    said |= {"shapes": spec.front.shapes(), "least": spec.front.least, "weights": weights}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:32]


def _machine() -> dict[str, Any]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: importlib.metadata.version(name) for name in filter(installed, PRECISIONS)}
    return {"node": platform.node(), "cpus": cpus, "threads": torch.get_num_threads(), **versions}
