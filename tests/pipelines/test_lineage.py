"""What a run begins with and what that has heard, without Ray: leaks, provenance, folders, unlabelled sound."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from making import FRONT, RATE, SMALL, tone
from test_audit_jobs import corpus, melody, whole

from instrunet.augment.copies import CopiesSpec
from instrunet.bundle import WEIGHTS_FILE, Bundle
from instrunet.bundle_spec import Provenance
from instrunet.config import fingerprint
from instrunet.data import corpora, manifest, parts
from instrunet.errors import ConfigError, DataError
from instrunet.experiment import Experiment
from instrunet.features.featurizer import FrontEnd
from instrunet.search.check import check
from instrunet.training.job import config_of, job_of
from instrunet.training.start import network_of
from pipelines import audit, features, lineage, train

TINY = {"front": FRONT.model_dump(), "model": SMALL.model_dump()}


def experiment(root: Path, out: Path, **other: Any) -> Experiment:
    return Experiment.parse({"out": str(out), "data": {"name": "csv", "root": str(root)}, **TINY, **other}, "test")


def featurize(frame: pd.DataFrame, out: Path, front: FrontEnd = FRONT) -> None:
    """The parts that Ray would make, so that a job finds nothing left to do."""
    plan = features.plan_of(frame, features.Recipe(front, CopiesSpec()))
    folder = (out / "features" / fingerprint(plan)).absolute()
    if parts.is_done(folder):
        return
    parts.claim(folder, plan)
    features._write_manifest(frame, folder)
    make = features.Worker(str(folder), plan["front"])
    for part in range(len(features.cut(frame))):
        assert not make({"part": part})["failed"]
    make.decoder.close()


def job(spec: Experiment) -> Any:
    featurize(features.read_manifest(spec), spec.out)
    if spec.domain:
        featurize(corpora.unlabelled(spec.domain.target), spec.out)
    return train.job_for(lineage.located(spec), verbose=False)


def bundle(spec: Experiment, place: Path, seed: int = 0, **trained: Any) -> Path:
    """As training leaves it, but for what it learns."""
    import torch

    torch.manual_seed(seed)
    draft = job(spec).draft
    draft = draft.model_copy(update={"trained": draft.trained.model_copy(update=trained)})
    return Bundle(draft, network_of(draft)).save(place)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lineage")
    corpus(home / "in", [])
    return home


@pytest.fixture(scope="module")
def parent(home: Path) -> Path:
    return bundle(experiment(home / "in", home / "runs"), home / "parent")


def other_split(home: Path, place: Path, **moved: str) -> Path:
    shutil.copytree(home / "in", place)
    table = pd.read_csv(place / "metadata.csv")
    table["split"] = [moved.get(group, split) for group, split in zip(table["group"], table["split"], strict=True)]
    table.to_csv(place / "metadata.csv", index=False)
    return place


def begins(kind: str, parent: Path) -> dict[str, Any]:
    return {"train": {"init_from": str(parent)}} if kind == "train.init_from" else {"distill": {"teacher": str(parent)}}


KINDS = pytest.mark.parametrize("kind", ["train.init_from", "distill.teacher"])


@KINDS
def test_the_same_split_is_clean_and_what_was_heard_is_remembered(home: Path, parent: Path, kind: str) -> None:
    theirs = Bundle.load(parent)
    trained = job(experiment(home / "in", home / "runs", **begins(kind, parent))).draft.trained
    assert trained.audit == "clean" and trained.begun_with == (theirs.fingerprint,)
    assert trained.group_keys == theirs.spec.trained.group_keys
    assert trained.val_group_keys == theirs.spec.trained.val_group_keys
    assert len(trained.group_keys) == 6 and len(trained.val_group_keys) == 2


def test_of_a_file_of_weights_nothing_is_known_but_its_digest(
    home: Path, parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = parent / WEIGHTS_FILE
    trained = job(experiment(home / "in", home / "runs", **begins("train.init_from", file))).draft.trained
    assert trained.audit == "clean" and trained.begun_with == (manifest.sha256_of(file)[:16],)
    assert f"train.init_from={file}: what these weights have heard is not known" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"expected weights as a \.safetensors file, got metadata\.csv"):
        job(experiment(home / "in", home / "runs", **begins("train.init_from", home / "in/metadata.csv")))


@KINDS
def test_a_test_clip_that_it_heard_is_a_leak(home: Path, parent: Path, tmp_path: Path, kind: str) -> None:
    root = other_split(home, tmp_path / "in", low0="test", top0="val", low3="train")
    plain = experiment(root, tmp_path / "runs")
    assert job(plain).draft.trained.audit == "clean"
    spec = plain.model_copy(update={"train": plain.train.model_copy(update={"init_from": parent})})
    if kind == "distill.teacher":
        spec = experiment(root, tmp_path / "runs", **begins(kind, parent))
    with pytest.raises(DataError) as error:
        job(spec)
    heard = f"{kind}={parent} was trained on"
    said = f"{heard} 1 of 3 clips of the val split; {heard} 1 of 2 clips of the test split"
    assert str(error.value) == (
        f"the data leaks: {said}: a score on it would flatter the model; split as that was split, begin with another "
        "bundle, or set audit.allow_leaks=true to have all that comes of it labelled LEAKY"
    )
    allowed = spec.model_copy(update={"audit": spec.audit.model_copy(update={"allow_leaks": True})})
    trained = job(allowed).draft.trained
    assert trained.audit == f"leaky: {said}"[: audit.LONGEST_LINE]
    assert set(Bundle.load(parent).spec.trained.group_keys) < set(trained.group_keys)
    assert manifest.group_key("csv", "top0") not in trained.val_group_keys  # the parent was trained on it


def test_the_same_sound_under_another_name_and_format_is_a_leak(home: Path, parent: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/other.flac", whole(melody("low", 0)), RATE)
    for name in ("a", "b", "c", "d"):
        soundfile.write(tmp_path / f"in/{name}.wav", tone(700 + 90 * ord(name), 1.0, ord(name)), RATE)
    rows = "path,label,group,split\nother.flac,low,new,test\na.wav,low,a,train\nb.wav,top,b,train\n"
    (tmp_path / "in/metadata.csv").write_text(rows + "c.wav,low,c,val\nd.wav,top,d,test\n")
    spec = experiment(tmp_path / "in", tmp_path / "runs", **begins("train.init_from", parent))
    with pytest.raises(DataError, match=r"was trained on 1 of 2 clips of the test split"):
        job(spec)


def test_a_leaky_parent_has_leaky_children(home: Path, tmp_path: Path) -> None:
    leaky = bundle(experiment(home / "in", home / "runs"), tmp_path / "leaky", audit="leaky: of a kind")
    with pytest.raises(DataError, match=r"train\.init_from=.* was trained on leaky data \(of a kind\)"):
        job(experiment(home / "in", home / "runs", **begins("train.init_from", leaky)))


def test_grandchildren_remember() -> None:
    old = Provenance(group_keys=("a", "b"), val_group_keys=("b",), clip_hashes=("1",), sample_hashes=("x",))
    mid = lineage.inherited(Provenance(group_keys=("c",), clip_hashes=("2",)), [lineage.Ancestor("p", old, "P")])
    new = lineage.inherited(Provenance(group_keys=("b", "d"), val_group_keys=("d",)), [lineage.Ancestor("q", mid, "Q")])
    assert new.group_keys == ("a", "b", "c", "d") and new.val_group_keys == ("d",)
    assert new.clip_hashes == ("1", "2") and new.sample_hashes == ("x",) and new.begun_with == ("Q",)


def folder_of_run(spec: Experiment) -> str:
    return train.run_folder(spec, job(spec).draft).name


def test_a_run_is_named_by_what_it_begins_with_and_not_by_its_path(home: Path, parent: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(parent, tmp_path / "moved")
    other = bundle(experiment(home / "in", home / "runs"), tmp_path / "other", seed=1)
    makes = [{}, *(begins(kind, path) for kind in ("train.init_from", "distill.teacher") for path in (parent, other))]
    names = [folder_of_run(experiment(home / "in", home / "runs", **one)) for one in makes]
    names.append(folder_of_run(experiment(home / "in", home / "runs", distill={"teacher": str(parent), "weight": 0.4})))
    assert len(set(names)) == len(names) == 6
    for kind, name in (("train.init_from", names[1]), ("distill.teacher", names[3])):
        assert folder_of_run(experiment(home / "in", home / "runs", **begins(kind, moved))) == name


def test_a_job_crosses_to_a_worker_whole(home: Path, parent: Path, tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound/x.wav", tone(500, 1.0, 5), RATE)
    begun = begins("distill.teacher", parent) | {"domain": {"target": str(tmp_path / "sound")}}
    made = job(experiment(home / "in", home / "runs", **begun))
    assert job_of(config_of(made)) == made and made.distill and made.domain and made.target


def test_paths_hold_in_every_process(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = {"train": {"init_from": "a"}, "distill": {"teacher": ["b", "/c"]}, "domain": {"target": "d"}}
    got = lineage.located(experiment(home / "in", home / "runs", **begun))
    assert got.distill and got.domain
    assert (got.train.init_from, got.distill.teacher) == (tmp_path / "a", (tmp_path / "b", Path("/c")))
    assert got.domain.target == tmp_path / "d"


def test_what_does_not_fit_is_refused_before_any_work(home: Path, parent: Path, tmp_path: Path) -> None:
    front = TINY["front"] | {"window_s": 1.0}
    for kind in ("train.init_from", "distill.teacher"):
        spec = experiment(home / "in", tmp_path / "runs", **begins(kind, parent) | {"front": front})
        with pytest.raises(ConfigError, match=r"front\.window_s is 0\.5 there and 1\.0 here; set front\.window_s to 0"):
            train.job_for(spec, verbose=False)
    assert not (tmp_path / "runs").exists()


# Unlabelled sound


@pytest.fixture
def unheard(tmp_path: Path) -> Path:
    (tmp_path / "sound/deep").mkdir(parents=True)
    for k in range(3):
        soundfile.write(tmp_path / f"sound/deep/{k}.wav", tone(500 + k, 1.0, 50 + k), RATE)
    return tmp_path / "sound"


def test_unlabelled_sound_is_taken_whole(unheard: Path, home: Path) -> None:
    frame = corpora.unlabelled(unheard)
    assert list(frame["labels"]) == [[]] * 3 and set(frame["split"]) == {"train"}
    labelled = corpora.unlabelled(home / "in")
    assert sorted(labelled["group"]) == ["low0", "low1", "top0", "top1"]  # of stated splits, what is for training
    assert list(labelled["labels"]) == [[]] * 4


def test_names_that_only_look_like_a_corpus_are_sound(unheard: Path) -> None:
    shutil.copy(unheard / "deep/0.wav", unheard / "[cel][nod][cla]0001__2.wav")  # as IRMAS names them, but for 0.wav
    assert set(corpora.unlabelled(unheard)["corpus"]) == {"unlabelled"}


def test_a_folder_without_sound_to_train_on_is_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"expected sound to train on in .*none, found none"):
        corpora.unlabelled(tmp_path / "none")


def test_the_target_is_heard(home: Path, unheard: Path, tmp_path: Path) -> None:
    spec = experiment(home / "in", tmp_path / "runs", domain={"target": str(unheard)})
    made = job(spec)
    frame = corpora.unlabelled(unheard)
    assert made.draft.trained.audit == "clean" and made.draft.trained.begun_with == (manifest.digest(frame),)
    assert set(frame["sha256"].str[:16]) < set(made.draft.trained.clip_hashes)
    name = train.run_folder(spec, made.draft).name
    moved = shutil.copytree(unheard, tmp_path / "moved")
    assert folder_of_run(experiment(home / "in", tmp_path / "runs", domain={"target": str(moved)})) == name
    soundfile.write(unheard / "more.wav", np.zeros(RATE) + 0.1, RATE)
    assert folder_of_run(spec) != name


def test_a_test_clip_in_the_target_is_a_leak(home: Path, unheard: Path, tmp_path: Path) -> None:
    shutil.copy(home / "in/low3.wav", unheard)
    spec = experiment(home / "in", tmp_path / "runs", domain={"target": str(unheard)})
    with pytest.raises(DataError, match=r"domain\.target=.*/sound holds 1 of 2 clips of the test split"):
        job(spec)


def test_what_trials_begin_with_is_not_searched(home: Path, parent: Path) -> None:
    begun = begins("distill.teacher", parent)
    for field, values in (("train.init_from", ["a", "b"]), ("distill.teacher", ["a"]), ("domain.target", ["a"])):
        spec = experiment(home / "in", home / "runs", tune={"space": {field: {"choice": values}}}, **begun)
        with pytest.raises(ConfigError, match=rf"tune\.space\.{field}: what trials begin with cannot be searched"):
            check(spec)
    spec = experiment(home / "in", home / "runs", tune={"space": {"distill.weight": {"uniform": [0.1, 0.9]}}}, **begun)
    check(spec)
