"""A bundle calibrated on clips that no weights were fitted on: the same network with other decisions, a new bundle."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrunet import experiment
from instrunet.bundle import Bundle
from instrunet.bundle_files import publish
from instrunet.bundle_spec import BundleSpec, Provenance
from instrunet.calibrate import Asked, Heard, decided
from instrunet.data import manifest
from instrunet.data.relabel import Relabel
from instrunet.decisions import Fitted
from instrunet.errors import ConfigError, DataError
from instrunet.experiment import Experiment
from instrunet.scoring import Scored, truth_of
from instrunet.thresholds import ThresholdRule
from pipelines import audit, features, journal, validated
from pipelines.console import note, result
from pipelines.tracking import Tracker

ASKED = {"parent", "corpus", "method", "thresholds", "max_risk", "n_clips", "n_groups"}


def run(args: argparse.Namespace) -> Path:
    """Fit on the validation split of `args.config` and write the bundle to `args.out`."""
    bundle = Bundle.load(args.bundle)
    asked = Asked(args.method, args.thresholds, args.max_risk)
    _check(bundle.spec, asked, args.out)
    spec = experiment.load(args.config, args.overrides)
    frame = features.read_manifest(spec)
    rows = frame[frame["split"] == validated.SPLIT]
    _refuse(validated.why_not(bundle, rows, {}))  # before any work; what is heard in it is told behind
    _check_labels(bundle.spec, rows)
    recipe = features.Recipe(bundle.spec.front, spec.copies)
    folder = features.prepare(frame, recipe, spec.out, spec.cluster, spec.max_bad_fraction, args.verbose)
    scored, reason = validated.scored(bundle, frame, folder, Relabel())
    _refuse(reason)
    assert scored, "what is not scored has a reason"
    corpus, digest = str(scored.clips["corpus"].iloc[0]), manifest.digest(rows)
    made, notes = decided(bundle.spec, _heard(bundle, scored), asked, corpus, digest)
    hashes = audit.hashes_of(audit.prints_of(folder))
    made = made.model_copy(update={"trained": heard_too(bundle.spec.trained, rows, hashes), "runtimes": ()})
    publish(Bundle(made, bundle.network).save, args.out)
    _record(args.bundle, made, spec)
    for text in notes:
        note(f"note: {text}")
    _summary(made)
    out: Path = args.out
    return out


def _check(spec: BundleSpec, asked: Asked, out: Path) -> None:
    if asked.thresholds and spec.kind == "single":
        raise ConfigError(
            "--thresholds are for a model that gives several labels, and this one gives the best; "
            "--max-risk says below which score it should give none"
        )
    if asked.thresholds:
        ThresholdRule.parse(asked.thresholds)
    if asked.max_risk is not None and not 0 <= asked.max_risk < 1:
        raise ConfigError(f"expected --max-risk from 0 to below 1, got {asked.max_risk:g}; 0.05 is 1 label in 20")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"expected nothing at {out}, where the new bundle goes, and found something; give another --out"
        )


def _check_labels(spec: BundleSpec, rows: pd.DataFrame) -> None:
    unknown = sorted(set(manifest.labels_of(rows)) - set(spec.labels))
    if unknown:
        raise DataError(
            f"the data has labels the bundle does not know: {', '.join(unknown)}; it knows {', '.join(spec.labels)}: "
            "calibrate on data of these classes"
        )
    several = rows.loc[rows["labels"].map(len) != 1, "uri"]
    if spec.kind == "single" and len(several):
        raise DataError(
            f"the bundle gives one label a clip, {several.iloc[0]} has another number of them ({len(several)} such "
            "clips); calibrate on clips of one label"
        )


def _refuse(reason: str) -> None:
    if reason:
        raise DataError(
            f"{reason}: what is fitted there says nothing of other recordings; calibrate on the CONFIG that the bundle "
            "was trained with, whose validation split it has not learnt from, or on recordings that it never heard"
        )


def _heard(bundle: Bundle, scored: Scored) -> Heard:
    ids, groups = np.array(scored.clip_ids, object), scored.clips["group"].to_numpy(object)
    return Heard(bundle.spec.kind, scored.logits, ids, truth_of(bundle, scored), groups)


def heard_too(trained: Provenance, rows: pd.DataFrame, hashes: dict[str, str]) -> Provenance:
    """With the clips of the fit as ones it was validated on: no score on them is honest any more."""
    keys, ids = manifest.group_keys(rows), set(rows["clip_id"])
    more: dict[str, set[str]] = {
        "group_keys": keys,
        "val_group_keys": keys,
        "clip_hashes": {h[:16] for h in rows["sha256"] if h},
        "sample_hashes": {hash_ for name, hash_ in hashes.items() if name in ids},
    }
    update: dict[str, Any] = {name: tuple(sorted({*getattr(trained, name), *new})) for name, new in more.items()}
    return trained.model_copy(update=update)


def _record(bundle: Path, made: BundleSpec, spec: Experiment) -> None:
    """A run of its own below that of the bundle's training, where that is known: what was fitted, what it changed."""
    home = bundle.absolute().parent
    if not (home / journal.NAME).is_file():
        return
    name = made.fingerprint()
    place, parent = home / "calibrated" / name[:8], journal.Journal(home).header.get("key")
    with Tracker(spec.tracking, place, spec.out, f"{home.name}-calibrated", parent=parent) as tracker:
        tracker.params({"calibration": _fitted(made).model_dump(mode="json", include=ASKED)})
        tracker.metrics(0, _numbers(made))
        tracker.tags({"instrunet.calibrated": name, "audit": made.trained.audit})
    if tracker.pending:
        note(f"{tracker.pending} tracked lines wait for MLflow; push them with jobs/sync.py {spec.out}")


def _fitted(made: BundleSpec) -> Fitted:
    assert made.decisions and made.decisions.fitted
    return made.decisions.fitted


def _numbers(made: BundleSpec) -> dict[str, float]:
    said = _fitted(made)
    found = {"temperature": made.temperature, "coverage": said.coverage, "risk": said.risk}
    found |= {"abstain_below": made.decisions.abstain_below} if made.decisions else {}
    found |= {"ece_before": said.before.ece, "brier_before": said.before.brier}
    if said.after:
        found |= {"ece_after": said.after.ece, "brier_after": said.after.brier}
    thresholds = zip(made.labels, made.thresholds, strict=False)  # none where the best label decides
    return found | {f"threshold_{label}": value for label, value in thresholds}


def _summary(spec: BundleSpec) -> None:
    said = _fitted(spec)
    leaky = "LEAKY: " if spec.trained.leaky else ""
    how = f"temperature {spec.temperature:.3f}" if said.method == "temperature" else "a curve for each label"
    result(f"{leaky}calibrated on {said.n_clips} clips of {said.n_groups} groups ({said.corpus}): {how}")
    if said.after:
        old, new = said.before, said.after
        changes = f"ECE {old.ece:.3f} -> {new.ece:.3f}, Brier {old.brier:.3f} -> {new.brier:.3f}"
        result(f"{leaky}{changes} on clips of groups left out of the fit")
    else:
        note("note: one group alone: what the fit brings on other recordings cannot be said")
    if spec.thresholds:
        pairs_ = ", ".join(f"{label} {t:.2f}" for label, t in zip(spec.labels, spec.thresholds, strict=True))
        result(f"{leaky}thresholds by {said.thresholds}: {pairs_}")
    if said.max_risk is not None:
        share = f"{said.coverage:.1%} of these clips are answered, {said.risk:.3f} of the labels wrong"
        result(f"{leaky}no answer below {_numbers(spec)['abstain_below']:.3f}: {share}")
