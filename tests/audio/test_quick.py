"""The fast way to read a FLAC gives what the sturdy one gives, or nothing."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from malformed import mutated

from instrunet.audio import decoder, io, quick

pytest.importorskip("miniaudio")
RATE = 22_050
N_MUTATED = int(os.environ.get("INSTRUNET_MUTATIONS", "2000"))  # 100,000 by hand


def written(path: Path, seconds: float = 1.0, channels: int = 2, subtype: str = "PCM_16") -> Path:
    rng = np.random.default_rng(channels)
    sf.write(path, 0.1 * rng.standard_normal((round(seconds * 44_100), channels)), 44_100, subtype=subtype)
    return path


def quickly(path: Path) -> np.ndarray | None:
    with decoder.opened(path) as found:
        return found.quickly()


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_it_gives_the_samples_that_soundfile_gives(tmp_path: Path, channels: int) -> None:
    path = written(tmp_path / "a.flac", channels=channels)
    np.testing.assert_array_equal(quickly(path), sf.read(path, dtype="int16", always_2d=True)[0])


def test_what_is_read_does_not_tell_which_decoder_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.flac", 3.0)
    fast = io.read(path, RATE)
    monkeypatch.setattr(quick, "lib", None)
    assert quickly(path) is None
    sturdy = io.read(path, RATE)
    np.testing.assert_array_equal(fast.wave, sturdy.wave)
    assert (fast.damage, fast.flags) == (sturdy.damage, sturdy.flags) == ("", [])


def test_a_file_that_does_not_fit_in_memory_is_left_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(content: bytes, frames: int, channels: int) -> None:
        raise MemoryError

    path = written(tmp_path / "a.flac")
    whole = io.read(path, RATE)
    monkeypatch.setattr(quick, "_decoded", refuse)
    assert quickly(path) is None
    np.testing.assert_array_equal(io.read(path, RATE).wave, whole.wave)


def test_samples_are_held_as_long_as_any_view_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[object] = []
    free = quick._free
    monkeypatch.setattr(quick, "_free", lambda memory: (freed.append(memory), free(memory)))
    path = written(tmp_path / "a.flac")
    view = quickly(path)[100:200]
    gc.collect()
    assert freed == []
    np.testing.assert_array_equal(view, sf.read(path, dtype="int16", always_2d=True)[0][100:200])
    del view
    gc.collect()
    assert len(freed) == 1


@pytest.mark.parametrize(("at", "value"), [(30, None), (3000, None), (slice(26, 42), bytes(16))])
def test_nothing_is_taken_that_the_checksum_does_not_confirm(
    tmp_path: Path, at: int | slice, value: bytes | None
) -> None:
    path = written(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    if isinstance(at, slice):
        content[at] = value or b""
    else:
        content[at] ^= 1
    path.write_bytes(content)
    assert quickly(path) is None


def test_other_files_are_not_its_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quickly(written(tmp_path / "a.wav")) is None
    assert quickly(written(tmp_path / "24.flac", subtype="PCM_24")) is None
    path = written(tmp_path / "long.flac")
    monkeypatch.setattr(quick, "MOST", 44_100)  # samples of all channels; it holds twice as many
    assert quickly(path) is None


def test_mutated_files_end_in_the_right_samples_or_in_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", 0.1)
    whole, original, rng = quickly(path), path.read_bytes(), np.random.default_rng(0)
    n_taken = 0
    for _ in range(N_MUTATED):
        path.write_bytes(mutated(original, rng))
        try:
            got = quickly(path)
        except io.DecodeError:
            continue
        if got is not None:
            n_taken += 1
            np.testing.assert_array_equal(got.ravel(), whole.ravel())
    assert 0 < n_taken < N_MUTATED / 2
