"""The other corpora: names, tables and annotations as the real ones have them, each in a folder made here."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from instrunet.data import corpora, manifest, split
from instrunet.data.corpora import (
    FolderSpec,
    GtzanSpec,
    GuitarNotesSpec,
    IdmtSmtGuitarSpec,
    IrmasSpec,
    NsynthSpec,
    OpenmicSpec,
    RavdessSpec,
    emobox_folds,
    notes,
    read,
    recognise,
)
from instrunet.data.readers.gtzan import GENRES
from instrunet.data.readers.guitar import GUITAR_COLUMNS, idmt_table
from instrunet.data.readers.openmic import LABELS as OPENMIC_LABELS
from instrunet.data.readers.ravdess import EMOBOX_FOLDS
from instrunet.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def sound(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(round(8000 * seconds)), 8000)
    return path


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_name(frame: pd.DataFrame) -> dict[str, tuple[list[str], str, str]]:
    rows = zip(frame["uri"], frame["labels"], frame["group"], frame["split"], strict=True)
    return {Path(uri).name: (labels, group, part) for uri, labels, group, part in rows}


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


# RAVDESS


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


# GTZAN


def test_gtzan_keeps_the_published_lists(tmp_path: Path) -> None:
    # jazz.00033 is in no list; jazz.00100 is none of the thousand
    for stem in ("blues.00029", "blues.00012", "blues.00000", "jazz.00033"):
        sound(tmp_path / "genres_original" / stem.split(".")[0] / f"{stem}.wav")
    sound(tmp_path / "genres_original" / "jazz" / "jazz.00100.au", 0.1)
    frame = read(GtzanSpec(root=tmp_path))
    assert by_name(frame) == {
        "blues.00029.wav": (["blues"], "blues.00029", "train"),
        "blues.00000.wav": (["blues"], "blues.00000", "val"),
        "blues.00012.wav": (["blues"], "blues.00012", "test"),
    }
    assert notes(frame) == ["2 files are not in GTZAN's fault-filtered lists and are left out"]
    whole = read(GtzanSpec(root=tmp_path, lists=False))
    assert by_name(whole)["jazz.00033.wav"] == (["jazz"], "jazz.00033", "")
    assert notes(whole) == ["excerpts of one artist may fall on both sides of a split; set data.artists"]
    assert len(whole) == 5
    assert recognise(tmp_path) == GtzanSpec(root=tmp_path)


def test_the_published_lists_are_whole_and_disjoint() -> None:
    from torchaudio.datasets import gtzan as published

    lists = [set(stems) for stems in (published.filtered_train, published.filtered_valid, published.filtered_test)]
    assert [len(stems) for stems in lists] == [443, 197, 290]
    assert len(set.union(*lists)) == 930
    assert {stem.split(".")[0] for stem in set.union(*lists)} == set(GENRES)


def test_gtzan_groups_by_artist_where_a_table_says_so(tmp_path: Path) -> None:
    for stem in ("rock.00000", "rock.00001"):
        sound(tmp_path / "rock" / f"{stem}.wav")
    table = tmp_path / "artists.csv"
    table.write_text("file,artist\nrock.00000.wav,Queen\nrock/rock.00001.au,Queen\n")
    spec = GtzanSpec(root=tmp_path, lists=False, artists=Path("artists.csv"))
    assert set(read(spec)["group"]) == {"artist/Queen"}
    assert notes(read(spec)) == []
    table.write_text("file,artist\nrock.00000.wav,Queen\n")
    assert message(lambda: read(spec)) == (
        "artists.csv gives no artist for rock.00001; add a row file,artist for each excerpt"
    )
    table.write_text("file,artist\nrock.wav,Queen\n")
    assert message(lambda: read(spec)).startswith(
        f"{table} line 2: expected a file like blues.00000.wav and its artist"
    )
    table.unlink()
    assert message(lambda: read(spec)).startswith(f"expected the table of artists (file,artist) at {table}, found none")


def test_gtzan_mistakes_are_told(tmp_path: Path) -> None:
    assert "found no sound file" in message(lambda: read(GtzanSpec(root=tmp_path)))
    path = sound(tmp_path / "polka" / "polka.00001.wav")
    told = message(lambda: read(GtzanSpec(root=tmp_path)))
    assert told.startswith("expected a name like blues.00000.wav (genres: blues classical country ")
    path.unlink()
    path = sound(tmp_path / "rock" / "blues.00001.wav")
    told = message(lambda: read(GtzanSpec(root=tmp_path)))
    assert told == "blues.00001.wav lies in the folder 'rock'; expected it in 'blues'"
    path.rename(tmp_path / "jazz.00033.wav")
    told = message(lambda: read(GtzanSpec(root=tmp_path)))
    assert told == f"none of the 1 files under {tmp_path} is in the published lists; set data.lists=false"


# NSynth


def nsynth_set(root: Path, instrument: str = "bass_synthetic_033", side: str = "") -> Path:
    examples = {}
    for pitch in (22, 50):
        name = f"{instrument}-{pitch:03d}-050"
        sound(root / side / "audio" / f"{name}.wav")
        examples[name] = {
            "note_str": name,
            "pitch": pitch,
            "instrument_str": instrument,
            "instrument_family_str": instrument.split("_")[0],
            "qualities": [0, 1],
        }
    (root / side / "examples.json").write_text(json.dumps(examples))
    return root


def test_nsynth_label_is_the_family_and_group_the_instrument(tmp_path: Path) -> None:
    frame = read(NsynthSpec(root=nsynth_set(tmp_path / "nsynth-valid")))
    assert by_name(frame) == {
        f"bass_synthetic_033-{pitch}-050.wav": (["bass"], "bass_synthetic_033", "") for pitch in ("022", "050")
    }
    assert recognise(tmp_path / "nsynth-valid") == NsynthSpec(root=tmp_path / "nsynth-valid")


def test_nsynth_keeps_its_three_sides(tmp_path: Path) -> None:
    nsynth_set(tmp_path, "organ_electronic_000", "nsynth-train")
    nsynth_set(tmp_path, "flute_acoustic_002", "nsynth-valid")
    assert set(read(NsynthSpec(root=tmp_path))["split"]) == {""}  # no test side yet: split here
    nsynth_set(tmp_path, "string_acoustic_014", "nsynth-test")
    frame = read(NsynthSpec(root=tmp_path))
    sides = dict(zip(frame["group"], frame["split"], strict=True))
    assert sides == {"organ_electronic_000": "train", "flute_acoustic_002": "val", "string_acoustic_014": "test"}
    assert recognise(tmp_path) == NsynthSpec(root=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON that can be read"),
        ("[" * 100_000, "is not JSON that can be read"),
        ("[1]", "holds a list; expected an object of NOTE: its fields"),
        ("{}", "lists no notes"),
        ('{"a": 1}', "note 'a': expected an object of fields, got int"),
        ('{"a": {"instrument_family_str": 3}}', "note 'a': expected a text in instrument_family_str, got 3"),
        ('{"a": {"instrument_family_str": "bass"}}', "note 'a': expected a text in instrument_str, got None"),
        (
            '{"../../a": {"instrument_family_str": "bass", "instrument_str": "b"}}',
            "note '../../a': the path 'audio/../../a.wav' leaves the folder",
        ),
    ],
)
def test_nsynth_mistakes_are_told(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "examples.json").write_text(text)
    assert f"{tmp_path}/examples.json {expected}" in message(lambda: read(NsynthSpec(root=tmp_path)))


def test_nsynth_without_its_table_is_refused(tmp_path: Path) -> None:
    assert message(lambda: read(NsynthSpec(root=tmp_path))).startswith(
        "expected NSynth's examples.json (beside audio/)"
    )


# OpenMIC


def openmic_set(root: Path, rows: str = "") -> Path:
    rows = rows or (
        "000046_3840,clarinet,0.17105,3\n000046_3840,flute,0.0,3\n"  # heard neither: left out
        "000178_3840,guitar,0.5,4\n000178_3840,voice,1.0,3\n000178_3840,violin,0.49,3\n"
        "000297_38400,voice,0.2,3\n000297_38400,voice,0.9,3\n"  # rated twice: the later row counts
    )
    for key in ("000046_3840", "000178_3840", "000297_38400"):
        sound(root / "audio" / key[:3] / f"{key}.ogg")
    root.joinpath(OPENMIC_LABELS).write_text("sample_key,instrument,relevance,num_responses\n" + rows)
    (root / "class-map.json").write_text(
        json.dumps({"clarinet": 4, "flute": 7, "guitar": 8, "violin": 18, "voice": 19})
    )
    (root / "partitions").mkdir(exist_ok=True)
    (root / "partitions" / "split01_train.csv").write_text("000046_3840\n000178_3840\n")
    (root / "partitions" / "split01_test.csv").write_text("000297_38400\n")
    return root


def test_openmic_labels_are_what_most_of_the_crowd_heard(tmp_path: Path) -> None:
    frame = read(OpenmicSpec(root=openmic_set(tmp_path)))
    assert by_name(frame) == {
        "000178_3840.ogg": (["guitar", "voice"], "000178", ""),
        "000297_38400.ogg": (["voice"], "000297", "official"),
    }
    assert notes(frame) == ["1 excerpts have no instrument of relevance 0.5 and are left out"]
    assert recognise(tmp_path) == OpenmicSpec(root=tmp_path)


def test_openmic_without_lists_and_class_map_is_split_here(tmp_path: Path) -> None:
    openmic_set(tmp_path)
    for name in ("class-map.json", "partitions/split01_train.csv", "partitions/split01_test.csv"):
        (tmp_path / name).unlink()
    assert set(read(OpenmicSpec(root=tmp_path))["split"]) == {""}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("000046_3840,banjo,1,3\n", "line 2: the instrument 'banjo' is not in class-map.json; correct either"),
        ("000046_3840,voice,2,3\n", "line 2: expected a relevance from 0 to 1, got '2'; correct it"),
        ("000046_3840,voice,nan,3\n", "line 2: expected a relevance from 0 to 1, got 'nan'; correct it"),
        ("../../a,voice,1,3\n", "line 2: expected a sample key like 000046_3840 (track_start), got '../../a'"),
        ("000046_3840,voice,0,3\n", "has no instrument of relevance 0.5 or more"),
    ],
)
def test_openmic_mistakes_are_told(tmp_path: Path, rows: str, expected: str) -> None:
    root = openmic_set(tmp_path, rows)
    assert f"{root / OPENMIC_LABELS} {expected}" in message(lambda: read(OpenmicSpec(root=root)))


def test_openmic_lists_and_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    assert message(lambda: read(OpenmicSpec(root=tmp_path))).startswith(f"expected {OPENMIC_LABELS}")
    root = openmic_set(tmp_path)
    (root / "partitions" / "split01_test.csv").write_text("000178_3840\n")
    told = message(lambda: read(OpenmicSpec(root=root)))
    assert told == f"000178_3840 is in both lists of {root}/partitions; keep it in one"
    (root / "partitions" / "split01_test.csv").write_text("sample_key\n")
    assert "split01_test.csv line 1: expected a sample key" in message(lambda: read(OpenmicSpec(root=root)))
    for text, expected in (("{", "is not JSON"), ("[]", "is no class map")):
        (root / "class-map.json").write_text(text)
        assert f"class-map.json {expected}" in message(lambda: read(OpenmicSpec(root=root)))


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


def test_notes_do_not_change_a_manifest(tmp_path: Path) -> None:
    frame = read(RavdessSpec(root=ravdess_set(tmp_path)))
    noted = frame.copy()
    noted.attrs["notes"] = ["something"]
    path = manifest.save(noted, tmp_path / "manifest.parquet")
    assert manifest.digest(manifest.load(path)) == manifest.digest(frame)
    filled, _ = split.assign(noted.assign(sha256=""), split.SplitSpec())  # the actors of the fixture share their files
    assert notes(filled) == ["something"]
