"""Windows: what they leave unheard, whatever the length, the window and the hop."""

import numpy as np
import pytest

from instrunet.audio.windows import UNHEARD, cut, starts


def cases() -> list[tuple[int, int, int]]:
    """(n_samples, window, hop): small ones in full, large ones at random."""
    rng = np.random.default_rng(0)
    small = [(n, window, hop) for n in range(40) for window in (1, 2, 7, 10) for hop in (1, 3, 7) if hop <= window]
    large = []
    for _ in range(2000):
        window = int(rng.integers(1, 5000))
        large.append((int(rng.integers(1, 50_000)), window, int(rng.integers(max(1, window // 20), window + 1))))
    return small + large


def test_every_sample_is_heard_but_a_tenth_of_a_window_at_the_end() -> None:
    for n_samples, window, hop in cases():
        heard = np.zeros(n_samples, bool)
        for start in starts(n_samples, window, hop):
            heard[start : start + window] = True
        unheard = np.flatnonzero(~heard)
        assert len(unheard) <= UNHEARD * window, (n_samples, window, hop)
        assert not len(unheard) or unheard[0] == n_samples - len(unheard), "only the end may go unheard"


def test_windows_start_in_the_sound_and_end_in_it_unless_it_is_shorter() -> None:
    for n_samples, window, hop in cases():
        begins = starts(n_samples, window, hop)
        assert begins == sorted(set(begins))
        assert all(0 <= start < n_samples for start in begins)
        assert n_samples < window or all(start + window <= n_samples for start in begins)
        assert all(b - a == hop for a, b in zip(begins[:-1], begins[1:-1], strict=False))


@pytest.mark.parametrize(
    ("n_samples", "expected"),
    [
        (0, []),
        (1, [0]),
        (100, [0]),
        (110, [0]),  # a tenth goes unheard
        (111, [0, 11]),  # a sample more does not
        (200, [0, 100]),
        (250, [0, 100, 150]),
        (305, [0, 100, 200]),
    ],
)
def test_starts_of_windows_of_100_side_by_side(n_samples: int, expected: list[int]) -> None:
    assert starts(n_samples, 100, 100) == expected


def test_cut_holds_the_sound_itself_padded_behind() -> None:
    wave = np.arange(1, 26, dtype=np.float32)
    begins, windows = cut(wave, 10, 10)
    assert begins == [0, 10, 15]
    assert {window.dtype for window in windows} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(windows, [wave[:10], wave[10:20], wave[15:]])
    begins, windows = cut(wave[:4], 10, 10)
    assert begins == [0]
    np.testing.assert_array_equal(windows, [[1, 2, 3, 4, 0, 0, 0, 0, 0, 0]])
    assert cut(wave[:0], 10, 10) == ([], [])


def test_cut_agrees_with_numpy_where_windows_fit() -> None:
    wave = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    expected = np.lib.stride_tricks.sliding_window_view(wave, 100)[::25]
    np.testing.assert_array_equal(cut(wave, 100, 25)[1], expected)
