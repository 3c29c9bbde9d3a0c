"""Several bundles as one: the way to hear them is found on validation, judged on groups left out, and tested once.

DIR/bundle/        loads, tags, exports and calibrates like any other
DIR/ensemble.json  each member and each way: out-of-fold and test figures, gain over the best member, size and speed
DIR/index.html     the same as a page, with score over cost
"""

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrunet import experiment
from instrunet.bundle import Bundle
from instrunet.bundle_files import publish
from instrunet.bundle_spec import Provenance
from instrunet.data import manifest, parts
from instrunet.data.relabel import Relabel
from instrunet.ensembles import build, mix
from instrunet.ensembles.joint import Member, joint
from instrunet.ensembles.mix import METHODS, Mix, Voices
from instrunet.errors import ConfigError, DataError
from instrunet.models import n_parameters
from instrunet.report import ensemble as page
from instrunet.scoring import MAIN
from instrunet.search.summary import STUDY, TRIALS
from instrunet.training import checkpoints
from instrunet.training.state import BUNDLE_FOLDER, SNAPSHOTS
from pipelines import audit, features, lineage, sides, trials, validated
from pipelines.calibrate import heard_too
from pipelines.console import note, result
from pipelines.lineage import Ancestor
from pipelines.sides import Question, Side, Target

BUNDLE, RECORD, SCHEMA = "bundle", "ensemble.json", 1
OURS = {BUNDLE, RECORD, page.PAGE}
TEST = "test"


@dataclass(frozen=True)
class Way:
    """A member, or a way to hear them all: its figure on groups that its fit had not seen."""

    name: str
    bundle: Bundle
    path: Path
    validation: float


def run(args: argparse.Namespace) -> Path:
    """Combine `args.bundles` by the clips of `args.config`."""
    page.require()
    methods, out = mix.asked(args.method), Path(args.out)
    _check_folder(out)
    members = _members(args.bundles)
    build.check(members)
    spec = experiment.load(args.config, args.overrides)
    frame = features.read_manifest(spec)
    rows = frame[frame["split"] == validated.SPLIT]
    for one in members:
        _refuse(one, validated.why_not(one.bundle, rows, {}))
    scored, first = [], members[0].bundle.spec.front
    for one in members:
        front = first.model_copy(update={"features": one.bundle.spec.front.features})  # the windows of the first
        recipe = features.Recipe(front, spec.copies)
        folder = features.prepare(frame, recipe, spec.out, spec.cluster, spec.max_bad_fraction, args.verbose)
        found, reason = validated.scored(one.bundle, frame, folder, Relabel())
        _refuse(one, reason)
        assert found, "what is not scored has a reason"
        scored.append(found)
    voices = build.voices_of(members, scored)
    trained = _trained(members, heard_too(Provenance(), rows, audit.hashes_of(audit.prints_of(folder))))
    ways = _ways(members, voices, methods, trained)
    target = Target(frame, spec.out, spec.cluster, spec.tracking, spec.audit.allow_leaks, spec.copies)
    table = _table(ways, target, args.verbose)
    best = max(ways[len(members) :], key=lambda way: way.validation)
    out.mkdir(parents=True, exist_ok=True)
    publish(best.bundle.save, out / BUNDLE)
    record = _record(members, table, best, voices, manifest.digest(rows))
    parts.write_json(out / RECORD, record)
    page.write(record, out)
    _say(record)
    return out / BUNDLE


def _members(paths: list[Path]) -> list[Member]:
    """A run with snapshots stands for these; a study for its trials, the best first: those that can be heard together
    with the ones before them."""
    found: list[Member] = []
    for path in paths:
        if (path / SNAPSHOTS).is_dir():
            found += [Member(one, Bundle.load(one)) for one in sorted((path / SNAPSHOTS).glob("cycle-*"), key=_cycle)]
            continue
        if not (path / STUDY).is_file():
            found.append(Member(path, Bundle.load(path)))
            continue
        rows = [row for row in parts.read_rows(path / TRIALS) if row["status"] != "failed"]
        newest = [checkpoints.newest(path / trials.CHECKPOINTS / row["trial"]) for row in rows]
        all_ = [Member(one / BUNDLE_FOLDER, Bundle.load(one / BUNDLE_FOLDER)) for one in newest if one]
        same: list[Member] = []
        for one in all_:
            with suppress(ConfigError):
                joint([*same, one])
                same.append(one)
        note(f"{path}: {len(same)} of {len(all_)} trials can be heard together with its best")
        found += same
    return found


def _cycle(snapshot: Path) -> int:
    return int(snapshot.name.split("-")[1])


