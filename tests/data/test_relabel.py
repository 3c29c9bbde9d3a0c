"""Labels of other data: what is not known is refused by name, what is asked for is done, and nothing is guessed."""

import pandas as pd
import pytest

from instrunet.data.relabel import Relabel
from instrunet.errors import ConfigError, DataError

KNOWN = ("bell", "drum", "horn")
ROWS = [["bell"], ["gong", "drum"], ["gong"], ["hiss"], []]


def frame() -> pd.DataFrame:
    return pd.DataFrame({"clip_id": list("abcde"), "labels": ROWS})


def test_unknown_labels_are_named_counted_and_told_how_to_be_named() -> None:
    with pytest.raises(DataError) as error:
        Relabel().of(frame(), KNOWN)
    assert str(error.value) == (
        "the data has labels the bundle does not know: gong, hiss (3 of 5 clips); it knows bell, drum, horn; "
        "say what they are with --map gong=KNOWN, or leave them out with --ignore gong"
    )


def test_mapped_and_ignored() -> None:
    made, notes = Relabel.parse(["gong=bell"], ["hiss"]).of(frame(), KNOWN)
    assert made["clip_id"].tolist() == ["a", "b", "c", "e"]  # a clip that never had a label stays one without
    assert made["labels"].tolist() == [["bell"], ["bell", "drum"], ["bell"], []]
    assert notes == ["1 of 5 clips had no label but ignored ones and are left out"]


def test_a_label_beside_others_is_taken_off_its_clip() -> None:
    made, _ = Relabel.parse([], ["hiss", "gong"]).of(frame(), KNOWN)
    assert made["labels"].tolist() == [["bell"], ["drum"], []]


def test_nothing_asked_is_nothing_done() -> None:
    plain = frame()[:1]
    made, notes = Relabel().of(plain, KNOWN)
    pd.testing.assert_frame_equal(made, plain)
    assert notes == []


@pytest.mark.parametrize(
    ("maps", "ignored", "message"),
    [
        (["gogn=bell", "hiss=bell"], ["gong"], r"--map names 'gogn', which no clip has; did you mean gong\?"),
        (["gong=bel", "hiss=bell"], [], r"--map leads to 'bel', which the bundle does not know; did you mean bell\?"),
        (["gong=bell"], ["his"], r"--ignore names 'his', which no clip has; did you mean hiss\?"),
        ([], ["xyz"], r"--ignore names 'xyz', which no clip has; there are bell, drum, gong, hiss"),
    ],
)
def test_unknown_names_are_told_their_nearest(maps: list[str], ignored: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        Relabel.parse(maps, ignored).of(frame(), KNOWN)


def test_ignoring_everything_is_refused() -> None:
    with pytest.raises(DataError, match=r"^--ignore hiss leaves none of 1 clips; ignore less$"):
        Relabel.parse([], ["hiss"]).of(frame()[3:4], KNOWN)


@pytest.mark.parametrize(
    ("maps", "ignored", "message"),
    [
        (["gong"], [], "expected --map OLD=NEW, got 'gong'"),
        (["=bell"], [], "expected --map OLD=NEW, got '=bell'"),
        (["gong=bell", "gong=drum"], [], "expected each label once in --map"),
        (["gong=bell"], ["gong"], "'gong' stands in --map and in --ignore; choose one"),
    ],
)
def test_what_contradicts_itself_is_refused(maps: list[str], ignored: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Relabel.parse(maps, ignored)
