"""The audit: is anything that a model is tested on also in what it learns from, by name, by sample or by ear?

`prints` are made once, in parallel if need be (`print_of` of a clip is a pure function); `audit` only compares tables.
What makes a leak lies in two splits; doubles inside one split are no leak, and only conflicting labels are said.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from instrunet.audio.fingerprint import COPY, STRETCHED, ClipPrint, Limits, matching, print_of
from instrunet.errors import DataError

Severity = Literal["leak", "warning"]
Read = Callable[[str, float, float | None], ClipPrint]

EXAMPLES = 20  # clips of this many cases are named, so that a verdict fits into a bundle
# Notes of one pitch may look like one at two tempos (2 in 230,000 pairs); real twins touch half of the clips
STRETCHED_SHARE = 0.02


@dataclass(frozen=True)
class Finding:
    """`n` cases of one kind; `clips` names the clips of the first of them."""

    kind: str
    severity: Severity
    n: int
    clips: tuple[tuple[str, ...], ...]
    detail: str


@dataclass(frozen=True)
class Audit:
    """What was found, leaks first; `unchecked` clips gave no sound to compare."""

    findings: tuple[Finding, ...]
    n_clips: int
    unchecked: int

    @property
    def verdict(self) -> Literal["clean", "leaky"]:
        return "leaky" if any(f.severity == "leak" for f in self.findings) else "clean"

    @property
    def reasons(self) -> list[str]:
        """A short sentence for each leak."""
        return [f.detail for f in self.findings if f.severity == "leak"]

    @property
    def warnings(self) -> list[str]:
        return [f.detail for f in self.findings if f.severity == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the same for the same rows in any order."""
        findings = [asdict(f) | {"clips": [list(case) for case in f.clips]} for f in self.findings]
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "findings": findings,
            "n_clips": self.n_clips,
            "unchecked": self.unchecked,
        }


def prints(frame: pd.DataFrame, read: Read = print_of) -> pd.DataFrame:
    """The table of prints of a manifest: clip_id, samples_hash, print."""
    rows = []
    for clip_id, uri, start_s, stop_s in frame[["clip_id", "uri", "start_s", "stop_s"]].itertuples(index=False):
        made = read(uri, start_s, None if pd.isna(stop_s) else stop_s)
        rows.append((clip_id, made.samples_hash, made.print))
    return pd.DataFrame(rows, columns=["clip_id", "samples_hash", "print"])


def audit(
    frame: pd.DataFrame,
    prints: pd.DataFrame,
    other: tuple[pd.DataFrame, pd.DataFrame] | None = None,
) -> Audit:
    """Judge a manifest with all its splits. `other` is the manifest and the prints of a corpus whose test set must not
    be in this one's training and validation data."""
    table = _joined(frame, prints)
    findings = [
        *_groups(table),
        *_identical(table),
        *_near(table),
        *_twins(table),
        *_stretched(table),
        *_conflicts(table),
        *(_contained(table, _joined(*other)) if other else []),
    ]
    findings.sort(key=lambda f: f.severity != "leak")
    return Audit(tuple(findings), len(table), int((table["samples_hash"] == "").sum()))


def _joined(frame: pd.DataFrame, prints: pd.DataFrame) -> pd.DataFrame:
    missing = sorted(set(frame["clip_id"]) - set(prints["clip_id"]))
    if missing:
        raise DataError(
            f"expected a print of each of {len(frame)} clips, {len(missing)} have none, the first {missing[0]}; "
            "make them with prints(frame)"
        )
    once = prints.drop_duplicates("clip_id")[["clip_id", "samples_hash", "print"]]
    return frame.merge(once, on="clip_id", how="left").sort_values("clip_id", ignore_index=True)


def _finding(kind: str, severity: Severity, cases: Iterable[Iterable[str]], detail: str) -> list[Finding]:
    """No finding where there is no case; {n} in the sentence is their number."""
    ordered = sorted(tuple(sorted(case)) for case in cases)
    if not ordered:
        return []
    return [Finding(kind, severity, len(ordered), tuple(ordered[:EXAMPLES]), detail.format(n=len(ordered)))]


def _groups(table: pd.DataFrame) -> list[Finding]:
    cases = _across(table.assign(key=table["corpus"] + "\0" + table["group"]))
    return _finding("group", "leak", cases, "{n} groups lie in more than one split")


def _across(table: pd.DataFrame) -> list[list[str]]:
    """Clips that share a `key` and lie in more than one split: of each split the first, which is enough to see it."""
    splits = table.groupby("key")["split"].transform("nunique")
    first = table[splits > 1].drop_duplicates(["key", "split"])
    return [list(rows["clip_id"]) for _, rows in first.groupby("key")]


