"""Which runtimes decide as the bundle does: measured on real clips, and kept in the bundle."""

from collections.abc import Sequence

import numpy as np

from instrunet import runtime
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Parity
from instrunet.errors import DataError


def measured(bundle: Bundle, clips: Sequence[Sound]) -> list[Parity]:
    """Of every runtime and precision that is installed here, beside PyTorch in fp32."""
    heard = [bundle.featurizer.fast(clip.wave) for clip in clips]
    heard = [windows for windows in heard if len(windows.start_s)]
    if not heard:
        raise DataError("no clip gave any sound to compare runtimes on; give other --clips")
    plain = [bundle.of_clip(bundle.scores(windows)) for windows in heard]
    found = []
    for where, precision in runtime.everywhere():
        moved = bundle.on(where, precision)
        scores = [moved.of_clip(moved.scores(windows)) for windows in heard]
        pairs = list(zip(plain, scores, strict=True))
        changed = sum(bundle.decide(a) != bundle.decide(b) for a, b in pairs)
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        found.append(Parity(runtime=where, precision=precision, n_clips=len(heard), changed=changed, largest=largest))
    return found


def noted(bundle: Bundle, clips: Sequence[Sound]) -> Bundle:
    """The same bundle, which knows what may be taken for it: `bundle.on("auto")`."""
    spec = bundle.spec.model_copy(update={"runtimes": tuple(measured(bundle, clips))})
    return Bundle(spec, bundle.network)
