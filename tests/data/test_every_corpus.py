"""Class folders, and what holds for every corpus."""

from pathlib import Path

from corpora_made import by_name, message, sound

from instrunet.data import corpora
from instrunet.data.corpora import (
    FolderSpec,
    IrmasSpec,
    notes,
    read,
    recognise,
)

# Class folders


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat/a.wav", "cat/deep/b.ogg", "dog/a.flac", "dog/._a.wav"):
        sound(tmp_path / "pets" / name) if "._" not in name else (tmp_path / "pets" / name).write_bytes(b"")
    (tmp_path / "pets" / "dog" / "notes.txt").touch()
    root = tmp_path / "pets"
    frame = read(FolderSpec(root=root))
    assert by_name(frame) == {
        "a.wav": (["cat"], "cat/a.wav", ""),
        "b.ogg": (["cat"], "cat/deep/b.ogg", ""),
        "a.flac": (["dog"], "dog/a.flac", ""),
    }
    assert set(frame["corpus"]) == {"pets"}
    assert [note.split(":")[0] for note in notes(frame)] == [f"no grouping is known of {root}"]
    assert recognise(root) == FolderSpec(root=root)
    (root / "groups.csv").write_text("path,group\n./cat/a.wav,tape 1\ncat/deep/b.ogg,tape 1\ndog/a.flac,tape 2\n")
    frame = read(FolderSpec(root=root))
    assert sorted(frame["group"]) == ["tape 1", "tape 1", "tape 2"]
    assert notes(frame) == []


def test_class_folder_mistakes_are_told(tmp_path: Path) -> None:
    assert "found no sound file" in message(lambda: read(FolderSpec(root=tmp_path)))
    sound(tmp_path / "cat" / "a.wav")
    table = tmp_path / "groups.csv"
    for text, expected in (
        ("path,group\ndog/b.wav,g\n", f"{table} gives no group for cat/a.wav; add a row path,group for each file"),
        ("path,group\ncat/a.wav,g\n./cat/a.wav,h\n", "cat/a.wav is of group 'g' and of 'h'; keep one of them"),
        ("path,group\ncat/a.wav,\n", "line 2: the group is empty; give both path and group"),
        ("path,group\n../a.wav,g\n", "line 2: the path '../a.wav' leaves the folder"),
        ("path,group\n", f"{table} lists no files; add rows of path,group or remove it"),
        ("path\n", "needs the columns path and group; it lacks group"),
    ):
        table.write_text(text)
        assert expected in message(lambda: read(FolderSpec(root=tmp_path)))
    table.unlink()
    sound(tmp_path / "loose.wav")
    told = message(lambda: read(FolderSpec(root=tmp_path)))
    assert told == f"expected every sound of {tmp_path} in a folder named as its class, got loose.wav beside them"


# All of them


def test_every_corpus_has_a_function_and_a_spec_of_its_name() -> None:
    assert set(corpora.CORPORA) == {
        *("irmas", "csv", "folder", "guitar_notes", "idmt_smt_guitar", "ravdess", "gtzan", "nsynth", "openmic", "synth")
    }
    for name in sorted(set(corpora.CORPORA) - {"synth", "csv", "folder"}):
        assert callable(getattr(corpora, name))


def test_sound_that_tells_no_label_is_not_guessed_at(tmp_path: Path) -> None:
    sound(tmp_path / "take1.wav")
    assert message(lambda: recognise(tmp_path)) == (
        f"expected labelled sound in {tmp_path} (metadata.csv, class folders, or the names of IRMAS, RAVDESS, GTZAN, "
        "NSynth or OpenMIC), found take1.wav, which tells no label; write metadata.csv (path,label,group)"
    )


def test_irmas_is_recognised_before_class_folders(tmp_path: Path) -> None:
    for label in ("cel", "flu"):
        sound(tmp_path / label / f"[{label}][nod][cla]0001__1.wav")
    assert recognise(tmp_path) == IrmasSpec(root=tmp_path)
    test = sound(tmp_path / "test" / "Part1" / "(01) cake-5.wav")
    test.with_suffix(".txt").write_text("gel")
    assert recognise(tmp_path / "test") == IrmasSpec(root=tmp_path / "test")


def test_files_that_repeat_another_are_noted_for_the_audit(tmp_path: Path) -> None:
    for label in ("cel", "flu"):
        sound(tmp_path / label / f"[{label}][nod][cla]0001__1.wav")
    frame = read(IrmasSpec(root=tmp_path))
    assert notes(frame) == [
        "1 files of IRMAS repeat another byte for byte (the real set has about 56 such pairs); audit them"
    ]
