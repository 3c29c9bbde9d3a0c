"""Evaluation without Ray: which clips are scored, what is refused, and that the report says what numpy says."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from archives import LABELS, RATE, sound, tiny_bundle, write
from reports import metrics_of

from instrunet import scoring
from instrunet.audio import io
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Provenance
from instrunet.config import fingerprint
from instrunet.data import manifest, parts
from instrunet.drift import Profile
from instrunet.errors import DataError
from instrunet.experiment import Experiment
from instrunet.features import shards
from pipelines import audit, cli, evaluate, features, known, sides

HZ = dict(zip(LABELS, (220, 330, 495), strict=True))
GROUPS = ("north", "south", "west")


def write_corpus(folder: Path, split: dict[str, str] | None = None, extra: str = "") -> Path:
    """Nine clips of two windows each, three classes by three groups; `split` gives the groups their column."""
    lines = ["path,label,group" + (",split" if split else "")]
    for label in LABELS:
        for k, group in enumerate(GROUPS):
            write(folder / f"{label}_{group}.wav", sound(1.5, HZ[label] + 20 * k))
            lines.append(f"{label}_{group}.wav,{label},{group}" + (f",{split[group]}" if split else ""))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n" + extra, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features of a FOLDER go below the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(place: Path, target: Path, trained: Provenance | None = None, **more: Any) -> argparse.Namespace:
    saved = tiny_bundle(trained=trained).save(place / "bundle")
    plain = {"overrides": [], "out": place / "report", "split": "test", "allow_leaks": False, "verbose": False}
    plain |= {"aggregate": "", "map": [], "ignore": [], "rivals": []}
    return argparse.Namespace(**{"bundle": saved, "target": target, **plain, **more})


def featurize(frame: pd.DataFrame, bundle: Bundle, out: Path) -> Path:
    """The parts that Ray would make, so that the run finds nothing left to do."""
    plan = features.plan_of(frame, features.Recipe(bundle.spec.front))
    folder = out / "features" / fingerprint(plan)
    parts.claim(folder, plan)
    features._write_manifest(frame, folder)
    make = features.Worker(str(folder), plan["front"])
    for part in range(len(features.cut(frame))):
        assert not make({"part": part})["failed"]
    make.decoder.close()
    return folder


def run(args: argparse.Namespace) -> dict[str, Any]:
    frame = sides.resolve(args.target, args.overrides).frame
    folder = featurize(frame, Bundle.load(args.bundle), Path("runs").absolute())
    made = evaluate.run(args)
    assert list(folder.parent.iterdir()) == [folder]  # another one would have been made by Ray
    assert (made / "index.html").is_file()
    return metrics_of(made)


def trained_on(frame: pd.DataFrame) -> Provenance:
    hashes = tuple(sorted(h[:16] for h in frame["sha256"]))
    return Provenance(group_keys=tuple(sorted(manifest.group_keys(frame))), clip_hashes=hashes)


def test_a_folder_without_a_split_is_all_test(corpus: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    assert len(frame) == 9 and set(frame["split"]) == {"test"}


def test_of_a_folder_with_a_split_only_its_test_rows_are_scored(tmp_path: Path) -> None:
    split = {"north": "train", "south": "val", "west": "test"}
    frame = sides.resolve(write_corpus(tmp_path, split), []).frame
    chosen = sides.of_split(frame, "test")
    assert (len(frame), set(chosen["group"]), len(chosen)) == (9, {"west"}, 3)


def test_a_manifest_is_read_as_its_folder_is(corpus: Path, tmp_path: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    saved = manifest.save(frame.assign(split=""), tmp_path / "manifest.parquet")
    pd.testing.assert_frame_equal(sides.resolve(saved, []).frame, frame)


def test_a_config_brings_its_split_and_takes_overrides(corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "tones.yaml"
    config.write_text(f"out: {tmp_path / 'runs'}\ndata:\n  name: csv\n  root: {corpus}\n", encoding="utf-8")
    target = sides.resolve(config, [f"out={tmp_path / 'elsewhere'}", "split.seed=3"])
    assert target.out == tmp_path / "elsewhere"
    assert set(target.frame["split"]) == {"train", "val", "test"}
    expected = Experiment.parse({"data": {"name": "csv", "root": str(corpus)}, "split": {"seed": 3}}, "test")
    pd.testing.assert_frame_equal(target.frame, features.read_manifest(expected))


def test_parts_are_told_apart_by_what_the_table_says_besides(place: Path) -> None:
    corpus = write_corpus(place / "tones")
    head, *rows = (corpus / "metadata.csv").read_text(encoding="utf-8").splitlines()
    moods = [f"{row},{'calm' if k < 5 else 'wild'}" for k, row in enumerate(rows * 2)]
    for k in range(9, 18):  # each clip twice, under another name
        name = rows[k - 9].split(",")[0]
        write(corpus / f"again_{name}", sound(1.2, 300))
        moods[k] = f"again_{moods[k]}"
    (corpus / "metadata.csv").write_text("\n".join([f"{head},mood", *moods]) + "\n", encoding="utf-8")
    found = [one for one in run(arguments(place, corpus))["slices"] if one["by"] == "mood"]
    assert {(one["value"], one["n"]) for one in found} == {("calm", 5), ("wild", 13)}


def test_overrides_of_a_folder_are_refused(corpus: Path) -> None:
    with pytest.raises(
        DataError, match=r"^overrides \(split\.seed=3\) change a CONFIG; .*tones is not one \(\.yaml\)$"
    ):
        sides.resolve(corpus, ["split.seed=3"])


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    split = {"north": "train", "south": "val", "west": "test"}
    write(tmp_path / "more.wav", sound(1.0, 700))
    with pytest.raises(DataError, match=r"^group 'west' is in test and train at once"):
        sides.resolve(write_corpus(tmp_path, split, "more.wav,bell,west,train\n"), [])


def test_a_missing_split_is_named(corpus: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    with pytest.raises(
        DataError, match=r"^expected clips of the split 'val', the data has: test; choose one with --split$"
    ):
        sides.of_split(frame, "val")


def refused(args: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a user reads; a mistake of theirs exits with 2."""
    capsys.readouterr()
    assert cli.run(lambda: evaluate.run(args), verbose=False) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_unknown_labels_stop_a_run_before_any_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "in/x.wav", sound(1.0, 700))
    write_corpus(place / "in", extra="x.wav,gong,east\n")
    line = refused(arguments(place, place / "in"), capsys)
    assert line.startswith("error: the data has labels the bundle does not know: gong (1 of 10 clips); it knows bell, ")
    assert line.endswith("say what they are with --map gong=KNOWN, or leave them out with --ignore gong")
    assert not (place / "runs").exists() and not (place / "report").exists()


