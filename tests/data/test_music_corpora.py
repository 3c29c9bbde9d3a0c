"""GTZAN, NSynth and OpenMIC: lists, tables and maps as the real ones have them, each in a folder made here."""

import json
from pathlib import Path

import pytest
from corpora_made import by_name, message, sound

from instrunet.data.corpora import (
    GtzanSpec,
    NsynthSpec,
    OpenmicSpec,
    notes,
    read,
    recognise,
)
from instrunet.data.readers.gtzan import GENRES
from instrunet.data.readers.openmic import LABELS as OPENMIC_LABELS

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
