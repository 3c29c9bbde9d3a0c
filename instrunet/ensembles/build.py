"""From bundles and their scores to one bundle that loads, tags, exports and calibrates like any other.

Shapes: M members, W windows, C clips, K labels.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch

from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec, Provenance
from instrunet.ensembles.joint import Member, joint
from instrunet.ensembles.mix import Mix, Voices
from instrunet.errors import ConfigError, DataError
from instrunet.models import NUMBER_MODELS, Network
from instrunet.models.combined import Combined, CombinedSpec
from instrunet.scoring import Scored, truth_of
from instrunet.training.start import check_labels

SPEED_WINDOWS, SPEED_TRIES = 16, 5


def check(members: Sequence[Member]) -> None:
    """They answer with the same labels, on features that can be computed together, normalised alike."""
    if len(members) < 2:
        raise ConfigError(f"expected two bundles or more to combine, got {len(members)}; name another")
    first = members[0].bundle.spec
    for one in members:
        spec = one.bundle.spec
        if spec.model.name in (*NUMBER_MODELS, "combined"):
            raise ConfigError(f"{one.said} is a {spec.model.name}, which cannot be combined; give networks of pictures")
        check_labels(spec, first, one.said)
    joint(members)


def voices_of(members: Sequence[Member], scored: Sequence[Scored]) -> Voices:
    """`scored` is what each says of the same clips."""
    first = scored[0]
    names = list(first.clips["clip_id"])
    place = {name: k for k, name in enumerate(names)}
    for one, member in zip(scored, members, strict=True):
        if list(one.clip_ids) != list(first.clip_ids):
            raise DataError(f"{member.said} hears other windows of the clips than {members[0].said}; leave it out")
    said = [np.asarray(one.logits, float) / m.bundle.spec.temperature for m, one in zip(members, scored, strict=True)]
    return Voices(
        members[0].bundle.spec.kind,
        np.stack(said),
        np.array([place[name] for name in first.clip_ids]),
        truth_of(members[0].bundle, first),
        tuple(first.clips["group"]),
    )


def combined(members: Sequence[Member], mix: Mix, trained: Provenance) -> Bundle:
    """Those without a weight are left out. Decisions are fitted behind it: its scores are others than its members'."""
    weights = mix.weights
    kept = range(len(members)) if weights is None else [k for k, w in enumerate(weights) if w > 0]
    specs, heard = [members[k].bundle.spec for k in kept], joint([members[k] for k in kept])
    first = specs[0]
    model = CombinedSpec(
        kind=first.kind,
        members=tuple(spec.model for spec in specs),  # `check` has refused the others
        temperatures=tuple(spec.temperature for spec in specs),
        weights=() if weights is None else tuple(float(weights[k]) for k in kept),
        bands=heard.bands,
    )
    spec = BundleSpec(
        kind=first.kind,
        labels=first.labels,
        front=heard.front,
        model=model,
        statistics=heard.statistics,
        profile=first.profile,
        trained=trained,
    )
    network = Network(model, spec.front, spec.statistics, len(spec.labels))
    body = network.body
    assert isinstance(body, Combined)
    for number, k in enumerate(kept):
        body.take(number, members[k].bundle.network.body)
    stack = body.head.stack
    if mix.matrix is not None and mix.bias is not None:
        stack.load_state_dict({"weight": torch.tensor(mix.matrix).float(), "bias": torch.tensor(mix.bias).float()})  # type: ignore[union-attr]
    return Bundle(spec, network)


def ms_per_window(bundle: Bundle) -> float:
    """Of the network alone, in batches: the features are the same for all. The quickest of some tries."""
    shapes = bundle.spec.front.shapes()
    features = {name: torch.zeros(SPEED_WINDOWS, *shape) for name, shape in shapes.items()}
    took = []
    for _ in range(SPEED_TRIES):
        began = time.perf_counter()
        bundle.predict(features, SPEED_WINDOWS)
        took.append(time.perf_counter() - began)
    return 1000 * min(took) / SPEED_WINDOWS