def test_labels_are_mapped_and_ignored_as_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.wav", "y.wav"):
        write(place / f"in/{name}", sound(1.0, 700))
    write_corpus(place / "in", extra="x.wav,gong,east\ny.wav,hiss,east\n")
    report = run(arguments(place, place / "in", map=["gong=bell"], ignore=["hiss"]))
    assert (report["n_clips"], report["metrics"]["per_class"]["bell"]["n"]) == (10, 4)
    assert "1 of 11 clips had no label but ignored ones and are left out" in capsys.readouterr().err


def test_a_class_without_clips_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(place / "in")
    lines = (corpus / "metadata.csv").read_text().splitlines()
    (corpus / "metadata.csv").write_text("\n".join(line for line in lines if ",horn," not in line))
    report = run(arguments(place, corpus))
    assert report["metrics"]["absent"] == ["horn"]
    assert "no clip of horn: averages are over the other classes" in capsys.readouterr().err
    assert "There is no clip of horn here" in (place / "report/index.html").read_text(encoding="utf-8")


def test_a_clip_of_no_class_is_no_example(bundle: Bundle, corpus: Path, tmp_path: Path) -> None:
    """Of several labels a clip may have none."""
    folder = featurize(sides.resolve(corpus, []).frame, bundle, tmp_path)
    held = shards.load(folder, bundle.spec.front, "test")
    held.clips["labels"] = [[], ["drum"], *([[]] * (len(held) - 2))]
    assert list(evaluate._examples(held, LABELS)) == ["drum"]


