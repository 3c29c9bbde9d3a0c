"""Guitar notes by the metadata table, and by the annotations of IDMT-SMT-Guitar, each in a folder made here."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from corpora_made import message, sound

from instrunet.data.corpora import (
    GuitarNotesSpec,
    IdmtSmtGuitarSpec,
    notes,
    read,
    recognise,
)
from instrunet.data.readers.guitar import GUITAR_COLUMNS, idmt_table

# Guitar notes: the metadata table


def event(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "subset_id": "dataset2",
        "source_audio": "audio/AR_Lick1_FN.wav",
        "source_annotation": "annotation/AR_Lick1_FN.xml",
        "event_index": 0,
        "onset_sec": 0.25,
        "offset_sec": 0.75,
        "duration_sec": 0.5,
        "pitch_midi": 64,
        "string_number": None,  # optional
        "fret_number": 0,
        "excitation_style": "PK",
        "expression_style": "NO",
        "label_category": "general_note",
        "is_harmonic": False,
        "is_dead_note": False,
        "is_general_note": True,
    }
    return row | changes


HARMONIC = {"expression_style": "HA", "label_category": "harmonic", "is_harmonic": True, "is_general_note": False}


def notes_table(root: Path, rows: Sequence[dict[str, object]], name: str = "metadata.csv") -> Path:
    sound(root / "audio" / "AR_Lick1_FN.wav", 2)
    (root / name).parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(rows)
    if name.endswith(".parquet"):
        frame.to_parquet(root / name)
    else:
        frame.to_csv(root / name, index=False)
    return root


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.parquet"])
def test_guitar_notes_are_ranges_grouped_by_recording(tmp_path: Path, name: str) -> None:
    rows = [event(), event(onset_sec=1, offset_sec=1.5, source_audio="./audio/AR_Lick1_FN.wav", **HARMONIC)]
    root = notes_table(tmp_path / "notes", rows, name)
    frame = read(GuitarNotesSpec(root=root)).sort_values("start_s")
    assert tuple(pd.DataFrame(rows).columns) == GUITAR_COLUMNS
    assert frame[["start_s", "stop_s"]].to_numpy().tolist() == [[0.25, 0.75], [1.0, 1.5]]
    assert list(frame["labels"]) == [["general_note"], ["harmonic"]]
    assert set(frame["group"]) == {"audio/AR_Lick1_FN.wav"}
    assert recognise(root) == GuitarNotesSpec(root=root)


def test_a_table_elsewhere_in_the_folder_and_a_chord(tmp_path: Path) -> None:
    rows = [event(), event(pitch_midi=67, event_index=1), event(onset_sec=1.0, offset_sec=1.1, split="test")]
    root = notes_table(tmp_path, rows, "processed/notes.csv")
    frame = read(GuitarNotesSpec(root=root, table=Path("processed/notes.csv")))
    assert sorted(zip(frame["start_s"], frame["split"], strict=True)) == [(0.25, ""), (1.0, "test")]
    told = message(lambda: read(GuitarNotesSpec(root=root)))
    assert told.startswith(
        f"expected the table of note events at {root}/metadata.csv or {root}/metadata.parquet, found"
    )


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.parquet"])
def test_missing_columns_of_the_table_are_named(tmp_path: Path, name: str) -> None:
    rows = [{k: v for k, v in event().items() if k not in ("onset_sec", "is_dead_note")}]
    told = message(lambda: read(GuitarNotesSpec(root=notes_table(tmp_path, rows, name))))
    assert told.endswith("excitation_style, expression_style, label_category, is_harmonic, is_dead_note and "
                         "is_general_note; it lacks onset_sec, is_dead_note")  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label_category": "HA"}, "label_category is 'HA'; use one of harmonic, dead_note, general_note"),
        ({"is_harmonic": True}, "label_category is 'general_note' and is_harmonic is 'True'; make them agree"),
        ({"onset_sec": "soon"}, "onset_sec is 'soon'; give seconds, as in 1.25"),
        ({"offset_sec": float("inf")}, "offset_sec is 'inf'; give seconds, as in 1.25"),
        ({"onset_sec": 2}, "expected 0 <= onset_sec < offset_sec, got 2 and 0.75; correct them"),
        ({"source_audio": ""}, "source_audio is empty; name a sound file, relative to the folder"),
        ({"split": "valid"}, "the split is 'valid'; use one of train, val, test, official, or leave it empty"),
        (
            {"source_audio": "../x.wav"},
            "the path '../x.wav' leaves the folder; keep the sound inside it and name it relative to it",
        ),
    ],
)
def test_mistakes_in_the_table_are_told_with_their_line(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    root = notes_table(tmp_path, [event(**changes)])
    assert message(lambda: read(GuitarNotesSpec(root=root))) == f"{root}/metadata.csv line 2: {expected}"


def test_one_range_with_two_labels_and_an_empty_table_are_refused(tmp_path: Path) -> None:
    root = notes_table(tmp_path / "a", [event(), event(**HARMONIC)])
    assert message(lambda: read(GuitarNotesSpec(root=root))).endswith(
        "0.25 to 0.75 s of audio/AR_Lick1_FN.wav is general_note in another row and harmonic here; keep one of them"
    )
    (root / "metadata.csv").write_text(",".join(GUITAR_COLUMNS))
    assert "lists no note events" in message(lambda: read(GuitarNotesSpec(root=root)))
    (root / "metadata.csv").unlink()
    (root / "metadata.parquet").write_bytes(b"PAR1 no")
    assert "is not a Parquet file" in message(lambda: read(GuitarNotesSpec(root=root)))


# IDMT-SMT-Guitar


def note(onset: object, offset: object, expression: str = "NO", excitation: str = "PK") -> str:
    return (
        f"<event><pitch>64</pitch><onsetSec>{onset}</onsetSec><offsetSec>{offset}</offsetSec><fretNumber>0</fretNumber>"
        f"<stringNumber>1</stringNumber><excitationStyle>{excitation}</excitationStyle>"
        f"<expressionStyle>{expression}</expressionStyle></event>"
    )


def annotation(root: Path, stem: str, notes: str, named: str | None = None) -> Path:
    """As in the real corpus: dataset2/annotation/X.xml beside dataset2/audio/X.wav, the name as a Windows path."""
    path = root / "dataset2" / "annotation" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<instrumentRecording><globalParameter>'
        f"<audioFileName>{named or chr(92) + stem + '.wav'}</audioFileName><instrument>EGUI</instrument>"
        f"</globalParameter><transcription>{notes}</transcription></instrumentRecording>"
    )
    return path


def test_idmt_annotations_become_the_table(tmp_path: Path) -> None:
    audio = sound(tmp_path / "dataset2" / "audio" / "G_Lick1.wav", 3)
    expressions = ("HA", "DN", "NO", "VI", "BE", "SL", "TR")
    events = "".join(note(n / 4, n / 4 + 0.2, style, "MU") for n, style in enumerate(expressions))
    annotation(tmp_path, "G_Lick1", events + note(2.5, 2.5))
    (tmp_path / "dataset2" / "annotation" / "layer.xml").write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE sonic-visualiser>\n<sv><data/></sv>'
    )
    (tmp_path / "dataset2" / "annotation" / "other.xml").write_text("<sv/>")
    frame = read(IdmtSmtGuitarSpec(root=tmp_path)).sort_values("start_s")
    assert [labels[0] for labels in frame["labels"]] == ["harmonic", "dead_note", *["general_note"] * 5]
    assert set(frame["uri"]) == {str(audio)}
    assert set(frame["group"]) == {"dataset2/audio/G_Lick1.wav"}
    assert set(frame["corpus"]) == {"idmt_smt_guitar"}
    assert notes(frame) == ["1 events end before they begin and are left out"]
    (_, first), *_ = idmt_table(tmp_path)[0]
    assert tuple(first) == GUITAR_COLUMNS
    assert list(first.values()) == [
        *("dataset2", "dataset2/audio/G_Lick1.wav", "dataset2/annotation/G_Lick1.xml", "0", "0.0", "0.2", "0.2"),
        *("64", "1", "0", "MU", "HA", "harmonic", "True", "False", "False"),
    ]


def test_idmt_finds_a_recording_by_stem_then_by_name_and_keeps_a_missing_one(tmp_path: Path) -> None:
    for name in ("audio/a.wav", "audio/copied.wav", "elsewhere/named.wav"):
        sound(tmp_path / "dataset2" / name)
    annotation(tmp_path, "a", note(0, 0.05), "copied.wav")  # copied from another annotation
    annotation(tmp_path, "b", note(0, 0.05), "C:\\takes\\named.wav")
    annotation(tmp_path, "c", note(0, 0.05), "gone.wav")
    frame = read(IdmtSmtGuitarSpec(root=tmp_path))
    assert {Path(uri).name for uri in frame["uri"]} == {"a.wav", "named.wav", "gone.wav"}
    assert list(frame.loc[frame["sha256"] == "", "group"]) == ["dataset2/annotation/gone.wav"]
    sound(tmp_path / "dataset1" / "named.wav")
    assert "may be of" in message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))
    annotation(tmp_path, "b", note(0, 0.05), "..")
    assert "leaves the folder" in message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))


LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><instrumentRecording>&b;</instrumentRecording>'


@pytest.mark.parametrize(
    "data",
    [
        LAUGHS.encode(),
        LAUGHS.encode("utf-16"),
        b"<!-- " + b"x" * 100_000 + b" -->" + LAUGHS.encode(),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><instrumentRecording/>',
        b'<!DOCTYPE sonic-visualiser ><!DOCTYPE sonic-visualiser [<!ENTITY a "ha">]><sv>&a;</sv>',
    ],
)
def test_idmt_entities_are_never_expanded(tmp_path: Path, data: bytes) -> None:
    path = annotation(tmp_path, "a", "")
    path.write_bytes(data)
    told = message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))
    assert told == f"expected an annotation without DOCTYPE in {path}, got one; remove it (entities can explode)"


def test_idmt_mistakes_are_told(tmp_path: Path) -> None:
    told = message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))
    assert told.startswith("expected IDMT-SMT-Guitar's annotations (instrumentRecording/transcription/event, .xml)")
    path = annotation(tmp_path, "a", note(0, ""))
    told = message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))
    assert told == f"{path} event 0: expected seconds in offsetSec, got 'nothing'; correct the annotation"
    for data in (b"<instrumentRecording>", b"", b'<?xml version="1.0" encoding="klingon"?><a/>'):
        path.write_bytes(data)
        assert f"{path} is not XML that can be read" in message(lambda: read(IdmtSmtGuitarSpec(root=tmp_path)))
