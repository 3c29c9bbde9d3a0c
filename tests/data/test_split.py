"""The split: groups stay whole, classes are everywhere, shares are met, and the seed alone decides."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from instrunet.data.split import SplitSpec, assign
from instrunet.errors import ConfigError, DataError

Row = tuple[str, list[str], str]  # group, labels, stated split
SPEC = SplitSpec(val=0.15, test=0.15, seed=0)


def table(rows: Iterable[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["group", "labels", "split"])


def single(n_groups: int = 40, classes: str = "abcd", seed: int = 0) -> pd.DataFrame:
    """Groups of one class with 1 to 12 clips each."""
    rng = np.random.default_rng(seed)
    return table(
        (f"{label}{group}", [label], "")
        for label in classes
        for group in range(n_groups)
        for _ in range(rng.integers(1, 13))
    )


def multi(seed: int) -> pd.DataFrame:
    """Groups whose clips have one to three of eight labels, drawn from the few that the group knows."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(60):
        known = rng.choice(list("abcdefgh"), 3, replace=False)
        rows += [
            (str(group), sorted(rng.choice(known, rng.integers(1, 4), replace=False)), "")
            for _ in range(rng.integers(1, 8))
        ]
    return table(rows)


def parts_of(frame: pd.DataFrame) -> dict[str, set[str]]:
    """In which parts each label is."""
    return {label: set(rows["split"]) for label, rows in frame.explode("labels").groupby("labels")}


def check_groups_are_whole(frame: pd.DataFrame) -> None:
    assert (frame.groupby("group")["split"].nunique() == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_met_in_every_class(seed: int) -> None:
    frame, notes = assign(single(seed=seed), SPEC.model_copy(update={"seed": seed}))
    check_groups_are_whole(frame)
    assert notes == []
    shares = frame.explode("labels").groupby("labels")["split"].value_counts(normalize=True).unstack()
    # A class has some 260 clips and the largest group 12 of them
    np.testing.assert_allclose(shares[["train", "val", "test"]], [[0.70, 0.15, 0.15]] * 4, atol=0.04)


def test_other_shares_are_met_too() -> None:
    frame, _ = assign(single(), SplitSpec(val=0.3, test=0.4))
    shares = frame["split"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["train", "val", "test"]], [0.3, 0.3, 0.4], atol=0.04)


@pytest.mark.parametrize("seed", range(8))
def test_several_labels_a_clip(seed: int) -> None:
    frame, notes = assign(multi(seed), SPEC)
    check_groups_are_whole(frame)
    assert notes == []
    assert all(parts == {"train", "val", "test"} for parts in parts_of(frame).values())
    shares = frame["split"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["train", "val", "test"]], [0.70, 0.15, 0.15], atol=0.08)


@pytest.mark.parametrize("n_groups", [3, 4, 5])
def test_three_groups_are_enough_to_be_in_all_parts(n_groups: int) -> None:
    frame, notes = assign(single(n_groups, classes="abcdefgh"), SplitSpec(val=0.05, test=0.05))
    assert notes == []
    assert all(parts == {"train", "val", "test"} for parts in parts_of(frame).values())


@pytest.mark.parametrize("folds", [None, 3])
def test_without_validation_all_that_is_not_tested_trains(folds: int | None) -> None:
    frame, notes = assign(single(n_groups=4), SPEC.model_copy(update={"val": 0.0, "folds": folds}))
    check_groups_are_whole(frame)
    assert all(parts == {"train", "test"} for parts in parts_of(frame).values()) and notes == []


def test_all_may_train() -> None:
    """A class of one group, too: nothing of it is to be tested."""
    frame, notes = assign(single(n_groups=1), SPEC.model_copy(update={"val": 0.0, "test": 0.0}))
    assert set(frame["split"]) == {"train"} and notes == []


def test_classes_that_share_groups_are_all_served() -> None:
    # Taken by name, `a` and `b` leave two of the groups of `c` in training; only another order has a way out
    pairs = {"a": "pqr", "b": "stu", "c": "psv"}
    rows = [(group, [label], "") for label, groups in pairs.items() for group in groups]
    for seed in range(20):
        frame, notes = assign(table(rows), SplitSpec(seed=seed))
        check_groups_are_whole(frame)
        assert notes == []
        assert all(parts == {"train", "val", "test"} for parts in parts_of(frame).values())


