"""A decoder of its own process: the same sound, a status for what aborts, stalls or grows, and no process is left."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT

from instrunet.audio import io, isolated
from instrunet.audio.ahead import ahead
from instrunet.audio.isolated import Decoder, Limits
from instrunet.errors import JobError

RATE = 22_050
CRASHING = ROOT / "tests/crashing"


def written(path: Path, seconds: float = 1.0, mark: bytes = b"", rate: int = 44_100) -> Path:
    """Noise in a WAV that says in its first samples what a bad decoder is to do with it."""
    rng = np.random.default_rng(len(mark))
    wave = (rng.standard_normal((round(seconds * rate), 2)) * 3000).astype("<i2")
    wave.reshape(-1)[:32] = np.frombuffer(mark.ljust(64, b"\0"), "<i2")
    sf.write(path, wave, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    with Decoder() as made:
        yield made


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    monkeypatch.syspath_prepend(str(CRASHING))
    with Decoder(Limits(wait_s=1.0)) as made:
        yield made


def status(decoder: Decoder, path: Path, *more: float) -> tuple[str, str]:
    with pytest.raises(io.DecodeError) as caught:
        decoder.read(path, *more or (RATE,))
    assert str(path) in str(caught.value)
    return caught.value.status, str(caught.value)


def children() -> list[str]:
    """Of this process, dead ones too."""
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "ps --ppid" not in line]


def test_it_reads_and_probes_as_in_process(decoder: Decoder, tmp_path: Path) -> None:
    path = written(tmp_path / "räksmörgås.wav", 3.0)
    for start_s, stop_s in ((0.0, None), (0.5, 2.5), (9.0, 10.0)):
        ours, theirs = decoder.read(path, RATE, start_s, stop_s), io.read(path, RATE, start_s, stop_s)
        np.testing.assert_array_equal(ours.wave, theirs.wave)
        assert (ours.damage, ours.flags, ours.wave.dtype) == (theirs.damage, theirs.flags, np.float32)
        assert ours.wave.flags.writeable
    assert decoder.probe(path) == io.probe(path)
    path.write_bytes(path.read_bytes()[:300_000])
    assert decoder.read(path, RATE).damage == io.read(path, RATE).damage != ""


def test_who_listens_hears_the_source_rate(decoder: Decoder, tmp_path: Path) -> None:
    path, heard, heard_there = written(tmp_path / "a.wav", 2.0), [], []
    decoder.read(path, RATE, 0.5, 1.5, lambda rate, block: heard.append((rate, block)))
    io.read(path, RATE, 0.5, 1.5, lambda rate, block: heard_there.append(block))
    ((rate, block),) = heard
    assert rate == 44_100
    np.testing.assert_array_equal(block, np.concatenate(heard_there))


def test_a_status_in_there_is_the_status_here(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    for path in (tmp_path / "text.wav", tmp_path / "missing.wav", tmp_path, tmp_path / os.fsdecode(b"\xff.wav")):
        for here, there in ((io.probe, decoder.probe), (io.read, decoder.read)):
            arguments = (path,) if here is io.probe else (path, RATE)
            with pytest.raises(io.DecodeError) as expected:
                here(*arguments)
            with pytest.raises(io.DecodeError) as got:
                there(*arguments)
            assert (got.value.status, str(got.value)) == (expected.value.status, str(expected.value))


def test_threads_share_it(decoder: Decoder, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{k}.wav", 0.1 * (k + 1)) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(lambda path: len(decoder.read(path, 44_100).wave), paths * 4))
    assert lengths == [round(0.1 * (k + 1) * 44_100) for k in range(8)] * 4


@pytest.mark.parametrize("mark", ["abort at open", "abort at read"])
def test_what_aborts_it_is_corrupt_and_the_next_file_is_read(crashing: Decoder, tmp_path: Path, mark: str) -> None:
    bad, good = written(tmp_path / "bad.wav", mark=mark.encode()), written(tmp_path / "good.wav")
    for _ in range(2):
        kind, why = status(crashing, bad)
        assert (kind, why.split(", ")[-1]) == ("corrupt", "which died of signal 6 (SIGABRT)")
        assert len(crashing.read(good, RATE).wave) == RATE


def test_what_stalls_it_is_corrupt_after_two_deadlines(crashing: Decoder, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.wav", mark=b"stall at read")
    started = time.monotonic()
    kind, why = status(crashing, bad, RATE, 0.0, 0.5)
    assert kind == "corrupt" and why.endswith("gave no answer within 1 s twice")
    assert 2.0 < time.monotonic() - started < 10.0
    assert len(crashing.read(written(tmp_path / "good.wav"), RATE).wave) == RATE


def test_what_spins_is_corrupt_after_a_third_of_a_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a core's time, however busy the machine is, and once: it would spin again."""
    monkeypatch.syspath_prepend(str(CRASHING))
    bad, good = written(tmp_path / "bad.wav", mark=b"spin at read"), written(tmp_path / "good.wav")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with Decoder(Limits(wait_s=9.0)) as decoder:
        kind, why = status(decoder, bad, RATE, 0.0, 0.5)
        assert (kind, why.split(", ")[-1]) == ("corrupt", "which gave no answer within 3 s of a core")
        assert 2.5 < resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 6.0
        for _ in range(3):  # each has a third anew
            assert len(decoder.read(good, RATE).wave) == RATE


