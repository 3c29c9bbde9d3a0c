"""One unit, one row: each status from a real file, scores that are the bundle's own, and a row that always fits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from archives import (
    LABELS,
    RATE,
    sound,
    tiny_bundle,
    work_rows,
    write,
    write_archive,
    write_boundless_flac,
    write_cut_mp3,
    write_streamed_flac,
)

from instrunet.archive import tagger
from instrunet.archive.speed import Clock
from instrunet.archive.units import UnitSpec
from instrunet.bundle import Bundle

LONG = UnitSpec(unit_s=3)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagger")
    write_archive(folder)
    return folder


@pytest.fixture(scope="module")
def rows(archive: Path, bundle: Bundle) -> list[dict[str, Any]]:
    return tag_all(archive, bundle)


def tag_all(archive: Path, bundle: Bundle, spec: UnitSpec = LONG) -> list[dict[str, Any]]:
    return [tagger.tag(unit, bundle) for unit in work_rows(archive, spec, bundle.fingerprint)]


def of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["uri"].endswith(f"/{name}")]


def tag_wave(path: Path, wave: np.ndarray, bundle: Bundle, rate: int = RATE, **how: Any) -> dict[str, Any]:
    soundfile.write(path, wave, rate, **how)
    (row,) = tag_all(path, bundle)
    return row


def test_every_status_comes_from_a_real_file(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = write_archive(tmp_path)
    assert set(expected.values()) == set(tagger.STATUSES) - {"deleted"}  # tests/archive/test_runs.py
    assert {name: {row["status"] for row in of(rows, name)} for name in expected} == {
        name: {status} for name, status in expected.items()
    }


def test_a_row_fits_whatever_happened(rows: list[dict[str, Any]], bundle: Bundle) -> None:
    table = tagger.table(rows)
    assert table.schema == tagger.SCHEMA and len(table) == len(rows)
    assert all(list(row) == tagger.SCHEMA.names for row in table.to_pylist())
    assert {row["bundle"] for row in rows} == {bundle.fingerprint}
    for name in set(tagger.SCHEMA.names) - {"stop_s"}:
        assert table.column(name).null_count == 0, name


def test_a_row_says_what_was_wrong_and_only_then(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert bool(row["error"]) == (row["status"] != "tagged"), row
    assert of(rows, "short.wav")[0]["error"] == "0.030 s of sound, 0.05 s needed"
    assert "fewer than its header promises" in of(rows, "cut.mp3")[0]["error"]


def test_only_what_sounds_has_scores(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(row["scores"]) == len(row["window_start_s"])
        assert row["scores"] or row["status"] != "tagged"
        assert not row["scores"] or row["status"] in ("tagged", "damaged")


def test_scores_are_probabilities_that_move_with_the_sound(rows: list[dict[str, Any]]) -> None:
    scores = np.array([scores for row in rows for scores in row["scores"]])
    assert scores.shape[1] == len(LABELS)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert np.ptp(scores, axis=0).max() > 0.05  # or the tests below would pass for any sound


def test_window_starts_are_positions_in_the_file(rows: list[dict[str, Any]]) -> None:
    first, second, last = of(rows, "long.wav")
    assert first["window_start_s"] == [0, 1, 2]
    assert second["window_start_s"] == [3, 4, 5]
    np.testing.assert_allclose(last["window_start_s"], [6.0, 6.3])  # the last window is flush with the end


def test_a_unit_is_scored_as_its_stretch_alone(
    rows: list[dict[str, Any]], archive: Path, bundle: Bundle, tmp_path: Path
) -> None:
    wave, rate = soundfile.read(archive / "deep/er/long.wav", dtype="float32")
    for row in of(rows, "long.wav"):
        stretch = wave[round(row["start_s"] * rate) : round(row["stop_s"] * rate)]
        np.testing.assert_allclose(row["scores"], bundle(stretch, rate).window_scores, atol=1e-5)
        alone = bundle(write(tmp_path / "stretch.wav", stretch))
        np.testing.assert_allclose(row["scores"], alone.window_scores, atol=1e-5)


def test_units_of_another_rate_are_scored_as_the_whole_file(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", sound(6.0, rate=44_100), 44_100)
    cut = [scores for row in tag_all(path, bundle) for scores in row["scores"]]
    np.testing.assert_allclose(cut, bundle(path).window_scores, atol=0.01)


def test_multi_label_scores_are_each_their_own(archive: Path) -> None:
    row = of(tag_all(archive, tiny_bundle("multi")), "a.wav")[0]
    sums = np.array(row["scores"]).sum(1)
    assert ((np.array(row["scores"]) >= 0) & (np.array(row["scores"]) <= 1)).all() and (abs(sums - 1) > 0.01).all()


def test_a_number_that_is_none_gives_none(bundle: Bundle, tmp_path: Path) -> None:
    wave = sound(2.0)
    wave[[0, 100, 9000]] = np.nan, np.inf, -np.inf
    row = tag_wave(tmp_path / "nan.wav", wave, bundle, subtype="FLOAT")
    assert (row["status"], row["flags"]) == ("tagged", ["nonfinite"])
    assert len(row["scores"]) == 2 and np.isfinite(row["scores"]).all()


def test_nothing_but_nan_is_silence(bundle: Bundle, tmp_path: Path) -> None:
    row = tag_wave(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), bundle, subtype="FLOAT")
    assert (row["status"], row["flags"], row["scores"]) == ("silent", ["nonfinite"], [])


@pytest.mark.parametrize(
    ("flags", "wave"),
    [
        ([], sound(1.0)),
        (["clipped"], np.clip(sound(1.0) * 9, -1, 1)),
        (["out_of_range"], sound(1.0) * 9),
        (["dc"], sound(1.0) * 0.5 + 0.5),
    ],
)
def test_flags_say_what_is_odd(flags: list[str], wave: np.ndarray, bundle: Bundle, tmp_path: Path) -> None:
    row = tag_wave(tmp_path / "odd.wav", wave, bundle, subtype="FLOAT")
    assert (row["status"], row["flags"]) == ("tagged", flags)


def test_a_damaged_sound_is_scored_as_far_as_it_goes(rows: list[dict[str, Any]]) -> None:
    (first, second) = of(rows, "cut.mp3")
    kept = sorted(at for row in (first, second) for at in row["window_start_s"])
    assert kept[0] == 0 and kept[-1] < 3  # of four seconds
    assert (first["stop_s"], second["stop_s"]) == (3, 4)  # the range stays that of the work list: the books count it


def test_damage_is_not_hidden_by_silence(bundle: Bundle, tmp_path: Path) -> None:
    path = write_cut_mp3(tmp_path / "cut.mp3")
    whole = write(tmp_path / "zeros.mp3", np.zeros(22_050 * 4, np.float32), 22_050).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (row,) = tag_all(path, bundle, UnitSpec())
    assert (row["status"], row["scores"]) == ("damaged", [])
    assert "fewer than its header promises" in row["error"]


def test_a_file_that_went_after_the_listing_is_unreadable(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(1.0))
    (unit,) = work_rows(tmp_path, LONG, bundle.fingerprint)
    path.unlink()
    row = tagger.tag(unit, bundle)
    assert (row["status"], row["stop_s"]) == ("unreadable", 1.0)
    assert row["error"].endswith("found nothing")


def test_a_stream_without_a_length_is_tagged(bundle: Bundle, tmp_path: Path) -> None:
    (row,) = tag_all(write_streamed_flac(tmp_path / "streamed.flac"), bundle)
    assert row["status"] == "tagged" and len(row["window_start_s"]) == 2
    assert 2 - 4096 / RATE < row["stop_s"] <= 2  # libsndfile gives up inside FLAC's last block


def test_a_header_that_promises_an_absurd_length_ends_no_part(bundle: Bundle, tmp_path: Path) -> None:
    (row,) = tag_all(write_boundless_flac(tmp_path / "boundless.flac"), bundle)
    assert row["status"] in ("damaged", "corrupt") and row["error"]


def test_an_end_that_only_decoding_tells_is_filled_in(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(1.5))
    unit = work_rows(path, LONG, bundle.fingerprint)[0] | {"stop_s": None}
    assert tagger.tag(unit, bundle)["stop_s"] == 1.5


def test_a_part_says_what_it_came_to_and_what_took_how_long(archive: Path, bundle: Bundle) -> None:
    clock, units = Clock(), work_rows(archive, LONG, bundle.fingerprint)
    made = tagger.counts(units, tagger.tag_all(units, bundle, clock=clock))
    assert (made["files"], made["bad"], made["gets"]) == (11, 5, 0)
    assert made["audio_s"] == pytest.approx(2.5 + 7.3 + 1.2 + 1.0 + 0.03 + 4.0 + 2.5, abs=0.2)
    assert all(clock.seconds[stage] > 0 for stage in ("decode", "features", "network"))
    sizes = {"a": 0, "b": 1, "c": 16 << 20, "d": 17 << 20}
    remote = [{"uri": f"s3://b/{name}", "start_s": 0.0, "status": "", "n_bytes": n} for name, n in sizes.items()]
    assert tagger.counts(remote + remote, [])["gets"] == 1 + 1 + 1 + 2  # once for all units of one


def test_an_object_is_fetched_once_for_the_units_that_follow_each_other(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    @contextmanager
    def sound_of(uri: str, n_bytes: int | None = None) -> Iterator[Path]:
        fetched.append(uri)
        yield Path(uri)

    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav", sound(4.5, 300 if name == "a" else 400))
    units = work_rows(tmp_path, UnitSpec(unit_s=1), bundle.fingerprint)
    plain = tagger.tag_all(units, bundle)
    monkeypatch.setattr(tagger.places, "sound", sound_of)
    assert tagger.tag_all(units, bundle) == plain and len(plain) == 10
    assert fetched == [f"{tmp_path}/a.wav", f"{tmp_path}/b.wav"]
