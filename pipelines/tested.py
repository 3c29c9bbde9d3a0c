"""A training and what its bundle says of its own test split; and several of them as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from instrunet.bundle import Bundle
from instrunet.data import manifest
from instrunet.experiment import Experiment
from instrunet.features import shards
from instrunet.scoring import MAIN, Judgement, judge, score, told
from pipelines import beside, features
from pipelines.console import note


@dataclass(frozen=True)
class Tested:
    """A training and what its bundle says of its own test split."""

    bundle: Path
    audit: str
    n_clips: dict[str, int]  # of each split
    clips: pd.DataFrame
    judgement: Judgement

    @property
    def n_groups(self) -> int:
        return int(self.clips["group"].nunique())

    @property
    def leaky(self) -> bool:
        return self.audit.startswith("leaky")

    @property
    def kind(self) -> str:
        return "LEAKY" if self.leaky else "held-out"

    @property
    def size(self) -> str:
        return f"{len(self.clips)} clips, {self.n_groups} groups"

    @property
    def figures(self) -> str:
        """For the console."""
        metrics, kind = self.judgement.metrics(), self.judgement.kind
        names = ("accuracy" if kind == "single" else "micro_f1", MAIN[kind])
        return ", ".join(f"{name.replace('_', ' ')} {told(metrics, name)}" for name in names)

    def row(self) -> dict[str, Any]:
        """For the record: the main figure, and of what."""
        metrics, name = self.judgement.metrics(), MAIN[self.judgement.kind]
        return {
            "value": metrics[name],
            "interval": metrics["intervals"].get(name),
            "n": len(self.clips),
            "n_groups": self.n_groups,
            "n_clips": self.n_clips,
            "leaky": self.leaky,
            "audit": self.audit,
            "bundle": str(self.bundle),
        }


def train_and_test(specs: Sequence[Experiment], verbose: bool, folder: Path | None = None) -> list[Tested]:
    """Of each of them, trained side by side where there is room. `folder` holds the features of the first."""
    folders = [folder if folder and not n else features.run(spec, verbose) for n, spec in enumerate(specs)]
    bundles = beside.run(specs, folders, verbose)
    return [_test(*one) for one in zip(bundles, folders, strict=True)]


def _test(path: Path, folder: Path) -> Tested:
    bundle = Bundle.load(path)
    frame = manifest.load(folder / manifest.FILE)
    scored = score(bundle, shards.load(folder, bundle.spec.front, "test"))
    n_clips = {str(name): int(n) for name, n in frame["split"].value_counts().items()}
    if len(scored.clips) < n_clips.get("test", 0):
        note(f"{n_clips['test'] - len(scored.clips)} clips to be tested gave no sound and are not scored: see {folder}")
    return Tested(path, bundle.spec.trained.audit, n_clips, scored.clips, judge(bundle, scored))


def pooled_of(tested: Sequence[Tested]) -> Tested:
    """Every clip by the bundle that had not heard it. Of several labels, scores move so that 0.5 is each threshold."""
    ours = [one.judgement for one in tested]
    single = ours[0].kind == "single"
    moved = [one.scores if single else one.scores + (0.5 - one.thresholds) for one in ours]
    whole = replace(
        ours[0],
        truth=np.concatenate([one.truth for one in ours]),
        scores=np.concatenate(moved),
        thresholds=np.full_like(ours[0].thresholds, 0.5),
        answered=None,
        chances=single or all((one.thresholds == 0.5).all() for one in ours),
        groups=tuple(group for one in ours for group in one.groups),
    )
    leaks = [f"fold {n}: {one.audit}" for n, one in enumerate(tested, 1) if one.leaky]
    clips = pd.concat([one.clips for one in tested], ignore_index=True)
    return Tested(Path(), f"leaky: {'; '.join(leaks)}" if leaks else "clean", {}, clips, whole)


def scores_of(tested: Sequence[Tested]) -> pa.Table:
    tables = [
        pa.table(
            {
                "clip_id": pa.array(one.clips["clip_id"], pa.string()),
                "uri": pa.array(one.clips["uri"], pa.string()),
                "group": pa.array(one.clips["group"], pa.string()),
                "fold": pa.array([number] * len(one.clips), pa.int32()),
                "labels": pa.array([list(names) for names in one.clips["labels"]], pa.list_(pa.string())),
                "scores": pa.array(one.judgement.scores.tolist(), pa.list_(pa.float64())),
            }
        )
        for number, one in enumerate(tested, 1)
    ]
    return pa.concat_tables(tables)
