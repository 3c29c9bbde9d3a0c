"""The audit of a features folder: from the prints of its clips to `audit.json` and `together.json`, and what follows.

FOLDER/prints/part-00007.parquet   clip_id, samples_hash and print of each clip of part 7
FOLDER/audit.json                  the verdict on the manifest's splits
FOLDER/together.json               the groups that `split.keep_together` would keep on one side
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.audio.fingerprint import ClipPrint
from instrunet.bundle_spec import BundleSpec
from instrunet.data import manifest, parts, places
from instrunet.data.audit import AuditSpec, audit, contained
from instrunet.data.verdict import Audit
from instrunet.errors import DataError

PRINTS, AUDIT, TOGETHER = "prints", "audit.json", "together.json"
SCHEMA = pa.schema([("clip_id", pa.string()), ("samples_hash", pa.string()), ("print", pa.binary())])
LONGEST_LINE = 600  # of reasons: a bundle and a console line hold them


@dataclass(frozen=True)
class Verdict:
    """What an audit says of a folder, and where groups lie that a split should keep together."""

    reasons: list[str]
    warnings: list[str]
    together: Path | None = None
    begun: list[str] = field(default_factory=list)  # reasons that lie with what the training begins with

    @property
    def found(self) -> list[str]:
        return [*self.reasons, *self.begun]

    @property
    def text(self) -> str:
        return f"leaky: {'; '.join(self.found)}"[:LONGEST_LINE] if self.found else "clean"

    @property
    def line(self) -> str:
        """For the console."""
        warned = f"{len(self.warnings)} warnings: {'; '.join(self.warnings)}" if self.warnings else ""
        found = self.text.replace("leaky", "LEAKY", 1) if self.found else "" if warned else "clean"
        return f"audit: {'; '.join(filter(None, (found, warned)))}"

    @property
    def refusal(self) -> str:
        if not self.reasons:
            return (
                f"the data leaks: {'; '.join(self.begun)}: a score on it would flatter the model; split as that was "
                "split, begin with another bundle, or set audit.allow_leaks=true to have all that comes of it labelled "
                "LEAKY"
            )
        fix = f"split.keep_together={self.together} keeps what sounds alike on one side; " if self.together else ""
        return (
            f"the data leaks: {'; '.join(self.found)}: a score on it would flatter the model; {fix}where the corpus "
            "states its splits or audit.against names it, leave the doubled clips out; or set audit.allow_leaks=true "
            "to have all that comes of it labelled LEAKY"
        )


def publish_prints(folder: Path, number: int, prints: Mapping[str, ClipPrint]) -> None:
    rows = [{"clip_id": name, "samples_hash": one.samples_hash, "print": one.print} for name, one in prints.items()]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    path = parts.part_path(folder, PRINTS, number)
    parts.publish(path, lambda aside: pq.write_table(table, aside, use_dictionary=False))


def write(folder: Path) -> Audit:
    """Judge a folder whose parts are all there."""
    found = audit(*_tables(folder))
    parts.write_json(folder / TOGETHER, {"groups": [list(names) for names in found.together]})
    parts.write_json(folder / AUDIT, found.to_dict())
    return found


def read(folder: Path, spec: AuditSpec) -> Verdict:
    """The verdict that was written with the folder, and what of the corpora of `spec.against` is in its training."""
    said = parts.read_json(folder / AUDIT)
    reasons = list(said["reasons"])
    for other in spec.against:
        if not parts.is_done(other):
            raise DataError(
                f"expected a whole features folder for audit.against at {other}, found none; jobs/featurize.py prints "
                "the folder it made"
            )
        details = [finding.detail for finding in contained(*_tables(folder), _tables(other))]
        reasons += [f"{detail} ({other.name})" for detail in details]
    together = folder / TOGETHER
    return Verdict(reasons, list(said["warnings"]), together if parts.read_json(together)["groups"] else None)


def stamped(
    draft: BundleSpec,
    folder: Path,
    spec: AuditSpec,
    heard: Callable[[pd.DataFrame, Mapping[str, str]], list[str]] | None = None,
) -> BundleSpec:
    """The draft of a bundle with the verdict on its data and what it hears of it; leaky data is refused.

    `heard` gives more reasons, of the manifest and the hashes of its clips' samples.
    """
    verdict = read(folder, spec)
    frame, prints = _tables(folder)
    if heard:
        verdict = replace(verdict, begun=heard(frame, hashes_of(prints)))
    if verdict.found and not spec.allow_leaks:
        raise DataError(verdict.refusal)
    learnt = set(frame.loc[frame["split"].isin(("train", "val")), "clip_id"])
    hashes = {hash_ for name, hash_ in hashes_of(prints).items() if name in learnt}
    update = {"audit": verdict.text, "sample_hashes": tuple(sorted(hashes))}
    return draft.model_copy(update={"trained": draft.trained.model_copy(update=update)})


def hashes_of(prints: pd.DataFrame) -> dict[str, str]:
    """16 digits of the hash of each clip's samples, of those that sound."""
    sounding = prints[prints["samples_hash"] != ""]
    return dict(zip(sounding["clip_id"], sounding["samples_hash"].str[:16], strict=True))


def prints_of(folder: Path) -> pd.DataFrame:
    paths = sorted((folder / PRINTS).glob("part-*.parquet"))
    tables = [pq.read_table(places.source(path)) for path in paths]
    frame: pd.DataFrame = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()
    return frame


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return manifest.load(folder / manifest.FILE), prints_of(folder)
