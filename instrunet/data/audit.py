"""The audit: is anything that a model is tested on also in what it learns from, by name, by sample or by ear?

`prints` are made once, in parallel if need be (`print_of` of a clip is a pure function); `audit` only compares tables.
What makes a leak lies in two splits; doubles inside one split are no leak, and only conflicting labels are said.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from instrunet.audio.fingerprint import ClipPrint, print_of
from instrunet.audio.matching import CERTAIN, CLOSE, COPY, STRETCHED, Pairs, durations, matching, within
from instrunet.augment.copies import originals
from instrunet.config import Spec
from instrunet.data.unions import unions
from instrunet.data.verdict import Audit, Finding, Severity
from instrunet.errors import DataError

Read = Callable[[str, float, float | None], ClipPrint]

EXAMPLES = 20  # clips of this many cases are named, so that a verdict fits into a bundle
# Notes of one pitch may look like one at two tempos (2 in 230,000 pairs); real twins touch half of the clips
STRETCHED_SHARE = 0.02
# A pair that is not CERTAIN may be two takes of a note: it is no leak by itself, nor are many of them, unless most are
# as near as copies are. Of the pairs within COPY, CLOSE holds 46 to 100 % of planted copies and 6 to 25 % of the takes
# of the guitar pack, whose groups are takes.
NEAR_SHARE, CLOSE_SHARE = 0.01, 1 / 3


class AuditSpec(Spec):
    """What is done about leaks, and whose test sets must not be learnt from."""

    allow_leaks: bool = False  # carry on, and label all that comes of it LEAKY
    against: tuple[Path, ...] = ()  # features folders of other corpora


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
    heard = table[table["print"].map(len) > 0]
    near = _near_pairs(heard)
    findings = [
        *_groups(table),
        *_identical(table),
        *_near(heard, near),
        *_twins(table),
        *_stretched(heard, near),
        *_conflicts(table),
        *(contained(frame, prints, other) if other else []),
    ]
    findings.sort(key=lambda f: f.severity != "leak")
    own = originals(table)  # copies that the features job made have no print: it knows what they were made of
    unchecked = int((own["samples_hash"] == "").sum())
    return Audit(tuple(findings), len(own), unchecked, _together(table, heard, near))


def contained(frame: pd.DataFrame, prints: pd.DataFrame, other: tuple[pd.DataFrame, pd.DataFrame]) -> list[Finding]:
    """Clips of another corpus's test set (all of it, where it states no splits) that this one learns from."""
    table, theirs = _joined(frame, prints), _joined(*other)
    tested = theirs[theirs["split"].isin(("test", "official", "")) & (theirs["samples_hash"] != "")]
    learnt = table[table["split"].isin(("train", "val", "")) & (table["samples_hash"] != "")]
    same = learnt.merge(tested, on="samples_hash")[["clip_id_x", "clip_id_y"]].itertuples(index=False, name=None)
    found = matching(list(learnt["print"]), list(tested["print"]), CLOSE)  # of one pair, COPY is not sure enough
    near = zip(learnt["clip_id"].to_numpy()[found[:, 0]], tested["clip_id"].to_numpy()[found[:, 1]], strict=True)
    test_of = {clip: ours for ours, clip in sorted({*same, *near}, reverse=True)}  # one case a clip of the test set
    share = f" of {len(tested)}" if len(tested) else ""
    detail = "{n}" + share + " test clips of the other corpus are in the training data"
    return _finding("contained", "leak", test_of.items(), detail)


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


def _near_pairs(heard: pd.DataFrame) -> Pairs:
    """Places [P, 2] of clips whose prints match and whose samples are not the same, which is said already."""
    found = matching(list(heard["print"]))
    return found[_differ(heard, found, "samples_hash")]


def _near(heard: pd.DataFrame, near: Pairs) -> list[Finding]:
    prints, found = list(heard["print"]), near[_differ(heard, near, "split")]
    close = within(prints, found, CLOSE)
    many = _touched(heard, found) > NEAR_SHARE and close.mean() >= CLOSE_SHARE
    if many or within(prints, found, CERTAIN).any():
        detail = "{n} pairs of clips in different splits sound the same (copies, re-encodings)"
        return _finding("near", "leak", _names(heard, found), detail)
    detail = "{n} pairs of clips in different splits sound alike, as takes of one note do"
    return _finding("near", "warning", _names(heard, found), detail)


