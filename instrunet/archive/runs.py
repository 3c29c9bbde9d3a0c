"""Tags of an archive that grows: TAGS/model=<bundle>/run=00001/, each a folder as one tagging leaves it.

A run hears what is new or changed since the one before it; of what is gone it has a row of status `deleted`. So of
each file the newest run's row holds, and one glob, `TAGS/*/*/recordings/*.parquet`, reads all. No run is written again.
"""

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from instrunet import __version__
from instrunet.archive import books, listing, retag, units
from instrunet.archive.sources import Archive
from instrunet.archive.units import Look, UnitSpec, WorkList
from instrunet.bundle_spec import BundleSpec
from instrunet.data import parts, places
from instrunet.errors import DataError
from instrunet.runtime import PLAIN

_RUN = "run="


def home(out: Path, bundle: str) -> Path:
    if (out / parts.PLAN).exists():
        raise DataError(
            f"expected the folder of several runs at {out}, found the tags of one; give --since-last another --out"
        )
    return out / f"model={bundle}"


def numbers(home: Path) -> list[int]:
    """Of the runs that were begun."""
    found = home.glob(f"{_RUN}*/{parts.PLAN}") if places.is_remote(home) or home.is_dir() else iter(())
    return sorted(int(path.parent.name.removeprefix(_RUN)) for path in found)


def is_open(home: Path) -> bool:
    """Whether a run was begun and not finished."""
    return any(not parts.is_done(folder(home, number)) for number in numbers(home))


def begun(out: Path, bundle: str) -> dict[str, Any] | None:
    """The plan that the next tagging into `out` goes on with: its own, or that of a run that is not finished."""
    home = out / f"model={bundle}"
    runs = [folder(home, number) for number in numbers(home)]
    for one in (out, *(run for run in runs if not parts.is_done(run))):
        if (one / parts.PLAN).exists():
            return parts.read_json(one / parts.PLAN)
    return None


def folder(home: Path, number: int) -> Path:
    return home / f"{_RUN}{number:05d}"


def each(out: Path) -> list[Path]:
    """All runs below `out`, relative to it; itself, where it is one."""
    if (out / parts.PLAN).exists():
        return [Path()]
    found = sorted(path.parent for path in out.glob(f"model=*/{_RUN}*/{parts.PLAN}"))
    return [Path(*path.parts[-2:]) for path in found]


def unheard(run: Path) -> Iterator[str]:
    """Files that could not be had then: they are tried again with the next run."""
    table = pq.read_table(places.source(parts.part_path(run, books.RECORDINGS, 0)), columns=["uri", "status"])
    rows = zip(table["uri"].to_pylist(), table["status"].to_pylist(), strict=True)
    return (uri for uri, status in rows if status == "unreadable")


def is_reason(counts: dict[str, int]) -> bool:
    """Whether there is anything to do; files that could not be had are alone no reason for a run."""
    return any(counts[change] for change in ("new", "changed", "deleted"))


def account(run: Path, before: Path | None, n_files: int) -> dict[str, Any]:
    """What the ledger says of the files beside those of the run before; `n_files` is how many have a recording here."""
    now = listing.count(run / listing.FILES)
    then = listing.count(before / listing.FILES) if before else dict.fromkeys(listing.CHANGES, 0)
    lived = sum(n for change, n in then.items() if change != "deleted")
    kept = sum(now[change] for change in ("changed", "again", "unchanged", "deleted"))
    heard = sum(n for change, n in now.items() if change != "unchanged")
    return {"run": before.name if before else None, "files": now, "closed": lived == kept and heard == n_files}


class Job(NamedTuple):
    archive: Archive
    bundle: BundleSpec
    units: UnitSpec
    look: Look
    runtime: str = PLAIN  # other runtimes round otherwise: their rows do not mix

    def plan(self, **more: Any) -> dict[str, Any]:
        return {
            "job": "tag",
            "archive": self.archive.said,  # the work list names its files by their place
            "bundle": self.bundle.fingerprint(),
            "units": self.units.model_dump(mode="json"),
            "code": __version__,
            **({} if self.runtime == PLAIN else {"runtime": self.runtime}),
            **more,
        }


def begin(out: Path, job: Job) -> tuple[int, WorkList | None]:
    """How many files there are, and the work list of `out`; None where it is done."""
    if (out / listing.FILES).exists():  # it was begun, and what it began with stays
        found = listing.again(job.archive, out / listing.FILES)
        parts.claim(out, job.plan(listing=found.digest))
        return found.n_files, None if parts.is_done(out) else _work_list(out, job)
    with TemporaryDirectory(prefix="instrunet-") as folder:
        found = listing.scan(job.archive, Path(folder) / listing.FILES)
        parts.claim(out, job.plan(listing=found.digest))
        parts.publish(out / listing.FILES, lambda aside: listing.finish(found, aside))
        return found.n_files, _work_list(out, job)


def begin_next(home: Path, job: Job) -> tuple[Path, Path | None, WorkList | None]:
    """The folder of a run, that of the one before it, and the work list; None where nothing has changed since.

    A run that was begun is finished first, with the files that it began with.
    """
    begun = numbers(home)
    done = [number for number in begun if parts.is_done(folder(home, number))]
    open_ = [number for number in begun if number not in done]
    before = folder(home, done[-1]) if done else None
    if before:
        _same_archive(before, job)
    number = open_[0] if open_ else (begun[-1] + 1 if begun else 1)
    run = folder(home, number)
    plan = job.plan(since=before.name if before else None)
    if not (run / listing.FILES).exists():
        with TemporaryDirectory(prefix="instrunet-") as temporary:
            found = listing.scan(
                job.archive, Path(temporary) / "found.parquet", before / listing.FILES if before else None
            )
            files = Path(temporary) / listing.FILES
            listing.finish(found, files, unheard(before) if before else ())
            if before and not open_ and not is_reason(listing.count(files)):
                return before, before, None
            parts.claim(run, plan)
            parts.publish(run / listing.FILES, lambda aside: copyfile(files, aside))
    parts.claim(run, plan)
    return run, before, _work_list(run, job)


def _work_list(out: Path, job: Job) -> WorkList:
    """The first that was published: making it again may find a store in another mood, and parts must not move."""
    retag.keep_spec(out, job.bundle)
    path, fingerprint = out / units.WORK_LIST, job.bundle.fingerprint()
    parts.publish(path, lambda aside: units.make(out / listing.FILES, aside, job.units, fingerprint, job.look))
    return WorkList(path)


def _same_archive(before: Path, job: Job) -> None:
    theirs = parts.read_json(before / parts.PLAN).get("archive")
    if theirs != job.archive.said:
        raise DataError(
            f"{before.parent} holds runs over another archive: its archive is {theirs}, this one's is "
            f"{job.archive.said}; choose another --out"
        )
