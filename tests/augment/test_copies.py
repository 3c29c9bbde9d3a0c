"""Copies: rows of the training split alone, drawn by clip and number, and said in the configuration in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import tone

from instrunet import experiment
from instrunet.augment.copies import CopiesSpec, copied, originals, with_copies
from instrunet.errors import ConfigError
from instrunet.experiment import Experiment

RATE = 16_000
SPEEDS = {"each": [[{"name": "speed", "p": 1, "rate": [r, r]}] for r in (0.9, 1.1)]}


def manifest_of(*splits: str) -> pd.DataFrame:
    frame = pd.DataFrame({"clip_id": [f"c{k}" for k in range(len(splits))], "split": splits, "group": "g"})
    return frame.assign(twin_of=pd.Series([None] * len(splits), dtype="string"))


def loaded(folder: Path, line: str) -> Experiment:
    (folder / "x.yaml").write_text("name: x\n")
    return experiment.load(folder / "x.yaml", [line])


def test_training_clips_alone_are_copied_and_their_copies_follow_them() -> None:
    frame = manifest_of("train", "val", "test", "official", "train")
    made = with_copies(frame, CopiesSpec(n=2))
    assert list(made["clip_id"]) == ["c0", "c0+1", "c0+2", "c1", "c2", "c3", "c4", "c4+1", "c4+2"]
    copies = made[made["twin_of"].notna()]
    assert list(copies["twin_of"]) == ["c0", "c0", "c4", "c4"] and set(copies["split"]) == {"train"}
    assert list(originals(made)["clip_id"]) == list(frame["clip_id"])
    assert with_copies(frame, CopiesSpec()) is frame


def test_a_file_that_says_what_it_was_made_of_is_no_copy_of_ours() -> None:
    frame = manifest_of("train", "test").assign(twin_of=["c0", "c0"], clip_id=["louder", "c0+1"])
    assert len(originals(frame)) == 2


def test_a_copy_depends_on_clip_number_and_seed_alone() -> None:
    wave = tone(440, 1.0, rate=RATE)
    rows = {number: {"clip_id": f"a+{number}", "twin_of": "a", "split": "train"} for number in (1, 2)}
    spec = CopiesSpec(n=2)
    first = copied(wave, RATE, rows[1], spec)
    np.testing.assert_array_equal(first, copied(wave, RATE, rows[1], CopiesSpec(n=1)))
    others = (rows[2], spec), (rows[1], CopiesSpec(n=2, seed=1)), (rows[1] | {"clip_id": "b+1", "twin_of": "b"}, spec)
    for row, other in others:
        changed = copied(wave, RATE, row, other)
        assert changed.shape != first.shape or not np.array_equal(changed, first)


def test_no_copy_by_default_is_its_original_again() -> None:
    wave, spec = tone(440, 0.2, rate=RATE), CopiesSpec(n=100)
    rows = [{"clip_id": f"a+{k}", "twin_of": "a", "split": "train"} for k in range(1, 101)]
    assert not any(np.array_equal(copied(wave, RATE, row, spec), wave) for row in rows)


def test_each_copy_may_have_effects_of_its_own() -> None:
    spec = CopiesSpec.parse(SPEEDS, "x.yaml")
    rows = [{"clip_id": f"a+{k}", "twin_of": "a", "split": "train"} for k in (1, 2)]
    seconds = [len(copied(tone(440, 1.0, rate=RATE), RATE, row, spec)) / RATE for row in rows]
    assert seconds == pytest.approx([1 / 0.9, 1 / 1.1], abs=1e-4)


def test_a_number_is_short_for_the_emotion_seeds_effects(tmp_path: Path) -> None:
    spec = loaded(tmp_path, "copies=3").copies
    names = [[effect.name for effect in effects] for effects in spec.lists]
    assert names == [["noise", "stretch", "pitch", "shift"]] * 3
    assert Experiment.parse(Experiment(copies=spec).model_dump(mode="json"), "x.yaml").copies == spec
    assert loaded(tmp_path, "copies.n=3").copies == spec


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("copies=-1", "copies.n: input should be greater than or equal to 0, got -1"),
        ("copies={n: 2, each: [[{name: polarity}]]}", "give n copies through `effects`, or a list of effects for each"),
        ("copies={n: 1, effects: [{name: pich}]}", "'pich'; did you mean pitch?"),
        ("copies={each: [[]]}", "copies.each.0"),
        ("copies={n: 1, effects: [{name: gain, gain_db: [3, -3]}]}", "a range needs low <= high; got 3 and -3"),
        ("copies={n: 1, effects: [{name: speed, rate: [0, 1]}]}", "greater than or equal to 0.25, got 0"),
        ("copies.m=3", "unknown field copies.m"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, line)
    assert message in str(caught.value)


def test_without_copies_a_run_keeps_its_name() -> None:
    plain = Experiment()
    assert Experiment(copies=CopiesSpec(seed=3)).run_fingerprint() == plain.run_fingerprint()
    assert Experiment(copies=CopiesSpec(n=1)).run_fingerprint() != plain.run_fingerprint()
