"""RAVDESS: names as the real ones have them, copies, and EmoBox's folds."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from corpora_made import by_name, message, sound

from instrunet.data import corpora, manifest, split
from instrunet.data.corpora import (
    RavdessSpec,
    emobox_folds,
    notes,
    read,
    recognise,
)
from instrunet.data.readers.ravdess import EMOBOX_FOLDS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def ravdess_set(root: Path, actors: Sequence[int] = range(1, 25)) -> Path:
    for actor in actors:
        for emotion in ("01", "08"):
            sound(root / f"Actor_{actor:02d}" / f"03-01-{emotion}-01-01-01-{actor:02d}.wav", 0.01)
    return root


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("03-01-01-01-02-01-01.wav", "neutral", "actor-01"),
        ("03-02-02-02-02-02-24.WAV", "calm", "actor-24"),  # song
        ("03-01-03-01-01-01-10.ogg", "happy", "actor-10"),
        ("03-01-04-01-01-01-19.flac", "sad", "actor-19"),
        ("03-01-05-02-01-01-20.wav", "angry", "actor-20"),
        ("03-01-06-01-01-01-09.wav", "fearful", "actor-09"),
        ("03-01-07-01-01-01-12.wav", "disgust", "actor-12"),
        ("03-01-08-01-01-01-12.wav", "surprised", "actor-12"),
    ],
)
def test_ravdess_names(tmp_path: Path, name: str, label: str, group: str) -> None:
    sound(tmp_path / f"Actor_{group[-2:]}" / name)
    (tmp_path / "01-01-05-01-01-01-01.mp4").touch()  # a film
    assert by_name(read(RavdessSpec(root=tmp_path))) == {name: ([label], group, "")}
    assert recognise(tmp_path) == RavdessSpec(root=tmp_path)


@pytest.mark.parametrize(
    "stem",
    [
        *("01-01-05-01-01-01-01", "03-03-05-01-01-01-01", "03-01-09-01-01-01-01", "03-01-00-01-01-01-01"),
        *("03-01-05-01-01-01-25", "03-01-05-01-01-01-00", "03-01-05-01-01-01", "03-01-05-01-01-01-01-2", "angry"),
    ],
)
def test_a_ravdess_name_that_is_none_is_refused(tmp_path: Path, stem: str) -> None:
    sound(tmp_path / f"{stem}.wav")
    told = message(lambda: read(RavdessSpec(root=tmp_path)))
    assert told.startswith("expected a name like 03-01-05-01-02-01-12.wav (MM-VV-EE-II-SS-RR-AA: modality 03, ")
    assert told.endswith(f", got {stem}.wav")


def test_ravdess_copies_are_left_out(tmp_path: Path) -> None:
    ravdess_set(tmp_path, [1, 2])
    ravdess_set(tmp_path / "audio_speech_actors_01-24", [1])
    frame = read(RavdessSpec(root=tmp_path))
    assert len(frame) == 4
    assert not frame["uri"].str.contains("audio_speech").any()
    assert notes(frame) == [f"2 files of {tmp_path} have the name of another and are left out"]


def test_emobox_folds(tmp_path: Path) -> None:
    assert sorted(actor for fold in EMOBOX_FOLDS for actor in fold) == list(range(1, 25))
    frame = read(RavdessSpec(root=ravdess_set(tmp_path)))
    folds = emobox_folds(frame["group"])
    assert [len(fold) for fold in folds] == [4] * 6
    assert folds[0] == ("actor-01", "actor-11", "actor-20", "actor-21")
    assert emobox_folds(group for group in frame["group"] if group != "actor-13") == []
    for number in (1, 6):
        sides = read(RavdessSpec(root=tmp_path, fold=number)).groupby("split")["group"].unique()
        assert sorted(sides["test"]) == sorted(folds[number - 1])
        assert sorted(sides["val"]) == sorted(folds[number % 6])
        assert len(sides["train"]) == 16
    told = message(lambda: read(RavdessSpec(root=tmp_path / "Actor_01", fold=1)))
    assert told == "EmoBox's folds need all 24 actors, found 1; add the others or unset data.fold"
    (tmp_path / "empty").mkdir()
    assert "found none" in message(lambda: read(RavdessSpec(root=tmp_path / "empty")))


def test_ravdess_names_are_those_of_the_shared_pack() -> None:
    root = SHARED / "emotion"
    if not root.is_dir():
        pytest.skip(f"{root} is not on this machine")
    ours, theirs = by_name(read(RavdessSpec(root=root))), by_name(corpora.csv_folder(root))
    assert ours == {
        name: (labels, group.removeprefix("ravdess-"), part) for name, (labels, group, part) in theirs.items()
    }


def test_notes_do_not_change_a_manifest(tmp_path: Path) -> None:
    frame = read(RavdessSpec(root=ravdess_set(tmp_path)))
    noted = frame.copy()
    noted.attrs["notes"] = ["something"]
    path = manifest.save(noted, tmp_path / "manifest.parquet")
    assert manifest.digest(manifest.load(path)) == manifest.digest(frame)
    filled, _ = split.assign(noted.assign(sha256=""), split.SplitSpec())  # the actors of the fixture share their files
    assert notes(filled) == ["something"]
