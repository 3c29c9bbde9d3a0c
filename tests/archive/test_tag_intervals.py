"""Windows to intervals: what touches is one, thresholds and the limit are the bundle's, times are the file's."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import sound, tag_archive, tiny_bundle, write

from instrunet.archive import books, intervals
from instrunet.archive.units import UnitSpec
from instrunet.bundle_spec import BundleSpec
from instrunet.rule import Rule

ROW = {"bell": [0.9, 0.05, 0.05], "drum": [0.1, 0.8, 0.1], "horn": [0.2, 0.1, 0.7]}


def rule(kind: str = "single", **fields: Any) -> Rule:
    return Rule(BundleSpec.model_validate(tiny_bundle(kind).spec.model_dump() | fields))  # type: ignore[arg-type]


def found(
    scores: list[list[float]], starts: list[float], decides: Rule, window_s: float = 1.0
) -> list[tuple[Any, ...]]:
    start_s = np.array(starts, float)
    rows = intervals.of_recording("/a.wav", start_s, start_s + 1, np.array(scores), decides)
    return [(row["label"], row["start_s"], row["stop_s"]) for row in rows]


def test_windows_that_touch_are_one_interval() -> None:
    scores = [ROW[name] for name in ("bell", "bell", "drum", "drum", "bell")]
    assert found(scores, [0, 1, 2, 3, 4], rule()) == [("bell", 0, 2), ("drum", 2, 4), ("bell", 4, 5)]


def test_windows_that_overlap_are_one_interval_and_gaps_part_them() -> None:
    scores = [ROW["bell"]] * 4
    assert found(scores, [0, 0.5, 1.0, 3.0], rule()) == [("bell", 0, 2), ("bell", 3, 4)]


def test_peak_and_mean_are_of_its_own_windows() -> None:
    scores = np.array([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], ROW["drum"]])
    start_s = np.arange(3.0)
    first = intervals.of_recording("/a.wav", start_s, start_s + 1, scores, rule())[0]
    assert (first["peak"], first["mean"]) == (0.8, pytest.approx(0.7))


def test_several_labels_have_intervals_of_their_own() -> None:
    scores = [[0.9, 0.6, 0.1], [0.9, 0.2, 0.1], [0.1, 0.2, 0.3]]
    assert found(scores, [0, 1, 2], rule("multi")) == [("bell", 0, 2), ("drum", 0, 1)]
    assert found(scores, [0, 1, 2], rule("multi", thresholds=[0.95, 0.1, 0.3])) == [("drum", 0, 3), ("horn", 2, 3)]


def test_an_unsure_window_is_in_no_interval() -> None:
    scores = [ROW["bell"], [0.4, 0.35, 0.25], ROW["bell"]]
    unsure = rule(decisions={"abstain_below": 0.5})
    assert found(scores, [0, 1, 2], unsure) == [("bell", 0, 1), ("bell", 2, 3)]


def test_nothing_heard_is_no_interval() -> None:
    assert found([], [], rule()) == []


def test_intervals_of_an_archive_cross_units_and_end_with_the_sound(tmp_path: Path) -> None:
    """Every window of the long file is over a threshold of 0: one interval a label from its start to its end."""
    write(tmp_path / "in/long.wav", sound(7.3))
    bundle = tiny_bundle("multi")
    bundle.rule.spec = bundle.spec.model_copy(update={"thresholds": (0.0, 0.0, 1.0)})
    work = tag_archive(tmp_path / "in", tmp_path / "out", bundle, UnitSpec(unit_s=2, part_units=2))
    books.close(tmp_path / "out", work, bundle)
    (path,) = (tmp_path / "out/intervals").glob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [(row["label"], row["start_s"], row["stop_s"]) for row in rows] == [
        ("bell", 0.0, pytest.approx(7.3)),
        ("drum", 0.0, pytest.approx(7.3)),
    ]
    assert pq.read_schema(path).names == ["uri", "label", "start_s", "stop_s", "peak", "mean"]
    assert all(0 < row["mean"] <= row["peak"] <= 1 for row in rows)
