"""The audit in the jobs: planted leaks of every kind are refused by name, or carried out and labelled LEAKY."""

import argparse
import io as memory
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, run
from making import FRONT, RATE, tone
from numpy.typing import NDArray

from instrunet import experiment
from instrunet.audio.fingerprint import print_of
from instrunet.bundle_spec import Provenance
from instrunet.data import manifest, parts, split
from instrunet.data.audit import AuditSpec
from instrunet.data.readers.tables import csv_folder
from instrunet.data.split import SplitSpec
from instrunet.errors import DataError
from pipelines import audit, evaluate, features, predict, tune

Wave = NDArray[np.float32]
HZ = {"low": 300.0, "top": 1500.0}
SPLIT = ("train", "train", "val", "test")


def melody(label: str, group: int) -> Wave:
    """Eight notes that no other group plays: a second of sound."""
    rng = np.random.default_rng([len(label), group])
    notes = [tone(HZ[label] * 2 ** rng.uniform(0, 2), 0.125, int(k)) for k in rng.integers(0, 1000, 8)]
    return np.concatenate(notes) * np.float32(0.9)


def whole(wave: Wave) -> NDArray[np.int16]:
    """Floats are rounded in two ways by the writers of WAV and FLAC."""
    return np.rint(wave * 32767).astype(np.int16)


def in_ogg(wave: Wave) -> Wave:
    file = memory.BytesIO()
    soundfile.write(file, wave, RATE, format="OGG", subtype="VORBIS")
    file.seek(0)
    decoded: Wave = soundfile.read(file, dtype="float32")[0]
    return decoded


def corpus(folder: Path, planted: list[tuple[str, str, str, str]], stated: bool = True) -> Path:
    """Two classes of four groups; `planted` are more rows whose files are there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in HZ:
        for k in range(4):
            soundfile.write(folder / f"{label}{k}.wav", whole(melody(label, k)), RATE)
            rows.append((f"{label}{k}.wav", label, f"{label}{k}", SPLIT[k]))
    table = pd.DataFrame([*rows, *planted], columns=["path", "label", "group", "split"])
    table[["path", "label", "group", *(["split"] if stated else [])]].to_csv(folder / "metadata.csv", index=False)
    return folder


def leaky_corpus(folder: Path) -> Path:
    """A re-encoded copy, a copy in another container that has another label too, and a group on both sides."""
    folder.mkdir(parents=True)
    soundfile.write(folder / "copy.wav", 0.5 * in_ogg(melody("low", 0)), RATE, subtype="FLOAT")
    soundfile.write(folder / "same.flac", whole(melody("top", 0)), RATE)
    soundfile.write(folder / "more.wav", melody("top", 9), RATE)
    soundfile.write(folder / "top0.wav", whole(melody("top", 0)), RATE)
    more = [
        ("copy.wav", "low", "other", "test"),
        ("same.flac", "low", "another", "test"),
        ("more.wav", "top", "top0", "test"),
    ]
    return corpus(folder, more)


def featurized(frame: pd.DataFrame, folder: Path) -> Path:
    """What the job leaves, made without Ray."""
    parts.claim(folder, {"job": "features"})
    features._write_manifest(frame, folder)
    worker = features.Worker(str(folder), FRONT.model_dump(mode="json"))
    worker({"part": 0})
    worker.decoder.close()
    features._close(folder, 1, 1.0)
    return folder


def reasons(folder: Path, place: Path, *against: Path) -> list[str]:
    return audit.read(featurized(csv_folder(folder), place), AuditSpec(against=against)).reasons


def test_prints_are_those_of_a_decode_of_their_own(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.concatenate([tone(440, 2.0)] * 2), 44_100)
    clips = [manifest.Clip(tmp_path / "long.wav", ["a"], "g", "train", *at) for at in ((0.0, 0.1), (0.05, 0.15))]
    frame = manifest.make(clips, "c", tmp_path)
    made = audit.prints_of(featurized(frame, tmp_path / "features")).set_index("clip_id")
    for row in frame.to_dict("records"):
        expected = print_of(row["uri"], row["start_s"], row["stop_s"])
        assert tuple(made.loc[row["clip_id"]]) == (expected.samples_hash, expected.print)


def test_a_clean_corpus_is_said_to_be_clean(tmp_path: Path) -> None:
    folder = featurized(csv_folder(corpus(tmp_path / "in", [])), tmp_path / "features")
    assert audit.read(folder, AuditSpec()).line == "audit: clean"
    assert json.loads((folder / "together.json").read_text()) == {"groups": []}


@pytest.mark.parametrize(
    ("name", "wave", "kind"),
    [
        ("copy.wav", 0.5 * in_ogg(melody("low", 0)), "1 pairs of clips in different splits sound the same"),
        ("copy.flac", melody("low", 0), "1 sounds lie sample for sample in more than one split"),
    ],
)
def test_a_copy_in_another_group_is_a_leak_and_keeping_both_together_mends_it(
    tmp_path: Path, name: str, wave: Wave, kind: str
) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / name, whole(wave), RATE)
    made = corpus(tmp_path / "in", [(name, "low", "other", "test")])
    assert [reason[: len(kind)] for reason in reasons(made, tmp_path / "features")] == [kind]
    together = tmp_path / "features/together.json"
    assert json.loads(together.read_text()) == {"groups": [["low0", "other"]]}
    open_ = csv_folder(made).assign(split="")
    for seed in range(5):
        filled, notes = split.assign(open_, SplitSpec(seed=seed, keep_together=together))
        sides = filled.set_index("group")["split"]
        assert sides["low0"] == sides["other"]
        assert notes[0] == "2 groups that share files or are kept together were joined into 1"


def test_groups_that_share_a_file_are_kept_together(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/copy.wav", whole(melody("low", 0)), RATE)
    frame = csv_folder(corpus(tmp_path / "in", [("copy.wav", "low", "other", "")], stated=False))
    filled, _ = split.assign(frame, SplitSpec())
    sides = filled.set_index("group")["split"]
    assert sides["low0"] == sides["other"]


def test_a_random_split_is_leaky(tmp_path: Path) -> None:
    made = corpus(tmp_path / "in", [], stated=False)
    table = pd.read_csv(made / "metadata.csv").assign(group=["a", "b", "c", "d"] * 2)
    table.to_csv(made / "metadata.csv", index=False)
    frame, notes = split.assign(csv_folder(made), SplitSpec(by="clip"))
    assert notes[0].startswith("split.by=clip")
    found = audit.read(featurized(frame, tmp_path / "features"), AuditSpec()).reasons
    assert found and found[0].endswith("groups lie in more than one split")


def test_the_test_set_of_another_corpus_is_a_leak(tmp_path: Path) -> None:
    other = featurized(csv_folder(corpus(tmp_path / "other", [])).assign(split="official"), tmp_path / "theirs")
    found = reasons(corpus(tmp_path / "in", []), tmp_path / "ours", other)
    assert found == ["6 of 8 test clips of the other corpus are in the training data (theirs)"]
    with pytest.raises(DataError, match=r"^expected a whole features folder for audit\.against at .*nowhere"):
        audit.read(tmp_path / "ours", AuditSpec(against=(tmp_path / "nowhere",)))


def test_what_allows_leaks_is_no_other_experiment() -> None:
    from instrunet.experiment import Experiment

    plain = Experiment()
    assert Experiment(audit=AuditSpec(allow_leaks=True)).run_fingerprint() == plain.run_fingerprint()
    assert (Provenance(audit="clean").leaky, Provenance(audit="leaky: a; b").leaky) == ("", "a; b")


def job(command: str, place: Path) -> "subprocess.CompletedProcess[str]":
    return run(f"python jobs/{command}", place, PYTHONPATH=str(ROOT))  # this checkout, whatever is installed


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of leaky data."""
    home = tmp_path_factory.mktemp("leaky")
    config = home / "leaky.yaml"
    config.write_text(
        f"out: {home / 'runs'}\ndata: {{name: csv, root: {leaky_corpus(home / 'in')}}}\n"
        "front: {features: [{name: logmel, sample_rate: 8000, n_fft: 512, hop_length: 256, n_mels: 16, fmax_hz: 4000}],"
        " window_s: 0.5, hop_s: 0.5}\n"
        "model: {name: task8, picture: {size: null, colour: false}}\n"
        "train: {epochs: 1}\ncluster: {cpus_per_worker: 0.5}\n"
        "tune: {space: {train.seed: {choice: [1]}}}\n"
    )
    return config


