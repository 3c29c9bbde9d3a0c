"""One call: what is loaded from where, many sounds, long ones, and how an answer looks in a terminal and a notebook."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from archives import RATE, sound, tiny_bundle, write
from rich.console import Console
from stores import Store, settings

import instrunet
from instrunet.bundle import Bundle
from instrunet.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


def test_a_bundle_in_a_store_is_loaded_and_hears_what_lies_there(
    store: Store, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings(store.port).items():
        monkeypatch.setenv(name, value)
    place = store.bucket("bundles")
    store.upload(bundle.save(tmp_path / "b"), f"{place}/mine")
    store.write(f"{place}/a.wav", write(tmp_path / "a.wav", sound(1.5)).read_bytes())
    loaded = instrunet.load(f"{place}/mine")
    assert loaded(f"{place}/a.wav") == loaded(tmp_path / "a.wav") == bundle(tmp_path / "a.wav")


@pytest.mark.parametrize("uri", ["models:/demo@champion", "runs:/abc/bundle"])
def test_what_only_mlflow_can_fetch_names_who_does(uri: str) -> None:
    with pytest.raises(ConfigError, match="pipelines.registry.load") as error:
        instrunet.load(uri)
    assert uri in str(error.value) and "\n" not in str(error.value)


def test_many_sounds_and_none_ends_the_others(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "letter.wav").write_text("dear reader")
    files = [write(tmp_path / "a.wav", sound(1.5)), tmp_path / "letter.wav", str(tmp_path / "gone.wav")]
    said = list(bundle.each([*files, tmp_path / "a.wav"]))
    assert [one.status for one in said] == ["tagged", "corrupt", "unreadable", "tagged"]
    alone = bundle(tmp_path / "a.wav")
    one_by_one = list(bundle.each([*files, tmp_path / "a.wav"], together=1))
    assert one_by_one[0] == one_by_one[3] == alone
    assert all(one.labels == alone.labels and one.window_start_s == alone.window_start_s for one in (said[0], said[3]))
    assert said[0].scores == pytest.approx(alone.scores, abs=1e-6)
    assert all(one.error and not one.labels and one.answer == one.status for one in said[1:3])
    arrays = list(bundle.each((sound(1.0, hz) for hz in (300, 600)), sample_rate=RATE))
    exact = list(bundle.each((sound(1.0, hz) for hz in (300, 600)), sample_rate=RATE, together=1))
    assert [one.scores for one in exact] == [bundle(sound(1.0, hz), RATE).scores for hz in (300, 600)]
    for one, hz in zip(arrays, (300, 600), strict=True):  # in a batch the last digit may be another
        assert one.scores == pytest.approx(bundle(sound(1.0, hz), RATE).scores, abs=1e-6)


def test_what_came_before_a_mistake_is_said(bundle: Bundle) -> None:
    said = []
    with pytest.raises(DataError, match="finite samples"):
        for one in bundle.each([sound(1.0), sound(1.0, 600), np.full(RATE, np.nan, np.float32)], RATE):
            said.append(one)
    assert [one.status for one in said] == ["tagged", "tagged"]


def test_long_sounds_are_not_held_together(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, judge = [], bundle._judge_together
    monkeypatch.setattr(bundle, "_judge_together", lambda seen: (sizes.append(len(seen)), judge(seen))[1])
    lengths = [1.0, 20.0, 20.0, 1.0, 1.0]
    said = list(bundle.each([sound(seconds) for seconds in lengths], RATE, together=2))
    assert [round(one.duration_s) for one in said] == [1, 20, 20, 1, 1] and sizes == [2, 2, 1]
    sizes.clear()
    assert len(list(bundle.each([sound(70.0)] * 3, RATE, together=4))) == 3 and sizes == [1, 1, 1, 0]


def test_a_long_file_in_pieces_is_the_file(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", sound(7.0))
    whole, pieces = bundle(path), list(bundle.pieces(path, piece_s=2))
    assert [one.start_s for one in pieces] == [0, 2, 4, 6]
    assert sum(one.duration_s for one in pieces) == pytest.approx(7)
    assert [at for one in pieces for at in one.window_start_s] == whole.window_start_s
    scores = [row for one in pieces for row in one.window_scores]
    np.testing.assert_allclose(scores, whole.window_scores, atol=1e-5)
    assert len(list(bundle.pieces(path, piece_s=100))) == 1
    with pytest.raises(ConfigError, match="expected a length above 0 s"):
        list(bundle.pieces(path, piece_s=0))


def test_a_table_for_a_terminal(bundle: Bundle) -> None:
    said = bundle(sound(3.0), RATE)
    console = Console(width=80, record=True, file=StringIO())
    console.print(said)
    shown = console.export_text()
    assert shown.split()[0] == said.answer == said.labels[0]
    assert all(f"{label}" in shown and f"{score:.3f}" in shown for label, score in said.scores.items())
    assert "tagged, 3.00 s, 3 windows" in shown
    console.print(bundle(np.zeros(RATE, np.float32), RATE))
    assert "no sample above -80 dBFS" in " ".join(console.export_text().split())


def test_a_picture_for_a_notebook(bundle: Bundle) -> None:
    said = bundle(sound(3.0), RATE)
    page = ElementTree.fromstring(said._repr_html_())
    (svg,) = page.iter("svg")
    lines = [line.get("points", "").split() for line in svg.iter("polyline")]
    assert len(lines) == len(said.scores) and {len(points) for points in lines} == {3}
    best = said.window_scores[0][list(said.scores).index(said.ranked[0][0])]
    assert lines[0][0] == f"0.0,{110 * (1 - best):.1f}"  # the first window of the best label, from the top
    assert not list(ElementTree.fromstring(bundle(sound(1.0), RATE)._repr_html_()).iter("svg"))  # a point is no curve


def test_names_of_labels_are_text_and_no_markup(bundle: Bundle) -> None:
    spec = bundle.spec.model_copy(update={"labels": ("<b>", "[bold]", "a&b")})
    said = Bundle(spec, bundle.network)(sound(1.0), RATE)
    cells = {"".join(cell.itertext()) for cell in ElementTree.fromstring(said._repr_html_()).iter("td")}
    assert {"<b>", "[bold]", "a&b"} <= cells


def test_a_script_that_predicts_knows_no_ray_mlflow_pandas_or_librosa(bundle: Bundle, tmp_path: Path) -> None:
    saved, path = bundle.save(tmp_path / "bundle"), write(tmp_path / "a.wav", sound(1.0))
    code = (
        "import json, sys, time; start = time.perf_counter(); import instrunet; took = time.perf_counter() - start;"
        f"said = instrunet.load({str(saved)!r})({str(path)!r});"
        "names = {'ray', 'mlflow', 'pandas', 'librosa', 'scipy.signal', 'matplotlib', 'rich', 'onnx'} & {*sys.modules};"
        "print(json.dumps([took, sorted(names), said.to_dict()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, names, said = json.loads(done.stdout)
    assert took < 1.5 and names == []
    assert said == bundle(path).to_dict()