def _touched(heard: pd.DataFrame, pairs: Pairs) -> float:
    """The share of clips that are in some pair, in the held-out split where it is greatest."""
    split = heard["split"].to_numpy()
    held, n = np.unique(split, return_counts=True)
    of = {name: float((split[np.unique(pairs)] == name).sum() / k) for name, k in zip(held, n, strict=True)}
    return max((share for name, share in of.items() if name != "train"), default=0.0)


def _differ(heard: pd.DataFrame, pairs: Pairs, column: str) -> NDArray[np.bool_]:
    values = heard[column].to_numpy()
    different: NDArray[np.bool_] = values[pairs[:, 0]] != values[pairs[:, 1]]
    return different


def _names(heard: pd.DataFrame, pairs: Pairs) -> list[tuple[str, str]]:
    names = heard["clip_id"].to_numpy()
    return list(zip(names[pairs[:, 0]], names[pairs[:, 1]], strict=True))


def _together(table: pd.DataFrame, heard: pd.DataFrame, near: Pairs) -> tuple[tuple[str, ...], ...]:
    """Groups that share a sound, a file or an origin, or that sound alike: what a split should keep on one side."""
    group = dict(zip(table["clip_id"], table["group"], strict=True))
    shared = [table.assign(key=table["samples_hash"]), table.assign(key=table["sha256"]), *_origins(table)]
    alike = [list(rows["group"]) for rows in shared for _, rows in rows[rows["key"] != ""].groupby("key")]
    sets = unions([*alike, *([group[a], group[b]] for a, b in _names(heard, near))])
    return tuple(tuple(names) for names in sets)


def _twins(table: pd.DataFrame) -> list[Finding]:
    """Copies that say what they were made of (`twin_of`, the id of a clip), and ranges of one file."""
    sources = [("{n} files have ranges in more than one split", _of_file(table))]
    sources += [("{n} clips have augmented copies in another split than their own", rows) for rows in _origins(table)]
    return [f for detail, rows in sources for f in _finding("twin", "leak", _across(rows), detail)]


def _origins(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The table with what each clip was first made of as its key; none where no clip is a copy."""
    if "twin_of" not in table:
        return []
    known = table["twin_of"].map(lambda name: isinstance(name, str) and name != "")
    made_of = dict(zip(table.loc[known, "clip_id"], table.loc[known, "twin_of"], strict=True))
    return [table.assign(key=[_origin(name, made_of) for name in table["clip_id"]])] if made_of else []


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


def _stretched(heard: pd.DataFrame, near: Pairs) -> list[Finding]:
    found = matching(list(heard["print"]), limits=STRETCHED)
    seconds = durations(list(heard["print"]))
    # Clips as long as each other have one tempo: two takes of a note, if anything
    longer = np.abs(np.log(seconds[found[:, 0]] / seconds[found[:, 1]])) > COPY.duration_share
    known = {(a, b) for a, b in near.tolist()}
    fresh = np.array([(a, b) not in known for a, b in found.tolist()], bool)
    cases = _names(heard, found[longer & fresh & _differ(heard, found, "split")])
    touched = len({name for pair in cases for name in pair})
    severity: Severity = "leak" if touched > STRETCHED_SHARE * len(heard) else "warning"
    return _finding("stretched", severity, cases, "{n} pairs of clips in different splits are one sound at two tempos")


def _conflicts(table: pd.DataFrame) -> list[Finding]:
    heard = table[table["samples_hash"] != ""]
    said = heard.assign(said=heard["labels"].map(lambda labels: "\0".join(sorted(labels))))
    several = said.groupby("samples_hash")["said"].transform("nunique") > 1
    cases = [rows["clip_id"] for _, rows in said[several].groupby("samples_hash")]
    return _finding("conflict", "warning", cases, "{n} sounds are there more than once with different labels")