@pytest.fixture(scope="module")
def trained(leaky: Path, place: Path) -> tuple[str, Path]:
    """What the job of training says where leaks are allowed, and its bundle."""
    done = job(f"train.py {leaky} audit.allow_leaks=true", place)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, Path(done.stdout.splitlines()[-1])


def test_leaky_training_is_labelled(trained: tuple[str, Path]) -> None:
    said, bundle = trained
    assert "LEAKY: trained 1 epochs" in said
    for words in (
        "audit: LEAKY: 1 groups lie",
        "1 sounds lie sample for sample",
        "1 pairs of clips",
        "1 warnings: 1 sounds",
    ):
        assert words in said
    assert '"audit":"leaky: 1 groups' in (bundle / "bundle.json").read_text()
    assert '"audit": "leaky: 1 groups' in (bundle.parent / "tracking.jsonl").read_text()


def test_training_refuses_leaky_data(leaky: Path, trained: tuple[str, Path], place: Path) -> None:
    refused = job(f"train.py {leaky}", place)
    assert refused.returncode == 2
    assert "group 'top0' is in test and train at once" in refused.stderr
    table = pd.read_csv(leaky.parent / "in/metadata.csv")
    home = leaky.parent / "less"
    shutil.copytree(leaky.parent / "in", home)
    table[table["path"] != "more.wav"].to_csv(home / "metadata.csv", index=False)
    refused = job(f"train.py {leaky} data.root={home}", place)
    assert refused.returncode == 2
    for words in ("1 sounds lie sample for sample", "1 pairs of clips", "keep_together=", "audit.allow_leaks=true"):
        assert words in refused.stderr
    with pytest.raises(DataError, match="the data leaks: 1 sounds lie sample for sample"):  # its features are there
        tune.run(experiment.load(leaky, [f"data.root={home}"]))


def test_a_leaky_bundle_is_labelled_wherever_it_speaks(
    leaky: Path, trained: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, sound = trained[1], leaky.parent / "in/low0.wav"
    plain = {"bundle": bundle, "target": leaky, "out": tmp_path / "report", "split": "test", "allow_leaks": False}
    plain |= {"aggregate": "", "map": [], "ignore": [], "rivals": [], "verbose": False}
    asked = argparse.Namespace(**plain, overrides=["audit.allow_leaks=true"])
    evaluate.run(asked)
    assert "LEAKY (" in capsys.readouterr().out
    assert "LEAKY: do not quote" in (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report/metrics.json").read_text())["leaky"] is True
    said = {"bundle": bundle, "files": [sound], "match": None, "picture": None, "runtime": "torch"}
    predict.run(argparse.Namespace(**said, json=True))
    assert json.loads(capsys.readouterr().out)["leaky"].startswith("LEAKY: 1 groups")
    predict.run(argparse.Namespace(**said, json=False))
    assert "LEAKY" in capsys.readouterr().out