def _ways(members: list[Member], voices: Voices, methods: tuple[str, ...], trained: Provenance) -> list[Way]:
    """Members, whose figures need no fit, and what is made of them."""
    alone = zip(members, voices.chances, strict=True)
    ways = [Way(_name(one), one.bundle, one.path, mix.figure(chances, voices)) for one, chances in alone]
    for method in methods:
        fitted: Mix = METHODS[method](voices)
        made = build.combined(members, fitted, trained)
        ways.append(Way(method, made, Path(method), mix.out_of_fold(voices, method)))
    return ways


def _table(ways: list[Way], target: Target, verbose: bool) -> list[dict[str, Any]]:
    rows = []
    for way in ways:
        size = n_parameters(way.bundle.network)
        row = {"name": way.name, "bundle": str(way.path), "validation": way.validation, "n_parameters": size}
        rows.append(row | {"ms_per_window": build.ms_per_window(way.bundle), "test": None, "gain": None})
    if not (target.frame["split"] == TEST).any():
        note("note: the data has no test split: what the choice is worth on other clips is not known")
        return rows
    asked = Question(target, sides.of_split(target.frame, TEST), Relabel(), target.allow_leaks, "", verbose)
    heard = [sides.side(way.path, way.bundle, asked) for way in ways]
    best = _best_member(ways, heard)
    for row, side in zip(rows, heard, strict=True):
        beside = sides.beside(best, side)
        name = MAIN[side.judgement.kind]
        row |= {"test": beside["figures"][name], "gain": None if side is best else beside["gain"][name]}
    return rows


def _best_member(ways: list[Way], heard: list[Side]) -> Side:
    """By validation: by test it would be flattered."""
    n = sum(way.name not in METHODS for way in ways)
    return heard[max(range(n), key=lambda k: ways[k].validation)]


def _trained(members: list[Member], of_fit: Provenance) -> Provenance:
    """What all of them have heard; clips that the mix was fitted on are as those that a training was validated on."""
    first = members[0].bundle.spec.trained
    leaks = [f"{one.said}: {one.bundle.spec.trained.leaky}" for one in members if one.bundle.spec.trained.leaky]
    own = of_fit.model_copy(
        update={"manifest": first.manifest, "corpus": first.corpus, "n_clips": first.n_clips}
        | {"audit": f"leaky: {'; '.join(leaks)}" if leaks else first.audit}
    )
    ancestors = [Ancestor(one.said, one.bundle.spec.trained, one.bundle.fingerprint) for one in members]
    return lineage.inherited(own, ancestors)


def _record(
    members: list[Member], table: list[dict[str, Any]], best: Way, voices: Voices, digest: str
) -> dict[str, Any]:
    model = best.bundle.spec.model
    return {
        "schema": SCHEMA,
        "figure": MAIN[voices.kind],
        "chosen": best.name,
        "fingerprint": best.bundle.fingerprint,
        "weights": list(getattr(model, "weights", ())),
        "validation": {"n_clips": len(voices.truth), "n_groups": len(set(voices.groups)), "manifest": digest},
        "audit": best.bundle.spec.trained.audit,
        "n_members": len(members),
        "ways": table,
    }


def _name(member: Member) -> str:
    """Its network, and the folder that tells it from others."""
    path = member.path.absolute()
    if path.parent.name == SNAPSHOTS:
        return f"{member.bundle.spec.model.name} {path.parent.parent.name} {path.name}"
    own = path.parent.name if path.name == BUNDLE else path.name
    return f"{member.bundle.spec.model.name} {path.parent.parent.name if own.startswith('step-') else own}"


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"expected nothing at {out}, where the ensemble goes, and found something; give another --out")


def _refuse(member: Member, reason: str) -> None:
    if reason:
        raise ConfigError(
            f"{member.said}: {reason}: what is fitted there says nothing of other recordings; combine on the CONFIG "
            "that the bundles were trained with, whose validation split they have not learnt from"
        )


def _say(record: dict[str, Any]) -> None:
    leaky = "LEAKY: " if record["audit"].startswith("leaky") else ""
    name = record["figure"].replace("_", " ")
    for row in record["ways"]:
        figures = f"{name} {row['validation']:.3f} on validation"
        if row["test"]:
            figures += f", {row['test'][0]:.3f} ({row['test'][1]:.2f} to {row['test'][2]:.2f}) on test"
        if row["gain"]:
            gap, low, high = row["gain"]
            figures += f", {gap:+.3f} ({low:+.2f} to {high:+.2f})"
        cost = f"{row['n_parameters']:,} parameters, {row['ms_per_window']:.2f} ms a window"
        note(f"{'* ' if row['name'] == record['chosen'] else ''}{row['name']}: {figures}; {cost}")
    chosen = next(row for row in record["ways"] if row["name"] == record["chosen"])
    gain = chosen["gain"]
    beside = f"{gain[0]:+.3f} ({gain[1]:+.2f} to {gain[2]:+.2f}) over the best member on test" if gain else "not tested"
    result(f"{leaky}{record['chosen']} of {record['n_members']} members: {beside}")
