"""What lies around the network in an exported graph: a sound is cut into windows, their scores become the sound's.

It says in ONNX what audio/windows.py and `Bundle.of_clip` say in Python.
Shapes: B sounds, T samples, W windows, N samples of a window, K labels, S segments of a curve.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.audio.windows import UNHEARD
from instrunet.bundle import Bundle

CUT = """
<ir_version: 8, opset_import: ["": {opset}]>
cut (float[sounds, samples] waveform) => (float[rows, {window}] windows) {{
    zero = Constant<value = int64[1] {{0}}>()
    one = Constant<value = int64[1] {{1}}>()
    window = Constant<value = int64[1] {{{window}}}>()
    hop = Constant<value = int64[1] {{{hop}}}>()
    unheard = Constant<value = int64[1] {{{unheard}}}>()
    most = Constant<value = int64[1] {{{most}}}>()
    rows = Constant<value = int64[2] {{-1, {window}}}>()
    n_sounds = Shape<start = 0, end = 1>(waveform)
    n_samples = Shape<start = 1, end = 2>(waveform)
    missing = Sub(window, n_samples)
    filled = Max(missing, zero)
    pads = Concat<axis = 0>(zero, filled)
    padded = Pad(waveform, pads, , one)
    n = Max(n_samples, window)
    room = Sub(n, window)
    hops = Div(room, hop)
    reached = Mul(hops, hop)
    rest = Sub(room, reached)
    unreached = Greater(rest, unheard)
    flush = Cast<to = 7>(unreached)
    regular = Add(hops, one)
    wanted = Add(regular, flush)
    n_windows = Min(wanted, most)
    zero_ = Squeeze(zero)
    one_ = Squeeze(one)
    n_windows_ = Squeeze(n_windows)
    number = Range(zero_, n_windows_, one_)
    begin = Mul(number, hop)
    start = Min(begin, room)
    starts = Unsqueeze(start, one)
    window_ = Squeeze(window)
    within = Range(zero_, window_, one_)
    place = Add(starts, within)
    cut = Gather<axis = 1>(padded, place)
    windows = Reshape(cut, rows)
}}
"""
JUDGE = """
<ir_version: 8, opset_import: ["": {opset}]>
judge (float[rows, {labels}] row_scores, float[sounds, samples] waveform) => (float[sounds, {labels}] scores) {{
    rest_labels = Constant<value = int64[2] {{-1, {labels}}}>()
    by_sound = Concat<axis = 0>(n_sounds, rest_labels)
    window_scores = Reshape(row_scores, by_sound)
    {mean} = ReduceMean<keepdims = 0>(window_scores, one)
    {bend}
}}
"""
BEND = """
    last = Constant<value = int64[1] {{-1}}>()
    bottom = Constant<value = float {{0.0}}>()
    top = Constant<value = float {{1.0}}>()
    apart = Unsqueeze(mean_scores, last)
    beyond = Sub(apart, curve_at)
    share = Div(beyond, curve_width)
    within_ = Clip(share, bottom, top)
    risen = Mul(within_, curve_rise)
    rise = ReduceSum<keepdims = 0>(risen, last)
    {bent} = Add(rise, curve_base)
    {shared}
"""
SHARED = """
    all_labels = ReduceSum<keepdims = 1>(bent_scores, last)
    scores = Div(bent_scores, all_labels)
"""


def around(bundle: Bundle, model: Any) -> None:
    """`model` is ONNX's, `windows` [rows, N] in and `row_scores` [rows, K] out; changed to waveforms in, scores out."""
    import onnx
    from onnx import numpy_helper

    front, n_labels = bundle.spec.front, len(bundle.spec.labels)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    most = 1 if front.long == "first" else 2**40
    unheard = math.floor(UNHEARD * front.window)
    numbers = {"opset": opset, "window": front.window, "hop": front.hop, "unheard": unheard, "most": most}
    before = onnx.parser.parse_model(CUT.format(**numbers)).graph
    after = onnx.parser.parse_model(_judge(bundle, opset, n_labels)).graph
    graph = model.graph
    nodes = [*before.node, *graph.node, *after.node]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(before.input)
    sounds = onnx.helper.make_tensor_value_info
    graph.output.append(sounds("scores", onnx.TensorProto.FLOAT, ["sounds", n_labels]))
    graph.output.append(sounds("window_scores", onnx.TensorProto.FLOAT, ["sounds", "windows_of_a_sound", n_labels]))
    for name, values in _curves(bundle).items():
        graph.initializer.append(numpy_helper.from_array(values, name))


def _judge(bundle: Bundle, opset: int, n_labels: int) -> str:
    curved, single = bool(bundle.decisions.isotonic), bundle.spec.kind == "single"
    bend = BEND.format(bent="bent_scores" if single else "scores", shared=SHARED if single else "")
    mean = "mean_scores" if curved else "scores"
    return JUDGE.format(opset=opset, labels=n_labels, mean=mean, bend=bend if curved else "")


def _curves(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Each curve as what it begins with [K] and how far it rises over each of its segments [K, S]."""
    curves = bundle.decisions.isotonic
    if not curves:
        return {}
    most = max(2, *(len(curve.at) for curve in curves))
    at = np.stack([np.pad(curve.at, (0, most - len(curve.at)), mode="edge") for curve in curves])
    to = np.stack([np.pad(curve.to, (0, most - len(curve.to)), mode="edge") for curve in curves])
    width = np.diff(at)
    width[width == 0] = 1.0  # what fills up a shorter curve rises by nothing
    found = {"curve_at": at[:, :-1], "curve_width": width, "curve_rise": np.diff(to), "curve_base": to[:, 0]}
    return {name: values.astype(np.float32) for name, values in found.items()}
