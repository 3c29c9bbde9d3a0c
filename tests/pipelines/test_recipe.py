"""A recipe judged: K folds that test each clip once, and what a split at random flatters; through the real job."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import make_place, run
from making import RATE, TONES_HZ

from instrunet.experiment import Experiment
from instrunet.metrics import single
from pipelines import beside, cli, features, recipe

CONFIG = """
name: tones
data: {name: csv, root: ROOT}
front:
  features: [{name: logmel, sample_rate: 8000, n_fft: 512, hop_length: 256, n_mels: 16, fmax_hz: 4000}]
  window_s: 0.5
  hop_s: 0.5
split: {val: 0.25, test: 0.25}
model: {name: task8, picture: {size: null, colour: false}}
train: {epochs: 1, learning_rate: 0.01, specaugment: null}
tracking: {enabled: false}
"""


def write_corpus(folder: Path, groups: int = 6, takes: int = 2) -> Path:
    """Three tones; a group plays each with a hum of its own, `takes` times."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    t = np.arange(RATE // 2) / RATE
    lines = ["path,label,group"]
    for group in range(groups):
        for label, hz in TONES_HZ.items():
            for take in range(takes):
                wave = 0.3 * np.sin(2 * np.pi * hz * t) + 0.2 * np.sin(2 * np.pi * (1200 + 200 * group) * t)
                wave += 0.1 * rng.standard_normal(len(t))
                name = f"{label}-{group}-{take}.wav"
                soundfile.write(folder / name, wave, RATE, subtype="FLOAT")
                lines.append(f"{name},{label},player{group}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = make_place(tmp_path_factory.mktemp("recipes") / "instrunet")
    (here / "tones.yaml").write_text(CONFIG.replace("ROOT", str(write_corpus(here / "in"))))
    return here


def spec_of(folder: Path, **more: Any) -> Experiment:
    return Experiment.parse({"data": {"name": "csv", "root": str(folder)}, **more}, "test")


def evaluate(*words: str) -> int:
    return cli.run_evaluation(cli.arguments(cli.evaluation_parser(""), words))


@pytest.mark.ray
def test_folds_test_each_clip_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(place / "doubled")
    wave, rate = soundfile.read(place / "doubled/low-0-0.wav", dtype="float32")
    soundfile.write(place / "doubled/again.aiff", wave, rate, subtype="FLOAT")  # other bytes, the same sound
    with (place / "doubled/metadata.csv").open("a") as table:
        table.write("again.aiff,low,player1\n")
    all_train = "split.val=0 train.keep=last train.schedule=one_cycle"
    command = f"python jobs/evaluate.py tones.yaml data.root=doubled {all_train} --folds 2 --out folds"
    done = run(command, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "folds/folds.json"
    made = json.loads((place / "folds/folds.json").read_text())
    assert (made["command"], made["figure"], [f["fold"] for f in made["folds"]]) == (
        command,
        "balanced_accuracy",
        [1, 2],
    )
    assert "groups with the same sound in them lie in one fold" in done.stderr
    assert "2 trainings, 2 at a time" in done.stderr and "worker processes" not in done.stdout + done.stderr
    for name in ("tones-fold1", "tones-fold2"):  # what each says comes to this console
        assert f"{name}: epoch   1  train loss" in done.stderr and f"{name}: trained 1 epochs on" in done.stderr
    assert done.stderr.count("no clips were left to validate on") == 2 and " learnt_accuracy " in done.stderr
    assert sorted((f["n"], f["n_groups"], f["audit"]) for f in made["folds"]) == [(18, 3, "clean"), (19, 3, "clean")]
    assert (made["pooled"]["n_clips"], made["pooled"]["n_groups"], made["pooled"]["audit"]) == (37, 6, "clean")
    table = pq.read_table(place / "folds/scores.parquet").to_pandas()
    assert table["clip_id"].is_unique and len(table) == 37
    assert table.groupby("group")["fold"].nunique().max() == 1
    assert table[table["group"].isin(("player0", "player1"))]["fold"].nunique() == 1
    truth = np.array([made["labels"].index(names[0]) for names in table["labels"]])
    want = single.evaluate(truth, np.stack(table["scores"]), made["labels"])
    assert made["pooled"]["metrics"]["confusion"] == want["confusion"]
    value = made["pooled"]["metrics"]["balanced_accuracy"]
    low, high = made["pooled"]["metrics"]["intervals"]["balanced_accuracy"]
    assert value == pytest.approx(want["balanced_accuracy"]) and low <= value <= high
    assert f"balanced accuracy {value:.3f} ({low:.2f} to {high:.2f})" in done.stdout
    bundles = [place / f["bundle"] for f in made["folds"]]
    written = [(b / "weights.safetensors").stat().st_mtime_ns for b in bundles]
    before = (place / "folds/folds.json").read_bytes()
    monkeypatch.chdir(place)
    words = ("tones.yaml", "data.root=doubled", *all_train.split())
    assert evaluate(*words, "--folds", "2", "--out", "folds") == 0  # here: it has no need of Ray
    assert capsys.readouterr().err.count("is trained already") == 2
    assert [(b / "weights.safetensors").stat().st_mtime_ns for b in bundles] == written
    assert (place / "folds/folds.json").read_bytes() == before


def test_lines_are_told_whole() -> None:
    said: list[str] = []
    lines = beside.Lines(said.append)
    assert (lines.write("one\n\ntw"), lines.write("o\nthr")) == (7, 5)
    assert said == ["one", "two"]


@pytest.mark.ray
def test_the_premium_is_the_difference_of_two_splits(place: Path) -> None:
    done = run("python jobs/evaluate.py tones.yaml --leak-premium --out premium", place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "premium/premium.json"
    made = json.loads((place / "premium/premium.json").read_text())
    at_random, grouped = made["random"], made["grouped"]
    assert (at_random["leaky"], grouped["leaky"], grouped["audit"]) == (True, False, "clean")
    assert "groups lie in more than one split" in at_random["audit"]
    assert '"audit":"leaky: ' in (place / at_random["bundle"] / "bundle.json").read_text()
    assert all(abs(grouped["n_clips"][k] - at_random["n_clips"][k]) <= 3 for k in ("train", "val", "test"))
    value, (low, high) = made["premium"]["value"], made["premium"]["interval"]
    assert value == pytest.approx(at_random["value"] - grouped["value"]) and low <= value <= high
    assert (
        f"leak premium: {value:+.2f} ({low:+.2f} to {high:+.2f}, 95 %): LEAKY {at_random['value']:.2f}" in done.stdout
    )
    assert "LEAKY at random (" in done.stdout and "held-out by group (" in done.stdout


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("BUNDLE --folds 2", "--folds trains and judges a CONFIG (.yaml), got BUNDLE; leave BUNDLE out"),
        ("tones.yaml --folds 2 --allow-leaks", "--allow-leaks goes with a BUNDLE, not with --folds"),
        ("tones.yaml --leak-premium --split val", "--split goes with a BUNDLE, not with --leak-premium"),
        ("tones.yaml --folds 2 --aggregate max", "--aggregate goes with a BUNDLE, not with --folds"),
        ("tones.yaml --leak-premium --map a=b", "--map goes with a BUNDLE, not with --leak-premium"),
        ("tones.yaml in --leak-premium", "expected an override like train.epochs=3, got 'in'"),
        ("tones.yaml", "expected a CONFIG, MANIFEST or FOLDER to score tones.yaml on, got none"),
        ("tones.yaml --folds 1", "expected --folds 2 or more, got 1"),
        ("tones.yaml split.by=clip --folds 2", "got split.by=clip; leave it unset"),
    ],
)
def test_wrong_combinations(
    asked: str, told: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert evaluate(*asked.split(), "--out", "wrong") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line and not (place / "wrong").exists()


def test_one_flag_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate("tones.yaml", "--folds", "2", "--leak-premium", "--out", "wrong")
    assert "not allowed with argument" in capsys.readouterr().err


def test_what_leaves_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    alone = features.read_manifest(spec_of(write_corpus(tmp_path / "in", takes=1)))
    with pytest.raises(recipe.DataError, match=r"^each of 18 clips is a group of its own"):
        recipe._check_groups(alone.assign(group=alone["clip_id"]))
    with pytest.raises(recipe.DataError, match=r"^expected a test split to compare"):
        recipe._check_groups(alone.assign(split="train"))
    with pytest.raises(recipe.ConfigError, match=r"makes the folds itself, got split\.folds=3"):
        recipe.folds(spec_of(tmp_path, split={"folds": 3}), 2, tmp_path, False)
    lines = (tmp_path / "in/metadata.csv").read_text().splitlines()
    split = [f"{line},{'test' if 'player0' in line else 'train'}" for line in lines[1:]]
    (tmp_path / "in/metadata.csv").write_text("\n".join([lines[0] + ",split", *split]) + "\n")
    with pytest.raises(recipe.DataError, match=r"^the corpus states its own splits \(test, train\)"):
        recipe._check(spec_of(tmp_path / "in"))


def test_a_folder_of_other_things_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(recipe.DataError, match=r"found thesis\.txt"):
        recipe._check_folder(tmp_path)
    with pytest.raises(recipe.DataError, match="found a file"):
        recipe._check_folder(tmp_path / "thesis.txt")


def test_all_of_ravdess_has_emobox_s_folds(tmp_path: Path) -> None:
    for actor in range(1, 25):
        (tmp_path / f"03-01-05-01-01-01-{actor:02d}.wav").write_bytes(b"")
    spec = Experiment.parse({"data": {"name": "ravdess", "root": str(tmp_path)}}, "test")
    assert [one.data.fold for one in recipe._folds(spec, 6)] == [1, 2, 3, 4, 5, 6]
    assert [(one.split.folds, one.split.fold, one.data.fold) for one in recipe._folds(spec, 2)] == [
        (2, 0, None),
        (2, 1, None),
    ]
    (tmp_path / "03-01-05-01-01-01-24.wav").unlink()
    assert [one.split.fold for one in recipe._folds(spec, 6)] == [0, 1, 2, 3, 4, 5]
