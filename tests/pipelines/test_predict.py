"""Prediction: a table to read, lines to parse, and an exit code that says whether every file gave sound."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import LABELS, RATE, sound, tiny_bundle, write, write_cut_mp3
from conftest import ROOT
from matplotlib.image import imread

import instrunet
from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.decisions import Decisions
from instrunet.errors import BundleError, JobError
from instrunet.report import heard
from pipelines import predict


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle().save(tmp_path_factory.mktemp("predict") / "bundle")


def ask(bundle: Path, *files: Path | str, as_json: bool = False, picture: Path | None = None) -> Path | None:
    rest = {"json": as_json, "match": None, "verbose": False, "picture": picture, "runtime": "torch"}
    return predict.run(argparse.Namespace(bundle=bundle, files=list(files), **rest))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def cells_of(table: str) -> list[list[str]]:
    return [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]


def test_a_table_names_labels_and_best_scores(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.wav", sound(1.5))
    ask(saved, path)
    found, shown = instrunet.load(saved)(path), capsys.readouterr().out
    file, labels, scores, status = (" ".join(cells).split() for cells in zip(*cells_of(shown), strict=True))
    best = sorted(found.scores, key=lambda label: -found.scores[label])
    assert scores == [word for label in best for word in (label, f"{found.scores[label]:.2f}")]
    assert ("".join(file), labels, status) == (str(path), found.labels, ["tagged"])


def test_an_unsure_sound_is_told_as_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle()
    spec = bundle.spec.model_copy(update={"decisions": Decisions(abstain_below=1.0)})
    saved, path = Bundle(spec, bundle.network).save(tmp_path / "bundle"), write(tmp_path / "a.wav", sound(1.5))
    ask(saved, path)
    assert [" ".join(cells[1] for cells in cells_of(capsys.readouterr().out)).split()] == [["no", "answer"]]
    ask(saved, path, as_json=True)
    (line,) = lines(capsys)
    assert (line["labels"], line["flags"]) == ([], ["no_answer"])


def test_json_is_a_line_a_file(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / f"{k}.wav", sound(1.5, 300 * k)) for k in (1, 2)]
    ask(saved, *files, as_json=True)
    for path, line in zip(files, lines(capsys), strict=True):
        assert line == {"file": str(path), "status": "tagged", **instrunet.load(saved)(path).to_dict()}
        assert list(line["scores"]) == list(LABELS)
        assert (line["duration_s"], line["window_start_s"]) == (1.5, [0.0, 0.5])


def test_a_bad_file_fails_the_job_and_hides_no_other(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.wav").write_text("dear reader")
    files = [tmp_path / "letter.wav", tmp_path / "gone.wav", write(tmp_path / "a.wav", sound(1.0)), tmp_path]
    with pytest.raises(JobError, match=r"^3 of 4 files could not be decoded, the first is .*letter\.wav$"):
        ask(saved, *files, as_json=True)
    told = lines(capsys)
    assert [line["status"] for line in told] == ["corrupt", "unreadable", "tagged", "unreadable"]
    assert all(
        set(line) == {"file", "status", "error"} and line["error"] for line in told if line["status"] != "tagged"
    )


def test_a_bad_file_is_a_row_of_the_table(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JobError, match=r"^1 of 1 files"):
        ask(saved, tmp_path / "gone.wav")
    assert "unreadable" in capsys.readouterr().out


def test_a_damaged_file_is_told_and_fails_nothing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(saved, write_cut_mp3(tmp_path / "cut.mp3"), as_json=True)
    (line,) = lines(capsys)
    assert line["status"] == "damaged" and "fewer than its header promises" in line["error"]


@pytest.mark.parametrize("name", ["räksmörgås 箏.wav", "[cel][cla]0001__1.wav", ":cat: [bold]x[/bold].wav", "a\\b.wav"])
def test_names_are_shown_as_they_are(
    name: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), sound(1.0))
    ask(saved, Path(name))
    assert name in capsys.readouterr().out
    ask(saved, Path(name), as_json=True)
    told = capsys.readouterr().out
    assert json.loads(told)["file"] == name
    assert json.dumps(name, ensure_ascii=False) in told  # for eyes as well


def test_a_long_name_is_folded_and_not_cut(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("/nowhere", *(f"folder{k}" for k in range(12)), "a.wav")
    with pytest.raises(JobError):
        ask(saved, path)
    assert "".join(cells[0].strip() for cells in cells_of(capsys.readouterr().out)) == str(path)


def test_a_name_that_is_not_utf8_is_told(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / os.fsdecode(b"a\xff.wav")
    shutil.copy(write(tmp_path / "a.wav", sound(1.0)), odd)
    for as_json in (True, False):
        with pytest.raises(JobError, match=r"^1 of 1 files could not be decoded, the first is .*a\\xff\.wav$"):
            ask(saved, odd, as_json=as_json)
    shown = capsys.readouterr().out
    line = json.loads(shown.splitlines()[0])
    assert (line["file"], line["status"]) == (f"{tmp_path}/a\\xff.wav", "unreadable")
    assert cells_of(shown)[0][-1].strip() == "unreadable"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle"):
        ask(tmp_path, write(tmp_path / "a.wav", sound(1.0)))


def test_a_list_on_stdin(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(write(tmp_path / name, sound(1.0))) for name in ("a b.wav", "räksmörgås.wav")]
    listed = "\n".join([names[0], "", names[1]]).encode() + b"\r\n" + str(tmp_path / "gone.wav").encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    with pytest.raises(JobError, match=r"^1 of 4 files could not be decoded, the first is .*gone\.wav$"):
        ask(saved, names[1], "-", as_json=True)
    found = [(line["file"], line["status"]) for line in lines(capsys)]
    assert found == [(name, "tagged") for name in (names[1], *names)] + [(str(tmp_path / "gone.wav"), "unreadable")]


def test_pictures_of_what_was_heard(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = sound(3.0)
    files = [write(tmp_path / name / "a.wav", slide) for name in ("one", "two")]
    quiet = write(tmp_path / "quiet $x$ [箏].wav", np.zeros(RATE, np.float32))
    assert ask(saved, *files, quiet, picture=tmp_path / "pictures") == tmp_path / "pictures"
    drawn = {path.name: imread(path) for path in (tmp_path / "pictures").iterdir()}
    assert set(drawn) == {"a.png", "a-2.png", "quiet $x$ [箏].png"}
    np.testing.assert_array_equal(drawn["a.png"], drawn["a-2.png"])
    # A panel of what was heard, one of what of it counted, one of scores; a silent sound has no answer to rest on
    assert drawn["a.png"].shape[0] > drawn["quiet $x$ [箏].png"].shape[0] + 150
    capsys.readouterr()
    ask(saved, files[0], as_json=True, picture=tmp_path / "more")
    assert lines(capsys)[0]["picture"] == str(tmp_path / "more" / "a.png")


def test_what_an_answer_rests_on_is_where_the_network_looked() -> None:
    bundle = tiny_bundle()
    heard_of = Sound(sound(2.5))
    said = bundle.decided(heard_of)
    (_, ((begin, end, whole),)), (title, images) = heard._panels(bundle, heard_of, said)
    assert (begin, end, title) == (0.0, 2.5, f"what {said.labels[0]} rests on")
    assert [(a, b) for a, b, _ in images] == [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]
    windows = bundle.featurizer.fast(heard_of.wave).features["logmel"]
    low = np.percentile(windows, 0.5)
    loud = windows > low + 1
    share = (np.stack([image for _, _, image in images]) - low)[loud] / (windows - low)[loud]
    assert share.min() == pytest.approx(heard.DARK, abs=1e-3) and share.max() > 0.5  # dark, and bright
    assert len(whole) == windows.shape[1]


def test_a_cold_start_imports_nothing_that_it_does_not_need(saved: Path, tmp_path: Path) -> None:
    """Four seconds are promised, which benchmarks/inference.py measures; the clock of a busy machine tells nothing."""
    path = write(tmp_path / "a.wav", sound(1.5))
    code = f"import runpy, sys; sys.argv[:] = ['predict', {str(saved)!r}, {str(path)!r}, '--json']\n"
    code += f"try: runpy.run_path({str(ROOT / 'jobs/predict.py')!r}, run_name='__main__')\n"
    code += "except SystemExit as end: assert not end.code\n"
    heavy = {"ray", "mlflow", "pandas", "sklearn", "librosa", "scipy.signal", "matplotlib"}
    code += f"print(*sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, modules = done.stdout.splitlines()
    assert json.loads(told)["status"] == "tagged" and modules == ""
