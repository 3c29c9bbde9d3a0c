"""A run's checkpoints in a folder of a disk that all workers share: each whole or not there, the newest two kept.

Ray Train can keep them, too, but writes its record of them in place: a full disk or a kill at that moment leaves half
of it, and the run is refused from then on (Ray 2.60, `checkpoint_manager.py`). Here the names are all of the record.
"""

import shutil
from pathlib import Path

from safetensors import SafetensorError

from instrunet.data import parts
from instrunet.errors import JobError
from instrunet.training.state import STATE_FILE, Save

KEPT = 2


def publish(folder: Path, step: int, save: Save, *, validated: bool) -> None:
    """Of the same step, the one after its validation is the newer. A full disk leaves the last one as it was."""
    path = folder / f"step-{step:09d}-{'validated' if validated else 'before'}"
    try:
        parts.publish_folder(path, save)
        _tidy(folder, path)
    except (OSError, SafetensorError) as error:  # tensors are written by a library with an error of its own
        reason, last = getattr(error, "strerror", None) or error, newest(folder)
        where = f"after step {int(last.name.split('-')[1])}" if last else "from the start"
        raise JobError(
            f"the checkpoint after step {step} cannot be written to {folder}: {reason}; "
            f"make room, then the same command goes on {where}"
        ) from None


def newest(folder: Path) -> Path | None:
    whole = sorted(path for path in folder.glob("step-*") if (path / STATE_FILE).is_file())
    return whole[-1] if whole else None


def _tidy(folder: Path, mine: Path) -> None:
    """Remove older ones, and what writers that were killed left."""
    older = sorted(path for path in folder.glob("step-*") if path.name <= mine.name)[:-KEPT]
    for path in [*older, *folder.glob(".step-*.tmp")]:
        shutil.rmtree(path, ignore_errors=True)
