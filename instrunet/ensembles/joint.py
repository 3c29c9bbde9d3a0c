"""The front end of several bundles: all that any of them hears, computed once, and which bands of it are whose.

Windows are the same for all; a feature that two of them hear is one and the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from instrunet.bundle import Bundle
from instrunet.errors import ConfigError
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models import inputs_of
from instrunet.training.start import check_front

Bands = tuple[tuple[int, int], ...]  # rows of the picture in which features are stacked, from and up to


@dataclass(frozen=True)
class Member:
    path: Path
    bundle: Bundle

    @property
    def said(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Joint:
    front: FrontEnd
    statistics: Statistics
    bands: tuple[Bands, ...]  # of each member; none where all hear all


def joint(members: Sequence[Member]) -> Joint:
    """Of members whose features do not contradict each other, or the reason why they cannot be heard together."""
    first = members[0].bundle.spec
    heard: dict[str, Member] = {}
    for one in members:
        own = one.bundle.spec.front
        check_front(own.model_copy(update={"features": first.front.features}), first.front, one.said)
        for feature in own.features:
            _check_alike(feature.name, one, heard.setdefault(feature.name, one))
    named = {name: one.bundle.spec for name, one in heard.items()}
    features = [_alone(spec.front, name).features[0].model_dump(mode="json") for name, spec in named.items()]
    tree = first.front.model_dump(mode="json") | {"features": features}
    front = FrontEnd.parse(tree, "what the bundles hear together")
    inputs_of(first.model, front)
    statistics = Statistics(
        mean={name: spec.statistics.mean[name] for name, spec in named.items()},
        std={name: spec.statistics.std[name] for name, spec in named.items()},
        n_windows=first.statistics.n_windows,
    )
    return Joint(front, statistics, _bands(front, [one.bundle.spec.front for one in members]))


def _check_alike(name: str, one: Member, other: Member) -> None:
    ours, theirs = one.bundle.spec, other.bundle.spec
    check_front(_alone(ours.front, name), _alone(theirs.front, name), one.said)
    pairs = [(s.statistics.mean[name], s.statistics.std[name]) for s in (ours, theirs)]
    if pairs[0] != pairs[1]:
        raise ConfigError(
            f"{one.said} was trained on other clips than {other.said}: the statistics that normalise its {name} are "
            "others; combine bundles of one training split"
        )


def _alone(front: FrontEnd, name: str) -> FrontEnd:
    return front.model_copy(update={"features": tuple(one for one in front.features if one.name == name)})


def _bands(front: FrontEnd, own: Sequence[FrontEnd]) -> tuple[Bands, ...]:
    if all(one.features == front.features for one in own):
        return ()
    heights = [n_bands for n_bands, _ in front.shapes().values()]
    stops = dict(zip(front.shapes(), accumulate(heights), strict=True))
    starts = dict(zip(front.shapes(), accumulate([0, *heights[:-1]]), strict=True))
    return tuple(tuple((starts[f.name], stops[f.name]) for f in one.features) for one in own)