def test_two_groups_go_to_training_and_test_and_are_noted() -> None:
    rare = table([("x1", ["x"], ""), ("x2", ["x"], ""), ("w1", ["w"], ""), ("w2", ["w"], "")])
    frame, notes = assign(pd.concat([single(), rare], ignore_index=True), SPEC)
    assert notes == ["w, x: none in validation, for want of groups"]
    assert parts_of(frame)["x"] == parts_of(frame)["w"] == {"train", "test"}


def test_one_group_is_refused_by_name() -> None:
    rare = table([("lonely", ["x"], "")] * 5)
    with pytest.raises(DataError) as caught:
        assign(pd.concat([single(), rare], ignore_index=True), SPEC)
    assert str(caught.value) == (
        "class 'x' has one group only ('lonely'), so it cannot be both trained on and tested honestly "
        "(1 such classes); add another recording of it or drop the class"
    )


def test_stated_splits_are_kept() -> None:
    stated = single().assign(split=lambda f: np.where(f["group"].str.endswith("0"), "val", "train"))
    frame, notes = assign(stated, SPEC)
    pd.testing.assert_frame_equal(frame, stated)
    assert notes == []


def test_what_is_left_open_is_filled_around_the_stated() -> None:
    frame = single()
    frame["split"] = np.where(frame["group"].isin([f"{c}{n}" for c in "abcd" for n in range(28)]), "train", "")
    filled, notes = assign(frame, SPEC)
    assert notes == []
    assert (filled.loc[frame["split"] == "train", "split"] == "train").all()
    # 70 % are stated as training, so what was open is validation and test
    shares = filled["split"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["train", "val", "test"]], [0.70, 0.15, 0.15], atol=0.05)


def test_an_open_clip_follows_the_stated_ones_of_its_group() -> None:
    for part in ("train", "val", "test", "official"):
        frame = pd.concat([single(), table([("a0", ["a"], part), ("a0", ["a"], "")])], ignore_index=True)
        filled, _ = assign(frame, SPEC)
        check_groups_are_whole(filled)
        assert set(filled.loc[filled["group"] == "a0", "split"]) == {part}


def test_a_single_open_group_joins_what_is_stated() -> None:
    stated = [("x1", ["x"], "test"), ("x2", ["x"], "val"), ("x3", ["x"], "")]
    frame, notes = assign(table(stated), SPEC)
    assert list(frame["split"]) == ["test", "val", "train"]
    assert notes == []


def test_the_published_test_set_is_left_alone() -> None:
    official = table([(f"test/{n}", ["a", "b"], "official") for n in range(30)])
    frame, _ = assign(pd.concat([single(), official], ignore_index=True), SPEC)
    alone, _ = assign(single(), SPEC)
    assert (frame["split"] == "official").sum() == 30
    assert list(frame["split"][: len(alone)]) == list(alone["split"])
    with pytest.raises(DataError, match=r"class 'x' has one group only \('x1'\)"):
        assign(pd.concat([official.assign(labels=[["x"]] * 30), table([("x1", ["x"], "")])]), SPEC)


def test_a_stated_group_on_both_sides_is_refused() -> None:
    rows = [("g1", ["a"], "train"), ("g1", ["a"], "test"), ("g2", ["a"], "train"), ("g3", ["b"], "")]
    with pytest.raises(DataError) as caught:
        assign(table(rows), SPEC)
    assert str(caught.value) == (
        "group 'g1' is in test and train at once (1 such groups); a recording, speaker or player must be on one side "
        "only: correct the split column, or leave it empty and it is made by group"
    )


@pytest.mark.parametrize("make", [single, lambda: multi(3)])
def test_the_seed_alone_decides(make: object) -> None:
    assert callable(make)
    rows = make()
    frame, _ = assign(rows, SPEC)
    again, _ = assign(make(), SPEC)
    pd.testing.assert_frame_equal(frame, again)
    shuffled, _ = assign(rows.sample(frac=1, random_state=1), SPEC)
    pd.testing.assert_series_equal(shuffled["split"].sort_index(), frame["split"])
    other, _ = assign(rows, SPEC.model_copy(update={"seed": 1}))
    assert (other["split"] != frame["split"]).mean() > 0.1


