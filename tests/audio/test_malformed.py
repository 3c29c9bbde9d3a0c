"""Malformed and odd files each get their status, quickly and in little memory; mutated ones end in sound or status."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from malformed import BASES, KINDS, Kind, make, mutated

from instrunet.audio import io

RATE = 22_050
N_MUTATED = int(os.environ.get("INSTRUNET_MUTATIONS", "2000"))  # 100,000 by hand
SLOWEST_S = 30.0
MOST_MEMORY = 2**30


def judged(path: Path) -> dict[str, object]:
    started = time.monotonic()
    try:
        sound = io.read(path, RATE)
    except io.DecodeError as error:
        told = {"status": error.status, "error": str(error), "flags": []}
    else:
        status, reason = io.verdict(sound, RATE)
        told = {"status": status, "error": reason, "flags": sound.flags, "kept_s": len(sound.wave) / RATE}
    return told | {"seconds": time.monotonic() - started}


def peak_memory() -> int:
    """Bytes; not ru_maxrss, which a process inherits from the one that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def judge_all(folder: Path) -> None:
    """Run in a process of its own, whose peak of memory is then that of the table."""
    for number, kind in enumerate(KINDS):
        (folder / str(number)).mkdir()
        sys.stdout.write(json.dumps(judged(make(kind, folder / str(number)))) + "\n")
    sys.stdout.write(json.dumps(peak_memory()) + "\n")


def mutate_all(folder: Path, n: int, seed: int) -> None:
    """Counts of what came of `n` mutated files; anything but sound or a status ends the process."""
    rng = np.random.default_rng(seed)
    short = (("frames", 6000), ("channels", 2))
    names = ("pcm16", "flac", "ogg", "mp3", "float", "flac", "ogg", "mp3", "w64", "aiff", "opus", "au", "caf", "rf64")
    originals = [make(Kind(f"{name}.{BASES[name][0]}", "", name, short), folder).read_bytes() for name in names]
    path, counts, slowest = folder / "mutated", dict.fromkeys(("sound", "damaged", "corrupt"), 0), 0.0
    for number in range(n):
        path.write_bytes(mutated(originals[number % len(originals)], rng))
        started = time.monotonic()
        try:
            sound = io.read(path, RATE, 0.0, 5.0 if number % 2 else None)
        except io.DecodeError as error:
            counts[error.status] += 1
        else:
            counts["damaged" if sound.damage else "sound"] += 1
            assert np.isfinite(sound.wave).all() and sound.wave.dtype == np.float32
        slowest = max(slowest, time.monotonic() - started)
    memory = peak_memory()
    sys.stdout.write(json.dumps(counts | {"slowest_s": slowest, "memory": memory}) + "\n")


def in_a_process(*words: str, module: str = "test_malformed") -> list[str]:
    here = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    code = "import sys, pathlib, {} as t; t.{}(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))"
    done = subprocess.run(
        [sys.executable, "-c", code.format(module, words[0]), *words[1:]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(here)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, object]], int]:
    *rows, memory = [json.loads(line) for line in in_a_process("judge_all", str(tmp_path_factory.mktemp("table")))]
    return rows, memory


def test_every_kind_gets_its_status(table: tuple[list[dict[str, object]], int]) -> None:
    rows, _ = table
    assert len(rows) == len(KINDS) > 200
    wrong = [
        f"{kind.name!r}: expected {kind.status or 'whole'} {kind.flags}, got {row}"
        for kind, row in zip(KINDS, rows, strict=True)
        if row["status"] != kind.status or row["flags"] != list(kind.flags) or kind.error not in str(row["error"])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_kind_takes_long_or_much(table: tuple[list[dict[str, object]], int]) -> None:
    rows, memory = table
    assert memory < MOST_MEMORY
    assert {kind.name for kind, row in zip(KINDS, rows, strict=True) if float(str(row["seconds"])) > SLOWEST_S} == set()


def test_of_a_damaged_file_is_kept_what_it_holds(table: tuple[list[dict[str, object]], int]) -> None:
    kept = {kind.name: row.get("kept_s") for kind, row in zip(KINDS, table[0], strict=True)}
    for base in ("pcm8", "pcm16", "pcm24", "pcm32", "float", "double", "alaw", "ulaw", "rf64"):
        assert kept[f"{base}_cut_at_50%.wav"] == pytest.approx(1.5, abs=0.01), base
    for name in ("aiff_cut_at_50%.aiff", "au_cut_at_50%.au", "w64_cut_at_50%.w64"):
        assert kept[name] == pytest.approx(1.5, abs=0.01), name
    for name in ("flac_cut_at_50%.flac", "mp3_cut_at_50%.mp3", "ogg_cut_at_50%.ogg"):
        assert kept[name] == pytest.approx(1.1, abs=0.5), name
    assert all(kept[kind.name] == pytest.approx(3, abs=0.1) for kind in KINDS if kind.flags == ("open_length",))


def test_names_are_all_told_apart() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_mutated_files_end_in_sound_or_a_status(tmp_path: Path) -> None:
    (line,) = in_a_process("mutate_all", str(tmp_path), str(N_MUTATED), "0")
    told = json.loads(line)
    assert told["sound"] + told["damaged"] + told["corrupt"] == N_MUTATED
    assert min(told["sound"], told["damaged"], told["corrupt"]) > N_MUTATED / 50, told
    assert told["slowest_s"] < SLOWEST_S and told["memory"] < MOST_MEMORY, told
