"""Prediction: a table to read, lines to parse, and an exit code that says whether every file gave sound."""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from archives import LABELS, sound, tiny_bundle, write, write_cut_mp3

import instrunet
from instrunet.bundle import Bundle
from instrunet.decisions import Decisions
from instrunet.errors import BundleError, JobError
from pipelines import predict


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle().save(tmp_path_factory.mktemp("predict") / "bundle")


def ask(bundle: Path, *files: Path, as_json: bool = False) -> None:
    predict.run(argparse.Namespace(bundle=bundle, files=list(files), json=as_json, match=None, verbose=False))


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