def test_the_input_is_not_changed() -> None:
    rows = single()
    before = rows.copy(deep=True)
    assign(rows, SPEC)
    pd.testing.assert_frame_equal(rows, before)


def test_shares_must_leave_something_to_train_on() -> None:
    with pytest.raises(ConfigError, match=r"^split: val \+ test must leave something to train on; got 0.5 \+ 0.5$"):
        SplitSpec.parse({"val": 0.5, "test": 0.5}, "split")
    with pytest.raises(ConfigError, match="val: input should be greater than or equal to 0, got -0.1"):
        SplitSpec.parse({"val": -0.1}, "split")


def folds(frame: pd.DataFrame, k: int, seed: int = 0) -> list[tuple[pd.DataFrame, list[str]]]:
    return [assign(frame, SplitSpec(folds=k, fold=fold, val=0.2, seed=seed)) for fold in range(k)]


@pytest.mark.parametrize("k", [2, 5, 10])
@pytest.mark.parametrize("make", [single, lambda: multi(3)])
def test_every_clip_is_tested_once_in_k_folds(k: int, make: object) -> None:
    assert callable(make)
    made = folds(make(), k, seed=1)
    for fold, notes in made:
        check_groups_are_whole(fold)
        assert notes == [] and all(parts == {"train", "val", "test"} for parts in parts_of(fold).values())
    tested = np.sum([fold["split"] == "test" for fold, _ in made], axis=0)
    assert (tested == 1).all()


def test_folds_are_stratified() -> None:
    for fold, _ in folds(single(), 5):
        shares = fold.explode("labels").groupby("labels")["split"].value_counts(normalize=True).unstack()
        np.testing.assert_allclose(shares["test"], 0.2, atol=0.03)


def test_folds_say_which_class_has_too_few_groups() -> None:
    rare = table([("x1", ["x"], ""), ("x2", ["x"], "")])
    made = folds(pd.concat([single(), rare], ignore_index=True), 4)
    untested = [any("x: none in test" in note for note in notes) for _, notes in made]
    assert untested == ["test" not in parts_of(fold)["x"] for fold, _ in made] and sum(untested) == 2
    with pytest.raises(DataError, match=r"^expected 2 to 2 folds, as there are 2 groups; got 3; choose fewer folds$"):
        folds(rare, 3)


def test_folds_follow_the_seed_and_leave_the_official_alone() -> None:
    frame = pd.concat([single(), table([("o", ["a"], "official")])], ignore_index=True)
    (first, _), (again, _) = folds(frame, 4)[0], folds(frame.sample(frac=1, random_state=1), 4)[0]
    pd.testing.assert_series_equal(again["split"].sort_index(), first["split"])
    assert first["split"].iloc[-1] == "official"
    other, _ = folds(frame, 4, seed=1)[0]
    assert (other["split"] != first["split"]).any()


def test_each_fold_of_the_configuration_is_tested_once() -> None:
    frame = single(8)
    tested: list[str] = []
    for fold in range(4):
        got, _ = assign(frame, SplitSpec(folds=4, fold=fold, val=0.2))
        sides = {part: set(rows["group"]) for part, rows in got.groupby("split")}
        assert set(sides) == {"train", "val", "test"}
        assert not (sides["train"] & sides["val"] or sides["train"] & sides["test"] or sides["val"] & sides["test"])
        tested += sides["test"]
    assert sorted(tested) == sorted(set(frame["group"]))


def test_without_a_test_share_nothing_is_held_back_for_it() -> None:
    got, notes = assign(single(8), SplitSpec(test=0))
    assert set(got["split"]) == {"train", "val"} and notes == []


def test_a_fold_beyond_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match="fold counts from 0 to folds - 1; got fold=4 and folds=4"):
        SplitSpec.parse({"folds": 4, "fold": 4}, "x.yaml")
