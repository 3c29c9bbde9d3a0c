"""What a bundle decides by travels in it, is part of its fingerprint, and rules predictions and tags alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import LABELS, RATE, sound, tag_archive, tiny_bundle, write_archive

from instrunet.archive import books
from instrunet.archive.units import UnitSpec
from instrunet.bundle import SPEC_FILE, Bundle
from instrunet.bundle_spec import MEASURED, BundleSpec
from instrunet.config import fingerprint
from instrunet.decisions import Curve, Decisions, bent
from instrunet.errors import BundleError

# Every label's curve halves what is below 0.5 and doubles nothing: monotone, and not the identity
HALF = Curve(at=(0.0, 0.5, 1.0), to=(0.01, 0.25, 0.99))


def deciding(kind: str = "single", **fields: Any) -> Bundle:
    """The tiny bundle under other decisions."""
    bundle = tiny_bundle(kind)  # type: ignore[arg-type]
    update = {"decisions": fields} if "thresholds" not in fields else fields
    return Bundle(BundleSpec.model_validate(bundle.spec.model_dump() | update), bundle.network)


def test_a_bundle_without_decisions_keeps_its_fingerprint() -> None:
    spec = tiny_bundle().spec
    tree = spec.model_dump(mode="json", exclude=MEASURED)
    assert tree.pop("decisions") is None
    assert spec.fingerprint() == fingerprint(tree)


def test_each_decision_is_part_of_the_fingerprint() -> None:
    curves = [HALF.model_dump()] * 3
    made = [tiny_bundle(), deciding(abstain_below=0.4), deciding(abstain_below=0.5), deciding(isotonic=curves)]
    assert len({bundle.fingerprint for bundle in made}) == len(made)


def test_decisions_travel_as_json(tmp_path: Path) -> None:
    bundle = deciding(isotonic=[HALF.model_dump()] * 3, abstain_below=0.4)
    loaded = Bundle.load(bundle.save(tmp_path / "b"))
    assert loaded.decisions == bundle.decisions
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"bundle.json", "weights.safetensors"}
    wave = sound(2.5)
    assert loaded(wave, RATE) == bundle(wave, RATE)


def test_scores_are_bent_after_the_mean_and_windows_stay_as_they_are() -> None:
    wave = sound(2.5)
    plain, curved = tiny_bundle("multi")(wave, RATE), deciding("multi", isotonic=[HALF.model_dump()] * 3)(wave, RATE)
    assert curved.window_scores == plain.window_scores
    expected = np.interp(list(plain.scores.values()), HALF.at, HALF.to)
    np.testing.assert_allclose(list(curved.scores.values()), expected, atol=1e-6)


def test_bent_scores_of_one_label_sum_to_one() -> None:
    curves = (HALF, HALF, Curve(at=(0.0, 1.0), to=(0.5, 0.9)))
    found = bent(curves, np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], np.float32), "single")
    np.testing.assert_allclose(found, [[0.25, 0.25, 0.5], [0.01 / 0.92, 0.01 / 0.92, 0.9 / 0.92]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_score_below_the_limit_is_no_answer(kind: str) -> None:
    bundle = deciding(kind, abstain_below=0.6)
    assert bundle.decide(np.array([0.55, 0.3, 0.15], np.float32)) == []
    assert bundle.decide(np.array([0.6, 0.3, 0.1], np.float32)) == ["bell"]
    assert bundle.flagged(["dc"], np.array([0.55, 0.3, 0.15], np.float32)) == ["dc", "no_answer"]
    assert bundle.flagged(["dc"], np.array([0.6, 0.3, 0.1], np.float32)) == ["dc"]
    assert bundle.answers(np.array([[0.55, 0.3, 0.15], [0.6, 0.3, 0.1]])).tolist() == [False, True]


def test_a_prediction_without_an_answer_says_so() -> None:
    wave = sound(2.5)
    plain, unsure = tiny_bundle()(wave, RATE), deciding(abstain_below=1.0)(wave, RATE)
    assert (unsure.labels, unsure.flags, unsure.scores) == ([], [*plain.flags, "no_answer"], plain.scores)
    silent = deciding(abstain_below=1.0)(np.zeros(RATE, np.float32), RATE)
    assert (silent.status, silent.flags) == ("silent", [])  # what cannot be heard is not unsure


def test_tags_use_the_thresholds_and_the_limit(tmp_path: Path) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_archive(archive)
    plain = {path.name: tiny_bundle("multi")(path) for path in (archive / "a.wav", archive / "deep/er/long.wav")}
    best = {name: max(said.scores.values()) for name, said in plain.items()}
    low = min(best, key=lambda name: best[name])
    limit = sum(best.values()) / 2
    assert best[low] < limit
    thresholds = [min(said.scores[label] for said in plain.values()) - 1e-3 for label in LABELS]
    bundle = deciding("multi", thresholds=thresholds, decisions={"abstain_below": limit})
    work = tag_archive(archive, out, bundle, UnitSpec())
    ledger = books.close(out, work, bundle)
    rows = {Path(row["uri"]).name: row for row in pq.read_table(out / "recordings").to_pylist()}
    for name in plain:
        said = bundle(archive / "deep/er/long.wav" if name == "long.wav" else archive / name)
        assert said.labels == ([] if name == low else list(LABELS))
        assert ("no_answer" in rows[name]["flags"]) == (name == low) == ("no_answer" in said.flags)
    other = next(name for name in plain if name != low)
    assert rows[low]["labels"] == [] and rows[low]["status"] == "tagged" and rows[low]["scores"]
    assert rows[other]["labels"] == list(LABELS)  # by 0.5 for each it would be fewer
    assert plain[other].labels != list(LABELS)
    assert ledger["no_answer"] == sum("no_answer" in row["flags"] for row in rows.values())
    assert rows["silent.wav"]["flags"].count("no_answer") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isotonic": [HALF.model_dump()]}, "decisions.isotonic needs 3 curves, one a label; got 1"),
        ({"isotonic": [{"at": [0, 1], "to": [1, 0]}] * 3}, "a curve needs as many `to` as `at`, both rising"),
        ({"abstain": 0.5}, "unknown field decisions.abstain; did you mean abstain_below?"),
    ],
)
def test_decisions_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tiny_bundle().save(tmp_path / "b")
    tree = json.loads((path / SPEC_FILE).read_text(encoding="utf-8"))
    (path / SPEC_FILE).write_text(json.dumps(tree | {"decisions": change}), encoding="utf-8")
    with pytest.raises(BundleError, match="^[^;]*: .*" + message.replace("?", r"\?").replace("`", ".")):
        Bundle.load(path)


def test_no_decisions_are_the_neutral_ones() -> None:
    scores = np.array([0.2, 0.5, 0.3])
    assert Decisions().calibrated(scores, "single") is scores