def test_scores_that_are_no_numbers_are_refused(corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments(place, corpus)
    broken = tiny_bundle()
    with torch.no_grad():
        broken.network.body.head[-1].bias.fill_(float("nan"))
    broken.save(args.bundle)
    featurize(sides.resolve(corpus, []).frame, broken, Path("runs").absolute())
    line = refused(args, capsys)
    assert line.startswith("error: expected finite scores, got NaN or infinity for 18 of 18 windows, the first of ")
    assert line.endswith("wav; the training of this bundle diverged, or its statistics do not fit: train it again")
    assert not args.out.exists()


def test_a_manifest_without_clips_is_refused(corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = sides.resolve(corpus, []).frame
    empty = manifest.save(frame[:0], place / "empty.parquet")
    line = refused(arguments(place, empty), capsys)
    assert line == "error: expected clips of the split 'test', the data has: none; choose one with --split"


def test_several_rules_are_told_in_one_report(corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(arguments(place, corpus, aggregate="mean,han2017_s2,max,vote"))
    rows = report["protocols"]
    assert [row["rule"] for row in rows] == ["mean", "sum_normalised", "max", "vote"]
    assert rows[0]["figures"]["accuracy"] == report["metrics"]["accuracy"] == rows[1]["figures"]["accuracy"]
    assert all(row["n"] == 9 and set(row["intervals"]) == set(row["figures"]) for row in rows)
    page = (place / "report/index.html").read_text(encoding="utf-8")
    assert "The same scores under other rules" in page and "han2017_s2" in page
    assert f"vote: accuracy {rows[3]['figures']['accuracy']:.3f} (" in capsys.readouterr().out


def test_thresholds_are_told_by_where_they_were_chosen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a validation split that the bundle was validated on, and of the test clips themselves: the oracle."""
    split = {"north": "train", "south": "val", "west": "test"}
    write(place / "in/x.wav", sound(1.0, 700))
    corpus = write_corpus(place / "in", split, "x.wav,bell;horn,east,test\n")
    frame = sides.resolve(corpus, []).frame
    learnt = trained_on(frame[frame["split"] != "test"])
    south = tuple(manifest.group_keys(frame[frame["group"] == "south"]))
    learnt = learnt.model_copy(update={"val_group_keys": south})
    report = run(arguments(place, corpus, learnt, aggregate="sum_normalised,mean"))
    told = {(row["rule"], row["thresholds"]): row["figures"]["micro_f1"] for row in report["protocols"]}
    assert set(told) == {(r, t) for r in ("mean", "sum_normalised") for t in ("own", "validation", "oracle")}
    assert report["metrics"]["micro_f1"] == told["sum_normalised", "own"]  # never the oracle's
    for rule in ("mean", "sum_normalised"):
        assert told[rule, "oracle"] >= max(told[rule, "own"], told[rule, "validation"])
    assert "(chosen on these clips): micro f1" in capsys.readouterr().out
    fresh = learnt.model_copy(update={"val_group_keys": ()})
    args = arguments(place, corpus, fresh, aggregate="mean")
    report = run(args)
    assert [row["thresholds"] for row in report["protocols"]] == ["own", "oracle"]
    assert "the bundle was trained on 3 of 3 clips of the val split: no thresholds" in capsys.readouterr().err


def test_no_leak_is_none(corpus: Path, bundle: Bundle) -> None:
    assert known.leaks(sides.resolve(corpus, []).frame, bundle) == []


def test_recordings_of_the_training_are_leaks(corpus: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    learnt = Provenance(group_keys=trained_on(frame[frame["group"] == "north"]).group_keys)
    assert known.leaks(frame, tiny_bundle(trained=learnt)) == ["1 of 3 groups were trained on"]


def test_files_of_the_training_are_leaks_under_any_name(corpus: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    learnt = trained_on(frame[frame["group"] == "south"])
    renamed = frame.assign(corpus="other")
    assert known.leaks(renamed, tiny_bundle(trained=learnt)) == ["3 of 9 clips are byte for byte in the training data"]


def test_a_file_that_cannot_be_read_is_no_leak(corpus: Path) -> None:
    frame = sides.resolve(corpus, []).frame.assign(sha256="")
    assert known.leaks(frame, tiny_bundle(trained=Provenance(clip_hashes=("",)))) == []


def test_a_copy_in_another_container_is_a_leak(corpus: Path, place: Path) -> None:
    frame = sides.resolve(corpus, []).frame
    prints = audit.prints_of(featurize(frame, tiny_bundle(), place / "first"))
    learnt = Provenance(sample_hashes=tuple(sorted(audit.hashes_of(prints).values())))
    with pytest.raises(DataError, match=r"^9 of 9 clips are sample for sample in the training data: "):
        run(arguments(place, corpus, learnt))
    both = trained_on(frame).model_copy(update={"sample_hashes": learnt.sample_hashes})
    said = run(arguments(place, corpus, both, allow_leaks=True))["leak_reasons"]
    assert said[1:] == ["9 of 9 clips are byte for byte in the training data"]  # and not said twice


def test_what_a_leaky_bundle_scores_is_leaky(corpus: Path, place: Path) -> None:
    learnt = Provenance(audit="leaky: 2 groups lie in more than one split")
    with pytest.raises(
        DataError, match=r"^the bundle was trained on leaky data \(2 groups lie in more than one split\)"
    ):
        evaluate.run(arguments(place, corpus, learnt))


def test_a_leak_is_refused_before_any_work(corpus: Path, place: Path) -> None:
    learnt = trained_on(sides.resolve(corpus, []).frame)
    with pytest.raises(
        DataError,
        match=r"^3 of 3 groups were trained on; 9 of 9 clips are byte for byte in the training data: a score on it "
        r"would flatter the model; .* or give --allow-leaks to have it labelled LEAKY$",
    ):
        evaluate.run(arguments(place, corpus, learnt))
    assert not (place / "runs").exists() and not (place / "report").exists()


def test_an_allowed_leak_is_labelled(corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learnt = trained_on(sides.resolve(corpus, []).frame)
    report = run(arguments(place, corpus, learnt, allow_leaks=True))
    assert report["leaky"] is True
    assert report["leak_reasons"] == [
        "3 of 3 groups were trained on",
        "9 of 9 clips are byte for byte in the training data",
    ]
    assert "LEAKY (9 clips, 3 groups, split test): accuracy" in capsys.readouterr().out


def test_a_report_says_what_the_bundle_says_of_each_file(
    corpus: Path, place: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(arguments(place, corpus))
    frame = sides.resolve(corpus, []).frame
    heard = [bundle(Path(uri)).labels == labels for uri, labels in zip(frame["uri"], frame["labels"], strict=True)]
    assert report["metrics"]["accuracy"] == pytest.approx(np.mean(heard))
    assert 0 < np.mean(heard) < 1  # or it would be the same for a bundle that always says one thing
    assert (report["n_clips"], report["n_groups"], report["leaky"], report["kind"]) == (9, 3, False, "single")
    assert (report["corpus"], report["fingerprint"]) == ("tones", Bundle.load(place / "bundle").fingerprint)
    assert f"held-out (9 clips, 3 groups, split test): accuracy {np.mean(heard):.3f}" in capsys.readouterr().out


def test_each_clip_is_told_with_its_scores_and_how_far_it_lies(place: Path) -> None:
    target = write_corpus(place / "in", extra="faint.wav,bell,south\n")
    write(place / "in/faint.wav", sound(1.5, HZ["bell"]) * 1e-3)
    args = arguments(place, target)
    heard = [tiny_bundle().hear(io.read(path, RATE)) for path in sorted(target.glob("*_*.wav"))]
    profile = Profile.of([one.measures for one in heard], [["bell"]] * len(heard))
    bundle = Bundle(tiny_bundle().spec.model_copy(update={"profile": profile}), tiny_bundle().network)
    bundle.save(args.bundle)
    report = run(args)
    rows = pq.read_table(args.out / "clips.parquet").to_pylist()
    assert len(rows) == 10 and {row["group"] for row in rows} == set(GROUPS)
    for row in rows:
        own = bundle(Path(row["uri"]))
        np.testing.assert_allclose(row["scores"], list(own.scores.values()), atol=0.01)
        assert (row["predicted"], row["drift"]) == (own.labels, own.drift)
    far = {Path(row["uri"]).name for row in rows if row["drift"] > 1}
    assert far == {"faint.wav"} and report["drift"]["outside"] == 0.1


def test_clips_without_sound_are_counted_aloud(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "in").mkdir()
    (place / "in/letter.wav").write_text("dear reader")
    write_corpus(place / "in", extra="letter.wav,bell,east\n")
    report = run(arguments(place, place / "in"))
    assert (report["n_clips"], report["n_groups"]) == (9, 3)
    assert "1 of 10 clips gave no sound and are not scored" in capsys.readouterr().err


def test_a_clip_is_the_mean_of_its_windows(corpus: Path, tmp_path: Path, bundle: Bundle) -> None:
    frame = sides.resolve(corpus, []).frame
    folder = featurize(frame, bundle, tmp_path)
    held = shards.load(folder, bundle.spec.front, "test")
    assert len(held) == 18
    scored = scoring.score(bundle, held)
    assert scored.clips["clip_id"].tolist() == frame["clip_id"].tolist()
    for uri, mean in zip(scored.clips["uri"], scored.scores, strict=True):
        windows = bundle.scores(bundle.featurizer.fast(io.read(Path(uri), RATE).wave))
        assert len(windows) == 2 and np.abs(windows[0] - windows[1]).max() > 1e-3
        np.testing.assert_allclose(mean, windows.mean(0), atol=0.01)  # features are kept in half precision


def test_windows_of_a_clip_need_not_stand_together(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    order = ["b", "a", "b", "c", "a", "b"]
    values = {"logmel": rng.normal(-5, 3, (6, *bundle.spec.front.shapes()["logmel"])).astype(np.float16)}
    clips = {name: list(order) for name in ("clip_id", "uri", "group", "split", "corpus")}
    held = shards.Features(values, clips | {"labels": [["bell"]] * 6, "start_s": [0.0] * 6, "measures": [[]] * 6})
    scored = scoring.score(bundle, held)
    alone = np.concatenate([scoring.score(bundle, _row(held, k)).scores for k in range(6)])
    assert scored.clips["clip_id"].tolist() == ["b", "a", "c"]
    for clip, mean in zip(("b", "a", "c"), scored.scores, strict=True):
        np.testing.assert_allclose(mean, alone[[name == clip for name in order]].mean(0), atol=1e-5)


def _row(held: shards.Features, k: int) -> shards.Features:
    return shards.Features(
        {n: v[k : k + 1] for n, v in held.values.items()}, {n: v[k : k + 1] for n, v in held.clips.items()}
    )


def test_a_split_of_nothing_but_bad_clips_is_refused(bundle: Bundle) -> None:
    empty = shards.Features({}, {name: [] for name in (*shards.COPIED, "start_s")})
    with pytest.raises(DataError, match=r"no clip of this split gave any sound; see errors\.parquet"):
        scoring.score(bundle, empty)


def said_of(bundle: Bundle, scores: np.ndarray, labels: list[list[str]]) -> scoring.Judgement:
    clips = pd.DataFrame({"labels": labels, "group": [f"g{k}" for k in range(len(labels))]})
    odds = 0 if bundle.spec.kind == "single" else np.log1p(-scores)
    logits = (np.log(scores) - odds).astype(np.float32)
    return scoring.judge(bundle, scoring.Scored(scores, clips, logits, list(range(len(labels)))))


def test_one_label_a_clip_is_judged_by_the_best_score(bundle: Bundle) -> None:
    found = said_of(bundle, np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]), [["bell"], ["drum"]])
    assert (found.kind, found.decided, found.metrics()["accuracy"]) == ("single", [["bell"], ["horn"]], 0.5)


def test_several_labels_are_judged_against_the_best_score(bundle: Bundle) -> None:
    """Of a softmax 0.35 beside 0.6 is a second instrument; by 0.5 alone it would never be one."""
    scores = np.array([[0.6, 0.35, 0.05], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found = said_of(bundle, scores, [["bell", "drum"], ["bell", "horn"], ["drum", "horn"]])
    assert (found.kind, found.decided) == ("multi", [["bell", "drum"], ["bell", "horn"], ["horn"]])
    assert found.metrics()["micro_f1"] == pytest.approx(2 * 5 / (5 + 6))


def test_a_multi_label_bundle_uses_its_own_thresholds() -> None:
    spec = tiny_bundle("multi").spec.model_copy(update={"thresholds": (0.7, 0.3, 0.5)})
    scores = np.array([[0.6, 0.35, 0.05], [0.75, 0.2, 0.5]])
    found = said_of(Bundle(spec, tiny_bundle("multi").network), scores, [["bell"], ["drum"]])
    assert (found.kind, found.decided) == ("multi", [["drum"], ["bell", "horn"]])


def test_figures_come_with_intervals_over_groups(corpus: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = run(arguments(place, corpus))["metrics"]
    assert set(metrics["intervals"]) == {k for k, v in metrics.items() if isinstance(v, float)}
    assert set(metrics["per_class"][LABELS[0]]["intervals"]) == {"precision", "recall", "f1"}
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    assert f"accuracy {metrics['accuracy']:.3f} ({low:.2f} to {high:.2f}), balanced" in capsys.readouterr().out
    assert f"interval {100 * low:.1f}\u202f%" in (place / "report/index.html").read_text(encoding="utf-8")


def test_one_group_has_no_interval(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = {"north": "train", "south": "val", "west": "test"}
    report = run(arguments(place, write_corpus(place / "in", split)))
    assert (report["n_groups"], report["metrics"]["intervals"]) == (1, {})
    assert "macro f1 0.000; one group says nothing of others: no intervals" in capsys.readouterr().out.replace(
        f"macro f1 {report['metrics']['macro_f1']:.3f}", "macro f1 0.000"
    )
    assert "All clips come from one source" in (place / "report/index.html").read_text(encoding="utf-8")


def test_mixtures_are_scored_end_to_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "in/x.wav", sound(1.0, 700))
    write_corpus(place / "in", extra="x.wav,bell;horn,east\n")
    report = run(arguments(place, place / "in"))
    assert (report["kind"], report["n_clips"]) == ("multi", 10)
    assert "held-out (10 clips, 4 groups, split test): micro f1" in capsys.readouterr().out


def test_a_folder_of_other_things_is_no_place_for_a_report(corpus: Path, place: Path) -> None:
    (place / "report").mkdir()
    (place / "report/thesis.txt").touch()
    with pytest.raises(DataError, match=r"found thesis\.txt; give another path"):
        evaluate.run(arguments(place, corpus))
    assert not (place / "runs").exists()
