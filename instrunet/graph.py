"""What lies around the network in an exported graph: a sound is cut into windows, their scores become the sound's.

It says in ONNX what audio/trim.py, audio/windows.py, the levels of `Featurizer` and `Bundle.of_clip` say in Python.
Shapes: B sounds, T samples, W windows, N samples of a window, K labels, S segments of a curve.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrunet.audio import trim
from instrunet.audio.io import QUIET
from instrunet.audio.windows import UNHEARD
from instrunet.bundle import Bundle
from instrunet.features.featurizer import FrontEnd

CUT = """
<ir_version: 8, opset_import: ["": {opset}]>
cut (float[{sounds}, samples] waveform) => (float[rows, {length}] windows) {{
    zero = Constant<value = int64[1] {{0}}>()
    one = Constant<value = int64[1] {{1}}>()
    last = Constant<value = int64[1] {{-1}}>()
    zero_ = Squeeze(zero)
    one_ = Squeeze(one)
    whole = Constant<value = int64[1] {{{window}}}>()
    hop = Constant<value = int64[1] {{{hop}}}>()
    unheard = Constant<value = int64[1] {{{unheard}}}>()
    most = Constant<value = int64[1] {{{most}}}>()
    n_sounds = Shape<start = 0, end = 1>(waveform)
    {trim}
    n_samples = Shape<start = 1, end = 2>(sound)
    {own}
    missing = Sub(window, n_samples)
    filled = Max(missing, zero)
    pads = Concat<axis = 0>(zero, filled)
    padded = Pad(sound, pads, , one)
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
    n_windows_ = Squeeze(n_windows)
    number = Range(zero_, n_windows_, one_)
    begin = Mul(number, hop)
    start = Min(begin, room)
    starts = Unsqueeze(start, one)
    window_ = Squeeze(window)
    within = Range(zero_, window_, one_)
    place = Add(starts, within)
    taken = Gather<axis = 1>(padded, place)
    as_rows = Concat<axis = 0>(last, window)
    plain = Reshape(taken, as_rows)
    {level}
    {least}
}}
"""
# As audio/trim.py: the energy of hops, summed over the four that a frame has, from the first to the last that is loud
TRIM = """
    trim_hop = Constant<value = int64[1] {{{trim_hop}}}>()
    trim_kept = Constant<value = int64[1] {{{trim_kept}}}>()
    trim_share = Constant<value = double {{{trim_share}}}>()
    trim_sides = Constant<value = int64[2] {{{side}, {side_less}}}>()
    all_samples = Shape<start = 1, end = 2>(waveform)
    whole_hops = Div(all_samples, trim_hop)
    all_hops = Add(whole_hops, one)
    up_to = Mul(all_hops, trim_hop)
    behind = Sub(up_to, all_samples)
    behind_pads = Concat<axis = 0>(zero, behind)
    whole_sound = Pad(waveform, behind_pads, , one)
    as_hops = Concat<axis = 0>(last, trim_hop)
    by_hop = Reshape(whole_sound, as_hops)
    wide = Cast<to = 11>(by_hop)
    squared = Mul(wide, wide)
    energy = ReduceSum<keepdims = 0>(squared, one)
    beyond_ends = Pad(energy, trim_sides)
    all_hops_ = Squeeze(all_hops)
    hop_number = Range(zero_, all_hops_, one_)
    hop_column = Unsqueeze(hop_number, one)
    frame_hop = Constant<value = int64[{n_frame}] {{{frame}}}>()
    hops_of_frame = Add(hop_column, frame_hop)
    by_frame = Gather(beyond_ends, hops_of_frame)
    power = ReduceSum<keepdims = 0>(by_frame, one)
    loudest = ReduceMax<keepdims = 0>(power, zero)
    loud_from = Mul(loudest, trim_share)
    too_quiet = Less(power, loud_from)
    loud_enough = Not(too_quiet)
    loud_hops = NonZero(loud_enough)
    first_loud = ReduceMin<keepdims = 0>(loud_hops, one)
    last_loud = ReduceMax<keepdims = 0>(loud_hops, one)
    first_sample = Mul(first_loud, trim_hop)
    sooner = Sub(first_sample, trim_kept)
    trim_first = Max(sooner, zero)
    next_hop = Add(last_loud, one)
    next_sample = Mul(next_hop, trim_hop)
    later = Add(next_sample, trim_kept)
    trim_stop = Min(later, all_samples)
    sound = Slice(waveform, trim_first, trim_stop, one)
"""
OWN = """
    some = Max(n_samples, one)
    window = Min(whole, some)
"""
LEVEL = """
    heights = Abs(plain)
    peak = ReduceMax<keepdims = 1>(heights, last)
    {loud}
    level_least = Constant<value = float {{{quiet}}}>()
    divisor = Max(loud, level_least)
    loud_rows = Div(plain, divisor)
    is_quiet = Less(peak, level_least)
    levelled = Where(is_quiet, plain, loud_rows)
"""
RMS = """
    powers = Mul(plain, plain)
    mean_power = ReduceMean<keepdims = 1>(powers, last)
    root = Sqrt(mean_power)
    ten = Constant<value = float {{10.0}}>()
    loud = Mul(root, ten)
"""
LEAST = """
    least = Constant<value = int64[1] {{{least}}}>()
    lacking = Sub(least, window)
    lacked = Max(lacking, zero)
    least_pads = Concat<axis = 0>(zero, lacked)
    windows = Pad(levelled, least_pads, , one)
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
    """`model` is ONNX's, levelled `windows` [rows, N] in, `row_scores` [rows, K] out; now waveforms in, scores out."""
    import onnx
    from onnx import numpy_helper

    front, n_labels = bundle.spec.front, len(bundle.spec.labels)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    before = onnx.parser.parse_model(_cut(front, opset)).graph
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


def _cut(front: FrontEnd, opset: int) -> str:
    adaptive, rate = front.length == "adaptive", front.sample_rate
    frame = range(2 * trim.SIDE)
    trimmed = TRIM.format(
        trim_hop=round(trim.HOP_S * rate),
        trim_kept=round(trim.KEPT_S * rate),
        trim_share=repr(10 ** (-(front.trim_db or 0.0) / 10)),
        side=trim.SIDE,
        side_less=trim.SIDE - 1,
        n_frame=len(frame),
        frame=", ".join(map(str, frame)),
    )
    loud = {"peak": "loud = Identity(peak)", "rms": RMS.format()}.get(front.level)
    return CUT.format(
        opset=opset,
        sounds="sounds" if front.trim_db is None else 1,  # each sound has ends of its own
        length="heard" if adaptive else front.window,
        window=front.window,
        hop=front.hop,
        unheard=math.floor(UNHEARD * front.window),
        most=1 if front.long == "first" else 2**40,
        trim="sound = Identity(waveform)" if front.trim_db is None else trimmed,
        own=OWN.format() if adaptive else "window = Identity(whole)",
        level=LEVEL.format(loud=loud, quiet=QUIET) if loud else "levelled = Identity(plain)",
        least=LEAST.format(least=front.least) if adaptive else "windows = Identity(levelled)",
    )


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
