"""How many workers write one folder: a plan written once, parts fixed by it, each published whole, first one wins.

FOLDER/plan.json            what this folder is: a folder of another plan is refused, naming the field
FOLDER/<kind>/part-00007.*  part 7, a function of the plan alone; there it is whole, or it is not there
FOLDER/_SUCCESS             written last

A folder may be a URL of a store (`places.put` says what it promises there).
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instrunet.config import canonical_json
from instrunet.data import places
from instrunet.errors import DataError, JobError

PLAN, DONE = "plan.json", "_SUCCESS"
FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def write_aside(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write under another name, sync, rename: under `path` the content is whole or as it was."""
    if places.is_remote(path):
        places.put(path, write, create=False)
        return path
    with _room(path) as aside:
        write(aside)
        _sync(aside)
        aside.replace(path)
    return path


def publish(path: Path, write: Callable[[Path], Any]) -> bool:
    """As `write_aside`, but create-only: the first writer wins and a late or doubled one changes nothing."""
    if path.exists():
        return False
    if places.is_remote(path):
        return places.put(path, write, create=True)
    try:
        with _room(path) as aside:
            write(aside)
            _sync(aside)
            os.link(aside, path)
    except FileExistsError:
        return False
    return True


def publish_folder(path: Path, write: Callable[[Path], Any]) -> bool:
    """As `publish`, of a folder of files on a disk: `write` fills it aside, a rename shows it whole."""
    if path.exists():
        return False
    aside = _aside(path)
    aside.mkdir(parents=True)
    try:
        write(aside)
        for file in aside.rglob("*"):
            _sync(file)
        aside.rename(path)
        _sync(path.parent)
    except OSError:
        if not path.exists():
            raise
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Make `folder` the home of `plan`, or check that it already is."""
    places.need_no_pack(folder)
    path = folder / PLAN
    # In this order: a claim that comes at the same time writes its plan first and everything else after it
    if folder.is_file() or (folder.is_dir() and _has_files(folder) and not path.exists()):
        raise DataError(
            f"expected a new folder or one of the same job at {folder}, found other files; choose another folder"
        )
    publish(path, lambda aside: aside.write_text(canonical_json(plan) + "\n", encoding="utf-8"))
    theirs, ours = read_json(path), json.loads(canonical_json(plan))  # as JSON: a tuple is a list there
    for field in sorted({*theirs, *ours}):
        if theirs.get(field) != ours.get(field):
            raise DataError(
                f"{folder} belongs to another job: its {field} is {_short(theirs.get(field))}, "
                f"this one's is {_short(ours.get(field))}; choose another folder or remove this one"
            )


def part_path(folder: Path, kind: str, number: int, suffix: str = ".parquet") -> Path:
    return folder / kind / f"part-{number:05d}{suffix}"


def left(folder: Path, kind: str, n_parts: int, suffix: str = ".parquet") -> list[int]:
    """The parts that are not published yet: the plan minus one listing."""
    there = {path.name for path in (folder / kind).glob(f"part-*{suffix}")}
    return [k for k in range(n_parts) if part_path(folder, kind, k, suffix).name not in there]


def is_done(folder: Path) -> bool:
    return (folder / DONE).is_file()


def finish(folder: Path) -> None:
    publish(folder / DONE, lambda aside: aside.write_bytes(b""))


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold an object, it holds a {type(value).__name__}")
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A list that `write_json` wrote."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, list):
        raise DataError(f"{path} should hold a list, it holds a {type(value).__name__}")
    return value


def write_json(path: Path, value: Any) -> Path:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


@contextmanager
def _room(path: Path) -> Iterator[Path]:
    """A name beside it to write under, which nothing is left of; JobError where there is no room."""
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise JobError(
            f"{path} cannot be written: {os.strerror(error.errno)}; make room, then the same command goes on"
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)  # a folder's too: its entries are synced
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _has_files(folder: Path) -> bool:
    """Leftovers of a writer that was killed before its plan do not make a folder somebody else's."""
    return any(not p.name.startswith(f".{PLAN}.") for p in folder.iterdir())


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "..."