def test_what_is_killed_once_is_read_at_the_second_try(
    crashing: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    path = written(tmp_path / "a.wav", mark=b"kill me once")
    assert len(crashing.read(path, RATE).wave) == RATE
    assert (tmp_path / "once").exists()


def test_what_needs_too_much_memory_is_corrupt(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(400 * 44_100, np.int16), 44_100)
    path = tmp_path / "a.wav"
    with Decoder(Limits(memory_bytes=120 << 20)) as decoder:
        assert status(decoder, path, 44_100)[1].endswith("needs more memory than a decoder may have; give a range")
        assert len(decoder.read(path, RATE, 0.0, 10.0).wave) == 10 * RATE


def test_a_decoder_that_cannot_start_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "soxr.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Decoder() as decoder, pytest.raises(JobError, match=r"ended with exit code 7; run it to see why"):
        decoder.read(written(tmp_path / "a.wav"), RATE)


def test_no_process_is_left(tmp_path: Path) -> None:
    before = children()
    decoder = Decoder()
    decoder.probe(written(tmp_path / "a.wav"))
    assert len(children()) == len(before) + 1
    decoder.close()
    assert children() == before


@pytest.mark.parametrize("mark", ["", "stall at read"])
def test_it_ends_with_its_parent(tmp_path: Path, mark: str) -> None:
    """However that ends, and in the middle of a file."""
    path = written(tmp_path / "a.wav", mark=mark.encode())
    code = (
        "import sys, pathlib; from instrunet.audio.isolated import Decoder; d = Decoder(); "
        "p = pathlib.Path(sys.argv[1]); d.probe(p); print(d._child.process.pid, flush=True); d.read(p, 22050); "
        "sys.stdin.read()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(CRASHING), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=env, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = Path("/proc") / parent.stdout.readline().strip()
        assert "instrunet.audio.child" in (child / "cmdline").read_text()
        time.sleep(0.3)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def test_a_child_that_even_a_kill_does_not_end_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a disk: here it is stopped, and our kill does not come."""
    path, kill = written(tmp_path / "a.wav"), os.killpg
    with Decoder(Limits(wait_s=0.5, wait_per_s=0.0)) as decoder:
        decoder.probe(path)
        first = decoder._child.process
        os.kill(first.pid, signal.SIGSTOP)
        monkeypatch.setattr(isolated.os, "killpg", lambda *_: None)
        began = time.monotonic()
        assert len(decoder.read(path, RATE).wave) == RATE
        assert time.monotonic() - began < 10 and first.poll() is None
        monkeypatch.undo()
        kill(first.pid, signal.SIGKILL)
        first.wait(5)


def test_after_an_interrupt_the_next_file_is_itself(tmp_path: Path) -> None:
    long, short = written(tmp_path / "long.wav", 240.0), written(tmp_path / "short.wav")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    was = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Decoder() as decoder:
            decoder.probe(short)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                decoder.read(long, RATE)
            assert len(decoder.read(short, RATE).wave) == RATE
    finally:
        signal.signal(signal.SIGALRM, was)


def _runs(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"  # whose parent has yet to look at it
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_starts_fast_because_it_loads_little() -> None:
    code = (
        "import sys, instrunet.audio.child; print(*sorted({'torch', 'scipy', 'pydantic', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_system_without_files_in_memory_has_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    path = written(tmp_path / "a.wav")
    with Decoder() as decoder:
        np.testing.assert_array_equal(decoder.read(path, RATE).wave, io.read(path, RATE).wave)


def test_a_long_reply_gives_its_memory_back_and_a_short_one_is_not_what_was_before(tmp_path: Path) -> None:
    long, short = written(tmp_path / "long.wav", 201.0), written(tmp_path / "short.wav", 1.0, b"other")
    with Decoder() as decoder:
        sizes = []
        for path in (short, long, short):
            np.testing.assert_array_equal(decoder.read(path, RATE).wave, io.read(path, RATE).wave)
            sizes.append(os.fstat(decoder._child.samples.fileno()).st_size)
    assert sizes == [4 * RATE, 0, 4 * RATE]
    assert 201 * 4 * RATE > isolated.KEPT_BYTES


def test_ahead_keeps_order_and_works_while_the_caller_does() -> None:
    assert list(ahead(str, range(5))) == list("01234")
    assert list(ahead(str, [])) == []
    begun = [threading.Event() for _ in range(4)]
    for n in ahead(lambda n: begun[n].set() or n, range(4)):
        assert n == 3 or begun[n + 1].wait(60)


def test_ahead_makes_as_many_as_it_is_told() -> None:
    made = [threading.Event() for _ in range(8)]
    coming = ahead(lambda n: made[n].set() or n, range(8), n=4)
    assert next(coming) == 0 and all(one.wait(60) for one in made[:5]) and not any(one.is_set() for one in made[5:])
    assert list(coming) == [1, 2, 3, 4, 5, 6, 7]


def test_deadlines_follow_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    os.truncate(path, 8_000_000)
    assert isolated._longest_s(path) == 1000
    os.truncate(path, 10**13)
    assert isolated._longest_s(path) == 6 * 3600
    assert isolated._longest_s(tmp_path / "missing") == 0
