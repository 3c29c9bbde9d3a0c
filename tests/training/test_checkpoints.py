"""A folder of checkpoints: whole or not there, the newest two, and a full disk that is told."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from instrunet.errors import JobError
from instrunet.training import checkpoints
from instrunet.training.state import STATE_FILE


def save(folder: Path) -> None:
    (folder / STATE_FILE).write_text("{}", encoding="utf-8")
    (folder / "bundle").mkdir()
    (folder / "bundle" / "weights").write_bytes(bytes(1000))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) is None and checkpoints.newest(tmp_path / "none") is None
    for step in (9, 10, 1000, 1001):
        checkpoints.publish(tmp_path, step, save, validated=True)
    assert names(tmp_path) == ["step-000001000-validated", "step-000001001-validated"]
    newest = checkpoints.newest(tmp_path)
    assert newest and newest.name == "step-000001001-validated" and (newest / "bundle/weights").stat().st_size == 1000


def test_after_its_validation_a_step_is_newer_than_before_it(tmp_path: Path) -> None:
    for validated in (True, False):
        checkpoints.publish(tmp_path, 5, save, validated=validated)
    newest = checkpoints.newest(tmp_path)
    assert newest and newest.name.endswith("validated") and len(names(tmp_path)) == 2


def test_what_a_killed_writer_left_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    checkpoints.publish(tmp_path, 5, save, validated=True)
    torn = tmp_path / ".step-000000006-validated.abc.tmp"
    torn.mkdir()
    save(torn)
    newest = checkpoints.newest(tmp_path)
    assert newest and newest.name == "step-000000005-validated"
    checkpoints.publish(tmp_path, 7, save, validated=True)
    assert names(tmp_path) == ["step-000000005-validated", "step-000000007-validated"]


def test_the_same_step_again_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        checkpoints.publish(tmp_path, 5, save, validated=True)
    assert names(tmp_path) == ["step-000000005-validated"]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Tensors are written by a library that has no OSError; a limit on the size of files is met as a full disk is."""
    code = f"""
import resource, signal, torch, safetensors.torch
from pathlib import Path
from instrunet.errors import JobError
from instrunet.training import checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
save = lambda folder: safetensors.torch.save_file({{"a": torch.zeros(1 << 20)}}, folder / "state.safetensors")
try:
    checkpoints.publish(Path({str(tmp_path)!r}), 10, save, validated=True)
except JobError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.startswith("the checkpoint after step 10 cannot be written to") and "File too large" in done.stdout
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("before", [0, 1])
def test_a_full_disk_leaves_the_last_one_and_says_where_it_goes_on(tmp_path: Path, before: int) -> None:
    if before:
        checkpoints.publish(tmp_path, 5, save, validated=True)

    def full(folder: Path) -> None:
        save(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(JobError) as error:
        checkpoints.publish(tmp_path, 10, full, validated=True)
    where = "after step 5" if before else "from the start"
    assert str(error.value) == (
        f"the checkpoint after step 10 cannot be written to {tmp_path}: No space left on device; "
        f"make room, then the same command goes on {where}"
    )
    assert names(tmp_path) == ["step-000000005-validated"] * before
    checkpoints.publish(tmp_path, 10, save, validated=True)
    newest = checkpoints.newest(tmp_path)
    assert newest and newest.name == "step-000000010-validated"
