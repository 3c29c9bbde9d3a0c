"""Windows with lengths of their own, on every runtime: the graph takes any, and one of whole windows leaves them."""

import numpy as np
import pytest
from archives import RATE, sound, tiny_bundle

from instrunet import quantise, runtime
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Parity

pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture(scope="module")
def adaptive(bundle: Bundle) -> Bundle:
    front = bundle.spec.front.model_copy(update={"length": "adaptive", "min_s": 0.2})
    return Bundle(bundle.spec.model_copy(update={"front": front}), bundle.network)


@pytest.mark.parametrize("where", ["onnxruntime", "openvino"])
def test_windows_of_any_length_run_there(where: str, adaptive: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (0.1, 0.3, 0.7, 2.5)
    ours = [adaptive(sound(seconds), RATE) for seconds in lengths]
    moved = adaptive.on(where)
    monkeypatch.setattr(adaptive.network, "forward", None)  # torch would fail
    for seconds, mine in zip(lengths, ours, strict=True):
        np.testing.assert_allclose(moved(sound(seconds), RATE).window_scores, mine.window_scores, atol=1e-4)
    together = moved.each([sound(seconds) for seconds in lengths], RATE, together=3)
    assert [one.labels for one in together] == [one.labels for one in ours]


@pytest.mark.parametrize("where", ["onnxruntime", "openvino"])
def test_a_graph_of_whole_windows_leaves_others_to_torch(where: str, bundle: Bundle, adaptive: Bundle) -> None:
    """As the eight bits of a bundle made before windows had lengths of their own."""
    ranges = {name: values.numpy() for name, values in runtime.probe_batch(bundle, 8).items()}
    old = Bundle(adaptive.spec, bundle.network, quantise.int8(runtime.graph(bundle), [ranges]))
    moved = old.on(where, "int8")
    ours, theirs = adaptive(sound(0.3), RATE), moved(sound(0.3), RATE)
    np.testing.assert_allclose(theirs.window_scores, ours.window_scores, atol=1e-6)
    assert moved(sound(2.5), RATE).status == "tagged"


def test_a_half_precision_that_was_never_tried_is_not_taken(adaptive: Bundle) -> None:
    """A record of clips that all were shorter than a window, from when these were left to torch: apart by nothing."""
    for largest, taken in ((0.0, False), (0.01, True)):
        found = Parity(runtime="openvino", precision="bf16", n_clips=9, changed=0, largest=largest)
        known = Bundle(adaptive.spec.model_copy(update={"runtimes": (found,)}), adaptive.network)
        assert (("openvino", "bf16") in runtime.trusted(known)) is taken
