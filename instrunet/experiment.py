"""The experiment: the tree that one YAML file describes. It only composes specs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from instrunet.augment.copies import CopiesSpec
from instrunet.config import Spec, fingerprint, load_tree
from instrunet.data.audit import AuditSpec
from instrunet.data.corpora import CorpusSpec, SynthCorpusSpec
from instrunet.data.places import Place
from instrunet.data.split import SplitSpec
from instrunet.features.featurizer import FrontEnd
from instrunet.models import ModelSpec, without_weights
from instrunet.models.adversarial import DomainSpec
from instrunet.models.distill import DistillSpec
from instrunet.models.seed_cnn import Task8Spec
from instrunet.search.spec import SearchSpec
from instrunet.tasks import TASKS, Task
from instrunet.training.optim import TrainSpec


class ClusterSpec(Spec):
    """What is asked of Ray. Only `workers` changes a result: it says which rows share a batch norm."""

    workers: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)
    cpus_per_worker: float = Field(1, gt=0)
    max_failures: int = Field(3, ge=0)
    decode_wait_s: float = Field(30.0, gt=0)  # a decoder that takes longer for a clip is stopped
    num_cpus: int | None = Field(None, ge=1)  # logical CPUs of a local Ray; None: the machine's, but at least 4


class TrackingSpec(Spec):
    """Where a run is tracked. Without `uri` and MLFLOW_TRACKING_URI: OUT/mlflow.db and OUT/mlartifacts, no server."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "instrunet"
    model: str | None = None  # the registered model's name; None: the run's name
    alias: str = "challenger"


class Experiment(Spec):
    name: str = Field("experiment", pattern=r"^[a-z0-9][a-z0-9._-]{0,40}$")
    out: Place = Path("runs")
    task: str = "any"
    data: CorpusSpec = SynthCorpusSpec()
    split: SplitSpec = SplitSpec()
    copies: CopiesSpec = CopiesSpec()
    audit: AuditSpec = AuditSpec()
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    front: FrontEnd = FrontEnd()
    model: ModelSpec = Task8Spec()
    train: TrainSpec = TrainSpec()
    distill: DistillSpec | None = None
    domain: DomainSpec | None = None
    cluster: ClusterSpec = ClusterSpec()
    tracking: TrackingSpec = TrackingSpec()
    tune: SearchSpec | None = None

    @model_validator(mode="after")
    def _task_is_known(self) -> Self:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}; got {self.task!r}")
        return self

    @model_validator(mode="after")
    def _model_can_be_built(self) -> Self:
        """Before an hour of featurizing: it reads these features, and their grid is large enough."""
        without_weights(self.model, self.front, n_labels=2)
        return self

    @model_validator(mode="after")
    def _what_chooses_has_something_to_choose_by(self) -> Self:
        if not self.split.val and (self.tune or not self.train.chooses_nothing):
            asks = "tune" if self.tune else f"train.keep={self.train.keep} with train.schedule={self.train.schedule}"
            raise ValueError(
                f"split.val=0 leaves no clips to choose by, which {asks} needs: set split.val=0.15, or train.keep=last "
                "and train.schedule=cosine or one_cycle, without a search"
            )
        return self

    @property
    def the_task(self) -> Task:
        return TASKS[self.task]

    def begins_with(self) -> list[tuple[str, Path]]:
        """(how it is written, bundle) of the parent and the teachers."""
        teachers = self.distill.teacher if self.distill else ()
        parent = [("train.init_from", self.train.init_from)] if self.train.init_from else []
        return [(f"{key}={path}", path) for key, path in (*parent, *(("distill.teacher", path) for path in teachers))]

    def run_fingerprint(self) -> str:
        """Of all that decides the result; where it is written and how it is recorded does not.

        Bundles and unlabelled sound to begin with count by what they are, wherever they lie: `Provenance.begun_with`.
        """
        tree = self.model_dump(mode="json", exclude={"out", "tracking", "tune", "audit"})
        tree["cluster"] = {"workers": self.cluster.workers}
        tree["data"].pop("root", None)  # the manifest's digest speaks for the sound, and for its split
        tree["split"].pop("keep_together")
        tree["train"].pop("feed")
        if self.train.cycles == 1:  # as it was before there were cycles
            tree["train"].pop("cycles")
        if not self.copies.lists:  # an experiment without any is the one that it was before there were copies
            tree.pop("copies")
        if self.domain:
            tree["domain"].pop("target")
        if self.distill:
            tree["distill"].pop("teacher")
        if self.train.init_from:
            tree["train"]["init_from"] = "a bundle"
        else:
            tree["train"].pop("init_from"), tree["train"].pop("transfer")
        for key in ("distill", "domain"):
            if tree[key] is None:
                tree.pop(key)
        return fingerprint(tree)


def load(path: Path | str, overrides: Iterable[str] = ()) -> Experiment:
    """A configuration file, its overrides applied.

    `model: task8` is short for `model: {name: task8}`; fields without a name are those of the default.
    """
    tree = load_tree(path, overrides)
    for key in ("model", "data"):
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
        elif isinstance(tree.get(key), dict):
            tree[key] = {"name": Experiment.model_fields[key].default.name} | tree[key]
    return Experiment.parse(tree, str(path))
