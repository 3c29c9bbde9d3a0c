"""Corpora: what names and tables mean, quirks included, and what is said of a folder that is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from instrunet.data import manifest, split
from instrunet.data.corpora import CsvSpec, IrmasSpec, SynthCorpusSpec, csv_folder, irmas, read, recognise
from instrunet.data.split import SplitSpec
from instrunet.data.synth import SynthSpec
from instrunet.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(800), 8000)
    return path


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_name(frame: pd.DataFrame) -> dict[str, tuple[list[str], str, str]]:
    rows = zip(frame["uri"], frame["labels"], frame["group"], frame["split"], strict=True)
    return {Path(uri).name: (labels, group, part) for uri, labels, group, part in rows}


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("[cel][cla]0001__1", "cel", "cel/0001"),
        ("[cel][nod][cla]0058__3", "cel", "cel/0058"),
        ("008__[cel][nod][cla]0058__1", "cel", "cel/0058"),
        ("[cla][cla]0150__2", "cla", "cla/0150"),  # a clarinet in classical music
        ("118__[sax][dru][jaz_blu]1702__3", "sax", "sax/1702"),
        ("[pia][pop_roc]1702__10", "pia", "pia/1702"),  # the same number as the saxophone's, another recording
        ("1131__[voi][pop_roc]2449__1", "voi", "voi/2449"),
    ],
)
def test_irmas_training_names(tmp_path: Path, name: str, label: str, group: str) -> None:
    sound(tmp_path / "IRMAS-TrainingData" / label / f"{name}.wav")
    assert by_name(irmas(tmp_path)) == {f"{name}.wav": ([label], group, "")}


def test_what_names_and_columns_tell_besides_are_traits(tmp_path: Path) -> None:
    names = ("[cel][dru][cou_fol]0001__1", "003__[cel][nod][cla]0002__1", "[cla][jaz_blu]0003__1")
    for name in names:
        sound(tmp_path / "irmas" / "cel" / f"{name}.wav")
    told = {Path(row["uri"]).stem: list(row["traits"]) for row in irmas(tmp_path / "irmas").to_dict("records")}
    assert told == {
        names[0]: ["genre=cou_fol", "drums=yes"],
        names[1]: ["genre=cla", "drums=no"],
        names[2]: ["genre=jaz_blu"],
    }
    sound(tmp_path / "csv" / "a.wav")
    table = "path,label,group,split,mood,licence\na.wav,x,g,test,calm,\n"
    (tmp_path / "csv" / "metadata.csv").write_text(table, encoding="utf-8")
    assert [list(own) for own in csv_folder(tmp_path / "csv")["traits"]] == [["mood=calm"]]


def test_irmas_numbers_recur_across_classes_as_other_groups(tmp_path: Path) -> None:
    for label in ("cel", "cla", "pia"):
        for clip in (1, 2, 3):
            sound(tmp_path / label / f"[{label}][nod][cla]0007__{clip}.wav")
    frame = irmas(tmp_path)
    assert len(frame) == 9
    assert sorted(frame.groupby("group").size().items()) == [("cel/0007", 3), ("cla/0007", 3), ("pia/0007", 3)]


@pytest.mark.parametrize(
    ("stem", "text", "labels", "group"),
    [
        ("(01) cake-5", b"gel\t\r\nvoi\t\r\n", ["gel", "voi"], "test/cake"),
        ("(02) don't kill the whale-12", b"voi\n", ["voi"], "test/don't kill the whale"),
        ("08 - a-b-c-1", b"pia\t\n\ngac", ["gac", "pia"], "test/08 - a-b-c"),
        ("no number", b"\xef\xbb\xbfsax\r\n", ["sax"], "test/no number"),
        ("[cla][cla]0001__1", b"cla\n", ["cla"], "test/[cla][cla]0001__1"),
    ],
)
def test_irmas_testing_pairs(tmp_path: Path, stem: str, text: bytes, labels: list[str], group: str) -> None:
    path = sound(tmp_path / "IRMAS-TestingData-Part2" / "Part2" / f"{stem}.wav")
    path.with_suffix(".txt").write_bytes(text)
    assert by_name(irmas(tmp_path)) == {path.name: (labels, group, "official")}


def test_excerpts_of_a_title_are_one_group(tmp_path: Path) -> None:
    for n in (1, 2, 11):
        sound(tmp_path / f"(03) so what-{n}.wav").with_suffix(".txt").write_text("tru\t\r\n")
    assert set(irmas(tmp_path)["group"]) == {"test/so what"}


@pytest.mark.parametrize(
    ("text", "came"),
    [(b"gel\t\nbanjo\t\n", "the label 'banjo'"), (b"\r\n", "no label"), (b"caf\xe9", "the label 'café'")],
)
def test_irmas_label_that_is_none_is_refused(tmp_path: Path, text: bytes, came: str) -> None:
    sound(tmp_path / "(01) cake-5.wav").with_suffix(".txt").write_bytes(text)
    told = message(lambda: irmas(tmp_path))
    classes = "cel cla flu gac gel org pia sax tru vio voi"
    assert told == f"{tmp_path}/(01) cake-5.txt holds {came}; expected one of {classes} a line"


@pytest.mark.parametrize("name", ["holiday.wav", "[xyz][cla]0001__1.wav", "[cel]0001__1.wav", "[cel][nod][cla]1.wav"])
def test_irmas_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    sound(tmp_path / "cel" / name)
    expected = "expected a name like [cel][nod][cla]0001__2.wav, or a .txt of labels beside it, got "
    assert message(lambda: irmas(tmp_path)) == expected + name


@pytest.mark.parametrize("litter", [None, ".DS_Store", "README.txt"])
def test_irmas_class_without_clips_is_refused(tmp_path: Path, litter: str | None) -> None:
    sound(tmp_path / "cel" / "[cel][cla]0001__1.wav")
    (tmp_path / "flu").mkdir()
    if litter:
        (tmp_path / "flu" / litter).touch()
    expected = f"class 'flu' has a folder under {tmp_path} but no clips; fill it or remove the folder"
    assert message(lambda: irmas(tmp_path)) == expected


def test_hidden_files_of_an_unpacked_archive_are_no_clips(tmp_path: Path) -> None:
    path = sound(tmp_path / "cel" / "[cel][cla]0001__1.wav")
    path.with_name("._" + path.name).write_bytes(b"a Mac's notes on the file")
    assert list(by_name(irmas(tmp_path))) == [path.name]


def test_folders_without_a_corpus_are_refused(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", sound(tmp_path / "a.wav")
    empty = tmp_path / "empty"
    empty.mkdir()
    for function in (irmas, csv_folder, recognise):
        assert message(lambda f=function: f(missing)) == f"expected a folder of sound at {missing}, found nothing"
        assert message(lambda f=function: f(file)) == f"expected a folder of sound at {file}, found a file"
    assert message(lambda: irmas(empty)).endswith(f"under {empty}, found no .wav file")
    assert message(lambda: csv_folder(empty)) == (
        f"expected metadata.csv (path,label,group) in {empty}, found none; write one or use data.name=irmas"
    )
    told = message(lambda: recognise(empty))
    assert told == f"expected labelled sound in {empty} (metadata.csv, or IRMAS's folders), found neither"


def test_recognise(tmp_path: Path) -> None:
    sound(tmp_path / "i" / "cel" / "[cel][cla]0001__1.wav")
    assert recognise(tmp_path / "i") == IrmasSpec(root=tmp_path / "i")
    (tmp_path / "i" / "metadata.csv").touch()
    assert recognise(tmp_path / "i") == CsvSpec(root=tmp_path / "i")


def test_the_embedded_corpus_is_made_and_read(tmp_path: Path) -> None:
    small = SynthSpec(recordings=3, clips=1, clip_s=0.5, mixtures=2, sample_rate=8000)
    spec = SynthCorpusSpec(root=tmp_path / "synth", synth=small)
    frame = read(spec)
    assert len(frame) == 11 * 3 + 2
    assert set(frame["corpus"]) == {"synth"}
    assert (frame["split"] == "official").sum() == 2
    assert manifest.digest(read(spec)) == manifest.digest(frame)
    filled, notes = split.assign(frame, SplitSpec())
    assert (notes, set(filled["split"])) == ([], {"train", "val", "test", "official"})


def table(root: Path, text: str | bytes) -> Path:
    """A folder with three sounds and this metadata.csv."""
    for name in ("a.wav", "sub/b.wav", "c.wav"):
        sound(root / name)
    (root / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_csv_rows(tmp_path: Path) -> None:
    text = "path,label,group,split,note\r\na.wav, x ; y;x ,g1,train,\r\n\r\nsub/b.wav,x, g2 ,,hello\r\n"
    root = table(tmp_path / "mine", text)
    frame = csv_folder(root)
    assert by_name(frame) == {"a.wav": (["x", "y"], "g1", "train"), "b.wav": (["x"], "g2", "")}
    assert set(frame["corpus"]) == {"mine"}


def test_csv_with_a_byte_order_mark_and_columns_in_any_order(tmp_path: Path) -> None:
    root = table(tmp_path / "mine", b'\xef\xbb\xbfgroup,path,label\ng1,a.wav,"x"\n')
    assert by_name(csv_folder(root)) == {"a.wav": (["x"], "g1", "")}


def test_csv_of_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = table(tmp_path / "mine", "path,label,group\na.wav,x,g\n")
    monkeypatch.chdir(tmp_path)
    relative = csv_folder(Path("mine"))
    pd.testing.assert_frame_equal(relative, csv_folder(root))
    assert message(lambda: csv_folder(Path())).startswith("expected metadata.csv")


def test_a_listed_but_missing_file_is_kept_as_a_row(tmp_path: Path) -> None:
    frame = csv_folder(table(tmp_path / "mine", "path,label,group\na.wav,x,g\ngone.wav,x,g\n"))
    row = frame.set_index("uri").loc[str(tmp_path / "mine" / "gone.wav")]
    assert (row["labels"], row["sha256"]) == (["x"], "")
    assert np.isnan(row["stop_s"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.wav,x\n", "needs the columns path, label and group; it lacks group"),
        ("a.wav,x,g\n", "needs the columns path, label and group; it lacks path, label, group"),
        ("", "needs the columns path, label and group; it lacks path, label, group"),
        ("path,label,group\n", "lists no clips; add rows of path,label,group"),
        ("path,label,group\na.wav,,g\n", "line 2: the label is empty; name a class, or several joined by ';'"),
        ("path,label,group\na.wav, ; ,g\n", "line 2: the label is empty; name a class, or several joined by ';'"),
        ("path,label,group\na.wav\n", "line 2: the label is empty; name a class, or several joined by ';'"),
        ("path,label,group\n\n\na.wav,x, \n", "line 4: the group is empty; name the recording, speaker or player"),
        ("path,label,group\n ,x,g\n", "line 2: the path is empty; name a sound file, relative to the folder"),
        (
            "path,label,group,split\na.wav,x,g,valid\n",
            "line 2: the split is 'valid'; use one of train, val, test, official, or leave it empty",
        ),
    ],
)
def test_csv_mistakes_are_told_with_their_line(tmp_path: Path, text: str, expected: str) -> None:
    root = table(tmp_path / "mine", text)
    assert message(lambda: csv_folder(root)) == f"{root}/metadata.csv {expected}"


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for text in ("path,label,group\na.wav,café,g\n".encode("latin-1"), "path,label,group\n".encode("utf-16")):
        root = table(tmp_path / "mine", text)
        told = message(lambda r=root: csv_folder(r))
        assert told.startswith(f"{root}/metadata.csv is not CSV in UTF-8: ")
        assert told.endswith("; save it as such")


def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    outside = sound(tmp_path / "outside" / "o.wav")
    root = table(tmp_path / "mine", "")
    (root / "link.wav").symlink_to(outside)
    (root / "door").symlink_to(outside.parent)
    inside = str(root / "a.wav")  # absolute: a folder that is moved would lose it
    for name in ("../outside/o.wav", str(outside), "link.wav", "door/o.wav", "sub/../a.wav", inside):
        (root / "metadata.csv").write_text(f"path,label,group\n{name},x,g\n")
        assert message(lambda: csv_folder(root)) == (
            f"{root}/metadata.csv line 2: the path {name!r} leaves the folder; "
            "keep the sound inside it and name it relative to it"
        )
    (root / "inner.wav").symlink_to(root / "a.wav")
    (root / "metadata.csv").write_text("path,label,group\ninner.wav,x,g\n")
    assert list(by_name(csv_folder(root))) == ["inner.wav"]


def test_a_clip_listed_twice_is_refused(tmp_path: Path) -> None:
    root = table(tmp_path / "mine", "path,label,group\na.wav,x,g\n./a.wav,y,g\n")
    assert message(lambda: csv_folder(root)) == (
        f"mine: {root}/a.wav is listed twice (1 such rows); list each clip once"
    )


@pytest.mark.parametrize(
    ("name", "n_clips"), [("digits", 1000), ("emotion", 960), ("guitar-notes", 381), ("instruments", 1401)]
)
def test_shared_corpora_are_read_and_split(name: str, n_clips: int) -> None:
    if not (SHARED / name / "metadata.csv").is_file():
        pytest.skip(f"{SHARED / name} is not on this machine")
    frame = csv_folder(SHARED / name)
    assert len(frame) == n_clips
    assert frame["stop_s"].notna().all()
    filled, _ = split.assign(frame, SplitSpec())
    assert (filled.groupby("group")["split"].nunique() == 1).all()
    assert set(filled["split"]) == {"train", "val", "test"}
    for part in ("train", "test"):
        assert manifest.labels_of(filled[filled["split"] == part]) == manifest.labels_of(frame)
