"""Which runtimes decide as the bundle does: measured on real clips, and kept in the bundle."""

from collections.abc import Sequence

import numpy as np

from instrunet import quantise, runtime
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Parity, Precision
from instrunet.errors import DataError
from instrunet.features.featurizer import Windows

FOR_RANGES = 4  # of so many clips one gives the ranges of eight bits, and the others judge


def measured(bundle: Bundle, clips: Sequence[Sound]) -> list[Parity]:
    """Of every runtime and precision that is installed here, beside PyTorch in fp32."""
    heard = _heard(bundle, clips)
    plain = [bundle.of_clip(bundle.scores(windows)) for windows in heard]
    found = []
    for where, precision in runtime.everywhere(bool(bundle.int8)):
        moved = bundle.on(where, precision)
        scores = [moved.of_clip(moved.scores(windows)) for windows in heard]
        pairs = list(zip(plain, scores, strict=True))
        changed = sum(bundle.decide(a) != bundle.decide(b) for a, b in pairs)
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        found.append(Parity(runtime=where, precision=precision, n_clips=len(heard), changed=changed, largest=largest))
    return found


def doubt(bundle: Bundle, where: str, precision: Precision) -> str:
    """Why something that was asked for by name would not have been taken by itself; empty where it would."""
    known = next((p for p in bundle.spec.runtimes if (p.runtime, p.precision) == (where, precision)), None)
    if known and known.changed:
        return f"{where}/{precision} changed {known.changed} of {known.n_clips} decisions on the bundle's real clips"
    if precision == "fp32" or (known and known.n_clips):
        return ""
    return (
        f"whether {where}/{precision} decides as the bundle does has not been measured; "
        "jobs/export.py BUNDLE --out DIR --clips FOLDER measures it, and DIR/bundle knows it"
    )


def noted(bundle: Bundle, clips: Sequence[Sound]) -> Bundle:
    """The same bundle, which knows what may be taken for it: `bundle.on("auto")`."""
    known = quantised(bundle, clips[::FOR_RANGES])
    rest = [clip for k, clip in enumerate(clips) if k % FOR_RANGES] or clips
    spec = known.spec.model_copy(update={"runtimes": tuple(measured(known, rest))})
    return Bundle(spec, known.network, known.int8)


def quantised(bundle: Bundle, clips: Sequence[Sound]) -> Bundle:
    """With the network in eight bits, its ranges from these clips; as it is where there is nothing to do it with."""
    if not runtime.installed("onnxruntime"):
        return bundle
    names = bundle.network.names
    batches = [{name: windows.features[name] for name in names} for windows in _heard(bundle, clips)]
    return Bundle(bundle.spec, bundle.network, quantise.int8(runtime.graph(bundle), batches))


def _heard(bundle: Bundle, clips: Sequence[Sound]) -> list[Windows]:
    heard = [bundle.featurizer.fast(clip.wave) for clip in clips]
    heard = [windows for windows in heard if len(windows.start_s)]
    if not heard:
        raise DataError("no clip gave any sound to compare runtimes on; give other --clips")
    return heard
