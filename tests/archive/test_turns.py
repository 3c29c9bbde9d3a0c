"""Parts of an actor on a core take turns; a decoder that stalls costs the others next to nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import RATE, sound, tiny_bundle, write
from conftest import ROOT

from instrunet.archive import books, runs, sources
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.ahead import Decoders, Turn
from instrunet.audio.isolated import Decoder, Limits
from instrunet.bundle import Bundle
from instrunet.data.parts import part_path
from pipelines.tag import Worker

WAIT_S, FILES, FILE_S = 2.0, 12, 60.0  # parts have five minutes


def bad_file(path: Path, mark: bytes = b"stall at read", seconds: float = 1.0) -> Path:
    write(path, sound(seconds, 300))
    content = bytearray(path.read_bytes())
    content[44 : 44 + len(mark)] = mark
    path.write_bytes(content)
    return path


def test_one_works_at_a_time_and_lends_its_turn() -> None:
    turn, told, lent = Turn(), list[str](), threading.Event()

    def first() -> None:
        with turn.mine():
            told.append("first")
            with turn.lent():
                lent.set()
                deadline = time.monotonic() + 10
                while len(told) < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
            told.append("first again")

    def second() -> None:
        lent.wait(10)
        with turn.mine():
            told.append("second")
            time.sleep(0.3)  # the first wants it back meanwhile
            told.append("second still")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert told == ["first", "second", "second still", "first again"]


def test_seconds_are_ones_own_where_nobody_else_works_meanwhile() -> None:
    turn, clock, lent = Turn(), time.perf_counter, threading.Event()
    with turn.mine():
        began, own = clock(), turn.now()
        with turn.lent():
            time.sleep(0.2)
        assert abs((turn.now() - own) - (clock() - began)) < 0.05

    def other() -> None:
        lent.wait(10)
        with turn.mine():
            time.sleep(0.5)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(other)
        with turn.mine():
            began, own = clock(), turn.now()
            with turn.lent():
                lent.set()
                time.sleep(0.2)
            assert clock() - began >= 0.5 and turn.now() - own < 0.3
        done.result()


def test_one_decoder_for_two_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/crashing"))
    bad, turn = bad_file(tmp_path / "bad.wav"), Turn()

    def read(_: int) -> str:
        with turn.mine(), pytest.raises(io.DecodeError) as error:
            decoders.read(bad, RATE, 0.0, 1.0)
        return error.value.status

    with Decoders(Limits(wait_s=0.5), 1, turn) as decoders, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, range(2), timeout=60)) == ["corrupt"] * 2


def test_who_has_no_turn_lends_none() -> None:
    turn = Turn()
    with turn.lent(), turn.mine():  # free, and it stays so
        pass

    def other() -> bool:
        with turn.lent():
            return turn._lock.locked()

    with turn.mine(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(other).result()


def test_a_turn_comes_back_where_waiting_fails() -> None:
    turn = Turn()
    with pytest.raises(TimeoutError), turn.mine(), turn.lent():
        raise TimeoutError
    assert not turn._lock.locked()


def test_a_decoder_is_left_aside_only_where_it_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/crashing"))
    good, bad, times = write(tmp_path / "good.wav", sound(1.0, 300)), bad_file(tmp_path / "bad.wav"), list[float]()

    class Aside:
        def __enter__(self) -> None:
            times.append(time.monotonic())

        def __exit__(self, *_: object) -> None:
            times.append(time.monotonic())

    with Decoder(Limits(wait_s=1.0), Aside) as decoder:
        decoder.read(good, RATE)
        assert not times
        with pytest.raises(io.DecodeError):
            decoder.read(bad, RATE, 0.0, 1.0)
        first, second = times[1] - times[0], times[3] - times[2]
        assert len(times) == 4 and min(first, second) > 0.5, "most of both waits"
        decoder.read(good, RATE)
        assert len(times) == 4


def test_a_part_that_waits_for_a_decoder_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/crashing"))
    tiny_bundle().save(tmp_path / "bundle")
    for k in range(FILES):
        write(tmp_path / f"archive/{k:02d}.wav", sound(FILE_S, 200 + 20 * k))
    bad_file(tmp_path / "archive/00.wav")
    job = runs.Job(sources.archive(tmp_path / "archive"), Bundle.load(tmp_path / "bundle").spec, UnitSpec(), io.probe)
    work, done = runs.begin(tmp_path / "out", job)[1], dict[int, float]()
    assert work and work.n_parts > 1
    began = time.monotonic()

    def make(number: int) -> None:
        worker.make(number)
        done[number] = time.monotonic() - began

    worker = Worker(str(tmp_path / "out"), str(tmp_path / "bundle"), Limits(wait_s=WAIT_S), n_decoders=2)
    with worker.decoder, ThreadPoolExecutor(2) as pool:
        list(pool.map(make, range(work.n_parts)))
    assert max(done, key=done.__getitem__) == 0 and done[0] > 2 * WAIT_S, done
    paths = [part_path(tmp_path / "out", books.UNITS, number) for number in range(work.n_parts)]
    statuses = [status for path in paths for status in pq.read_table(path)["status"].to_pylist()]
    assert statuses == ["corrupt"] + ["tagged"] * (FILES - 1)
