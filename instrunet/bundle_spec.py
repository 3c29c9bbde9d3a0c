"""What a bundle says of itself: all of `bundle.json`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from instrunet.config import Spec, fingerprint
from instrunet.decisions import Decisions
from instrunet.drift import Profile
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.models import ModelSpec


class Provenance(Spec):
    """Where a model comes from: enough to refuse a score on its own training data, and to make it again."""

    experiment: str = ""  # fingerprints
    manifest: str = ""
    corpus: str = ""
    seed: int = 0
    audit: str = ""  # "clean", or "leaky: " and why
    n_clips: dict[str, int] = {}
    group_keys: tuple[str, ...] = ()  # hashed recordings of training and validation
    clip_hashes: tuple[str, ...] = ()  # 16 digits of the sha256 of each of their files
    sample_hashes: tuple[str, ...] = ()  # and of the hash of the samples of each clip
    val_group_keys: tuple[str, ...] = ()  # those of `group_keys` that no weights were fitted on
    begun_with: tuple[str, ...] = ()  # fingerprints of parent and teachers, digest of unlabelled sound: theirs is above
    epoch: int | float = 0
    metrics: dict[str, float] = {}

    @property
    def leaky(self) -> str:
        """Why its scores flatter it; empty where nothing was found."""
        return self.audit.removeprefix("leaky: ") if self.audit.startswith("leaky") else ""


MEASURED = {"runtimes", "int8_sha256"}  # what was found of a bundle or made from it, and changes nothing of what it is
Precision = Literal["fp32", "bf16", "int8"]


class Parity(Spec):
    """A runtime beside PyTorch in fp32, on real clips: how far a score came to differ, how many decisions changed."""

    runtime: str
    precision: Precision
    n_clips: int
    changed: int
    largest: float


class BundleSpec(Spec):
    format: Literal[1] = 1
    kind: Literal["single", "multi"]
    labels: tuple[str, ...] = Field(min_length=2)
    front: FrontEnd
    model: ModelSpec
    statistics: Statistics
    profile: Profile | None = None  # None: the bundle is older than the drift guard
    temperature: float = Field(1.0, gt=0)
    thresholds: tuple[float, ...] = ()  # one a label, for `multi`; empty: 0.5 each
    decisions: Decisions | None = None  # None: not calibrated
    runtimes: tuple[Parity, ...] = ()  # measured; it changes nothing of what the bundle is, nor its fingerprint
    trained: Provenance = Provenance()
    weights_sha256: str = ""
    int8_sha256: str = ""  # of the network in eight bits, if it was quantised

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"each label may stand once; got {', '.join(self.labels)}")
        if self.thresholds and len(self.thresholds) != len(self.labels):
            raise ValueError(f"thresholds needs {len(self.labels)} numbers, one a label; got {len(self.thresholds)}")
        curves = self.decisions.isotonic if self.decisions else ()
        if curves and len(curves) != len(self.labels):
            raise ValueError(f"decisions.isotonic needs {len(self.labels)} curves, one a label; got {len(curves)}")
        for feature in self.front.features:
            if not (feature.name in self.statistics.mean and feature.name in self.statistics.std):
                raise ValueError(f"statistics needs the mean and std of {feature.name}, which front.features names")
        return self

    def fingerprint(self) -> str:
        """A bundle without decisions has the one that it had before there were any."""
        tree = self.model_dump(mode="json", exclude=MEASURED)
        return fingerprint(tree if self.decisions else {k: v for k, v in tree.items() if k != "decisions"})
