"""Decisions under other thresholds, from the scores that tagging stored: nothing is decoded and no network is asked."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from instrunet import __version__
from instrunet.archive import books, units
from instrunet.bundle import SPEC_FILE, read_spec
from instrunet.bundle_spec import BundleSpec
from instrunet.config import canonical_json, fingerprint
from instrunet.data import parts
from instrunet.errors import ConfigError, DataError
from instrunet.rule import Rule


def keep_spec(out: Path, spec: BundleSpec) -> None:
    """What the scores in `out` were made by, and what may be decided anew: all of a bundle but its weights."""
    text = canonical_json(spec.model_dump(mode="json")) + "\n"
    parts.publish(out / SPEC_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def changed(spec: BundleSpec, threshold: float | None, of_label: Mapping[str, float] | None) -> BundleSpec:
    """The spec under another threshold: of every label, or of those named; of one label a clip, for its best score."""
    for value in [*(of_label or {}).values(), *([] if threshold is None else [threshold])]:
        if not (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1):
            raise ConfigError(f"a threshold is a number from 0 to 1, got {value!r}")
    tree = spec.model_dump()
    if threshold is not None and spec.kind == "single":
        tree["decisions"] = (tree["decisions"] or {}) | {"abstain_below": threshold}
    elif threshold is not None:
        tree["thresholds"] = [threshold] * len(spec.labels)
    if of_label is not None:
        tree["thresholds"] = _each(spec, of_label, tree["thresholds"] or [0.5] * len(spec.labels))
    return BundleSpec.model_validate(tree)


def run(out: Path, to: Path, threshold: float | None, of_label: Mapping[str, float] | None) -> dict[str, Any]:
    """The ledger of `to`, which gets recordings and intervals; the units stay in `out`."""
    if not parts.is_done(out):
        raise DataError(f"expected the finished tags of jobs/tag.py at {out}, found no {parts.DONE}; tag to the end")
    spec = changed(read_spec(out), threshold, of_label)
    claim = {"job": "retag", "tags": fingerprint(parts.read_json(out / parts.PLAN)), "bundle": spec.fingerprint()}
    parts.claim(to, claim | {"code": __version__})
    if parts.is_done(to):
        return parts.read_json(to / books.LEDGER)
    keep_spec(to, spec)
    return books.close(out, units.WorkList(out / units.WORK_LIST), Rule(spec), to)


def _each(spec: BundleSpec, of_label: Mapping[str, float], thresholds: list[float]) -> list[float]:
    if spec.kind == "single":
        raise ConfigError(
            "--thresholds is for bundles of several labels a clip; this one answers the best label alone: "
            "--threshold T leaves out answers whose score is below T"
        )
    for name in set(of_label) - set(spec.labels):
        near = get_close_matches(name, spec.labels, 1)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(spec.labels)}"
        raise ConfigError(f"the bundle knows no label {name!r}; {hint}")
    return [of_label.get(label, at) for label, at in zip(spec.labels, thresholds, strict=True)]
