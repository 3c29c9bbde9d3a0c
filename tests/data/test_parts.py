"""Parts: many writers, one folder; what is there is whole, the first one wins, and another's folder is left alone."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instrunet.data.parts import claim, finish, is_done, left, part_path, publish, read_json, write_aside
from instrunet.errors import DataError

N_WRITERS = 8
PLAN = {"units": "abc", "parts": 3, "front": {"rate": 22_050}, "size": (1, 2)}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_one_of_many_publishers_wins_and_its_content_is_whole(tmp_path: Path) -> None:
    for round_ in range(10):
        path, gate = tmp_path / str(round_) / "part", threading.Barrier(N_WRITERS)

        def race(writer: int, path: Path = path, gate: threading.Barrier = gate) -> bool:
            def write(aside: Path) -> None:
                with aside.open("wb") as file:
                    for _ in range(64):
                        file.write(bytes([writer]) * 4096)
                gate.wait()  # all have written before anyone publishes

            gate.wait()
            return publish(path, write)

        with ThreadPoolExecutor(N_WRITERS) as pool:
            won = list(pool.map(race, range(N_WRITERS)))
        assert won.count(True) == 1
        assert path.read_bytes() == bytes([won.index(True)]) * 4096 * 64
        assert names(path.parent) == ["part"]


def test_a_late_publisher_changes_nothing_and_does_no_work(tmp_path: Path) -> None:
    path = tmp_path / "part"
    assert publish(path, lambda aside: aside.write_text("first"))
    assert not publish(path, lambda aside: pytest.fail("written again"))
    assert path.read_text() == "first"


@pytest.mark.parametrize("function", [publish, write_aside])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, function: object) -> None:
    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError("disk full")

    assert callable(function)
    with pytest.raises(OSError, match="disk full"):
        function(tmp_path / "new" / "part", fail)
    assert names(tmp_path) == []


def test_write_aside_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_aside(path, lambda aside: aside.write_text("old")) == path

    def fail(aside: Path) -> None:
        aside.write_text("ne")
        assert path.read_text() == "old"
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_aside(path, fail)
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])
    write_aside(path, lambda aside: aside.write_text("new"))
    assert (path.read_text(), names(tmp_path)) == ("new", ["file"])


def test_a_folder_is_claimed_once_and_again_by_the_same_plan(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    claim(folder, PLAN)
    written = (folder / "plan.json").read_bytes()
    claim(folder, dict(reversed(PLAN.items())))
    assert (folder / "plan.json").read_bytes() == written
    assert json.loads(written) == PLAN | {"size": [1, 2]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parts": 4}, "its parts is 3, this one's is 4"),
        ({"front": {"rate": 8000}}, 'its front is {"rate":22050}, this one\'s is {"rate":8000}'),
        ({"more": "x"}, 'its more is null, this one\'s is "x"'),
        ({"units": "z" * 99}, 'its units is "abc", this one\'s is "' + "z" * 56 + "..."),
    ],
)
def test_another_plan_is_refused_with_the_field_that_differs(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    claim(tmp_path, PLAN)
    with pytest.raises(DataError) as caught:
        claim(tmp_path, PLAN | change)
    expected = f"{tmp_path} belongs to another job: {told}; choose another folder or remove this one"
    assert str(caught.value) == expected
    claim(tmp_path, PLAN)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    file = tmp_path / "thesis.doc"
    for folder in (tmp_path, file):
        with pytest.raises(DataError) as caught:
            claim(folder, PLAN)
        assert str(caught.value) == (
            f"expected a new folder or one of the same job at {folder}, found other files; choose another folder"
        )
    assert names(tmp_path) == ["thesis.doc"]


def test_a_plan_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for text, told in (("{", "cannot be read as JSON"), ("[1]", "should hold an object, it holds a list")):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(DataError, match=told):
            claim(tmp_path, PLAN)
    with pytest.raises(DataError, match="cannot be read as JSON: "):
        read_json(tmp_path / "none.json")


def test_claims_at_the_same_time_agree(tmp_path: Path) -> None:
    for round_ in range(20):
        folder, gate = tmp_path / str(round_), threading.Barrier(N_WRITERS)
        folder.mkdir()

        def race(worker: int, folder: Path = folder, gate: threading.Barrier = gate) -> None:
            gate.wait()
            claim(folder, PLAN)
            publish(part_path(folder, "units", worker), lambda aside: aside.write_bytes(b"x"))

        with ThreadPoolExecutor(N_WRITERS) as pool:
            list(pool.map(race, range(N_WRITERS)))
        assert left(folder, "units", N_WRITERS) == []


def test_one_of_two_plans_at_the_same_time_wins(tmp_path: Path) -> None:
    for round_ in range(20):
        folder, gate = tmp_path / str(round_), threading.Barrier(2)

        def race(parts: int, folder: Path = folder, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            try:
                claim(folder, PLAN | {"parts": parts})
            except DataError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(race, (0, 1)))
        assert sorted(won) == [False, True]
        assert read_json(folder / "plan.json")["parts"] == won.index(True)


def test_what_is_left_is_the_plan_minus_what_is_there(tmp_path: Path) -> None:
    assert part_path(tmp_path, "units", 7) == tmp_path / "units" / "part-00007.parquet"
    assert part_path(tmp_path, "units", 123_456, ".npy").name == "part-123456.npy"
    assert left(tmp_path, "units", 3) == [0, 1, 2]
    for number in (1, 2):
        publish(part_path(tmp_path, "units", number), lambda aside: aside.write_bytes(b"x"))
    publish(part_path(tmp_path, "units", 0, ".npy"), lambda aside: aside.write_bytes(b"x"))
    publish(part_path(tmp_path, "other", 0), lambda aside: aside.write_bytes(b"x"))
    assert left(tmp_path, "units", 4) == [0, 3]
    assert left(tmp_path, "units", 3, ".npy") == [1, 2]


def test_done_is_said_once_and_stays(tmp_path: Path) -> None:
    assert not is_done(tmp_path)
    finish(tmp_path)
    finish(tmp_path)
    assert is_done(tmp_path)
    assert names(tmp_path) == ["_SUCCESS"]


KILLED = """
import os, sys
from pathlib import Path
from instrunet.data.parts import publish
def write(aside):
    aside.write_text("half")
    os.kill(os.getpid(), 9)
publish(Path(sys.argv[1]), write)
"""


def test_what_a_killed_writer_leaves_does_not_count(tmp_path: Path) -> None:
    claim(tmp_path / "a", PLAN)
    for path in (part_path(tmp_path / "a", "units", 0), tmp_path / "b" / "plan.json"):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
        assert killed.returncode == -9
        (remains,) = path.parent.glob(".*")
        assert remains.read_text() == "half"
    assert left(tmp_path / "a", "units", 1) == [0]
    assert publish(part_path(tmp_path / "a", "units", 0), lambda aside: aside.write_text("whole"))
    claim(tmp_path / "b", PLAN)
    assert read_json(tmp_path / "b" / "plan.json")["parts"] == 3