def _identical(table: pd.DataFrame) -> list[Finding]:
    heard = table[table["samples_hash"] != ""]
    cases = _across(heard.assign(key=heard["samples_hash"]))
    return _finding("identical", "leak", cases, "{n} sounds lie sample for sample in more than one split")


def _near(table: pd.DataFrame) -> list[Finding]:
    cases = _pairs(table, COPY)
    return _finding(
        "near", "leak", cases, "{n} pairs of clips in different splits sound the same (copies, re-encodings)"
    )


def _pairs(table: pd.DataFrame, limits: Limits) -> list[tuple[str, str]]:
    """Pairs across splits whose prints match and whose samples are not the same, which is said already."""
    heard = table[table["print"].map(len) > 0]
    found = matching(list(heard["print"]), limits=limits)
    left, right = heard.iloc[found[:, 0]], heard.iloc[found[:, 1]]
    split = left["split"].to_numpy() != right["split"].to_numpy()
    kept = split & (left["samples_hash"].to_numpy() != right["samples_hash"].to_numpy())
    return list(zip(left["clip_id"].to_numpy()[kept], right["clip_id"].to_numpy()[kept], strict=True))


def _twins(table: pd.DataFrame) -> list[Finding]:
    """Copies that say what they were made of (`twin_of`, the id of a clip), and ranges of one file."""
    sources = [("{n} files have ranges in more than one split", _of_file(table))]
    if "twin_of" in table:
        known = table["twin_of"].map(lambda name: isinstance(name, str) and name != "")
        made_of = dict(zip(table.loc[known, "clip_id"], table.loc[known, "twin_of"], strict=True))
        origins = table.assign(key=[_origin(name, made_of) for name in table["clip_id"]])
        sources.append(("{n} clips have augmented copies in another split than their own", origins))
    return [f for detail, rows in sources for f in _finding("twin", "leak", _across(rows), detail)]


def _of_file(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of files that are cut into ranges; whole files that are the same are `identical`."""
    known = table[table["sha256"] != ""]
    several = known.groupby("sha256")["start_s"].transform("nunique") > 1
    return known[several].assign(key=known.loc[several, "sha256"])


def _origin(name: str, made_of: dict[str, str]) -> str:
    seen = {name}
    while name in made_of and made_of[name] not in seen:  # a circle ends where it closes
        name = made_of[name]
        seen.add(name)
    return name if name not in made_of else min(seen)


def _stretched(table: pd.DataFrame) -> list[Finding]:
    near = set(_pairs(table, COPY))
    cases = [pair for pair in _pairs(table, STRETCHED) if pair not in near]
    touched = len({name for pair in cases for name in pair})
    severity: Severity = "leak" if touched > STRETCHED_SHARE * len(table) else "warning"
    return _finding("stretched", severity, cases, "{n} pairs of clips in different splits are one sound at two tempos")


def _conflicts(table: pd.DataFrame) -> list[Finding]:
    heard = table[table["samples_hash"] != ""]
    said = heard.assign(said=heard["labels"].map(lambda labels: "\0".join(sorted(labels))))
    several = said.groupby("samples_hash")["said"].transform("nunique") > 1
    cases = [rows["clip_id"] for _, rows in said[several].groupby("samples_hash")]
    return _finding("conflict", "warning", cases, "{n} sounds are there more than once with different labels")


def _contained(table: pd.DataFrame, other: pd.DataFrame) -> list[Finding]:
    """Clips of another corpus's test set (all of it, where it states no splits) that this one learns from."""
    tested = other[other["split"].isin(("test", "official", "")) & (other["samples_hash"] != "")]
    learnt = table[table["split"].isin(("train", "val", "")) & (table["samples_hash"] != "")]
    same = learnt.merge(tested, on="samples_hash")[["clip_id_x", "clip_id_y"]].itertuples(index=False, name=None)
    found = matching(list(learnt["print"]), list(tested["print"]))
    names, theirs = learnt["clip_id"].to_numpy(), tested["clip_id"].to_numpy()
    near = zip(names[found[:, 0]], theirs[found[:, 1]], strict=True)
    test_of = {clip: ours for ours, clip in sorted({*same, *near}, reverse=True)}  # one case a clip of the test set
    share = f" of {len(tested)}" if len(tested) else ""
    detail = "{n}" + share + " test clips of the other corpus are in the training data"
    return _finding("contained", "leak", test_of.items(), detail)
