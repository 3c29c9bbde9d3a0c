"""A bundle calibrated by the job and judged by the next: on clips that no weights and no thresholds were fitted on."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import LABELS, sound, tiny_bundle, write
from conftest import make_place, run
from reports import metrics_of

from instrunet.augment.copies import CopiesSpec
from instrunet.bundle import Bundle
from instrunet.bundle_spec import Provenance
from instrunet.config import fingerprint
from instrunet.data import manifest, parts
from instrunet.errors import ConfigError, DataError
from pipelines import calibrate, cli, evaluate, features, sides
from pipelines.journal import Journal

HZ = dict(zip(LABELS, (220, 330, 495), strict=True))
SPLIT = {"train": 1, "val": 8, "test": 8}  # groups
CONFIG = "name: tones\nout: {out}\ndata: {{name: csv, root: {root}}}\ntask: {task}\ntracking: {{enabled: false}}\n"


def write_corpus(folder: Path, several: bool = False) -> Path:
    """Clips of a second by seventeen groups; `several`: each third clip is of two labels."""
    lines, number = ["path,label,group,split"], 0
    for split, n_groups in SPLIT.items():
        for k in range(n_groups):
            for label in LABELS:
                write(folder / f"{label}{number}.wav", sound(1.0, HZ[label] * (1 + 0.03 * number)))
                names = f"{label};{LABELS[0]}" if several and label == LABELS[2] else label
                lines.append(f"{label}{number}.wav,{names},{split}{k},{split}")
            number += 1
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones")


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "mixtures", several=True)


def asked(place: Path, corpus: Path, kind: str = "single", **more: Any) -> argparse.Namespace:
    """A bundle that was trained and validated on the corpus, as training leaves it, and its features, made."""
    task = "any" if kind == "single" else "any_multi"
    config = place / "tones.yaml"
    config.write_text(CONFIG.format(out=place / "runs", root=corpus, task=task), encoding="utf-8")
    frame = sides.resolve(config, []).frame
    bundle = tiny_bundle(kind, trained_on(frame))  # type: ignore[arg-type]
    featurize(frame, bundle, place / "runs")
    plain = {"overrides": [], "out": place / "calibrated", "method": "temperature", "thresholds": "", "max_risk": None}
    plain |= {"bundle": bundle.save(place / "bundle"), "config": config, "verbose": False}
    return argparse.Namespace(**plain | more)


def trained_on(frame: Any) -> Provenance:
    learnt, val = frame[frame["split"] != "test"], frame[frame["split"] == "val"]
    return Provenance(
        group_keys=tuple(sorted(manifest.group_keys(learnt))),
        clip_hashes=tuple(sorted(h[:16] for h in learnt["sha256"])),
        val_group_keys=tuple(sorted(manifest.group_keys(val))),
    )


def featurize(frame: Any, bundle: Bundle, out: Path) -> None:
    """The parts that Ray would make."""
    plan = features.plan_of(frame, features.Recipe(bundle.spec.front, CopiesSpec()))
    folder = out / "features" / fingerprint(plan)
    parts.claim(folder, plan)
    features._write_manifest(frame, folder)
    worker = features.Worker(str(folder), plan["front"])
    for part in range(len(features.cut(frame))):
        assert not worker({"part": part})["failed"]
    worker.decoder.close()


def judged(args: argparse.Namespace, bundle: Path, place: Path) -> dict[str, Any]:
    plain = {"overrides": [], "split": "test", "allow_leaks": False, "verbose": False}
    plain |= {"aggregate": "", "map": [], "ignore": [], "rivals": []}
    made = evaluate.run(argparse.Namespace(bundle=bundle, target=args.config, out=place / "report", **plain))
    return metrics_of(made)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_calibrated_bundle_has_a_lower_error_on_held_out_clips(
    corpus: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = asked(tmp_path, corpus, method=method)
    before = judged(args, args.bundle, tmp_path)["metrics"]
    made = calibrate.run(args)
    said = capsys.readouterr().out
    after = judged(args, made, tmp_path)
    assert after["metrics"]["n"] == 24 and after["leaky"] is False
    assert after["metrics"]["ece"] < before["ece"] - 0.1
    assert after["belief"]["before"]["ece"] == pytest.approx(before["ece"])
    assert after["belief"]["after"]["brier"] < after["belief"]["before"]["brier"]
    assert "calibrated on 24 clips of 8 groups (tones)" in said and "on clips of groups left out of the fit" in said
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert "Can its scores be believed?" in page and "before the scores were calibrated" in page
    old, new = Bundle.load(args.bundle), Bundle.load(made)
    assert new.fingerprint != old.fingerprint and new.spec.weights_sha256 == old.spec.weights_sha256
    fitted = new.decisions.fitted
    assert fitted and fitted.parent == old.fingerprint and fitted.n_groups == 8


def test_what_it_changed_is_tracked_below_the_training(mixtures: Path, tmp_path: Path) -> None:
    offline = ["tracking.enabled=true", "tracking.uri=http://127.0.0.1:9"]
    args = asked(tmp_path, mixtures, "multi", thresholds="f1", max_risk=0.5, overrides=offline)
    key = Journal(tmp_path).begin({"name": "tones-1"})
    made = Bundle.load(calibrate.run(args))
    (place,) = (tmp_path / "calibrated").glob("*/tracking.jsonl")
    journal = Journal(place.parent)
    assert place.parent.name == made.fingerprint[:8] and journal.header["parent"] == key
    (line,) = (line for line in journal.lines if line["kind"] == "metrics")
    fitted = made.decisions.fitted
    assert fitted and fitted.after
    assert line["values"] == pytest.approx(
        {f"threshold_{label}": t for label, t in zip(LABELS, made.spec.thresholds, strict=True)}
        | {"temperature": made.spec.temperature, "abstain_below": made.decisions.abstain_below}
        | {"coverage": fitted.coverage, "risk": fitted.risk}
        | {"ece_before": fitted.before.ece, "ece_after": fitted.after.ece}
        | {"brier_before": fitted.before.brier, "brier_after": fitted.after.brier}
    )
    assert journal.params["calibration.method"] == "temperature" and journal.params["calibration.n_clips"] == "24"
    assert journal.status == "FINISHED"


def test_thresholds_and_the_limit_are_what_evaluation_decides_by(
    mixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = asked(tmp_path, mixtures, "multi", thresholds="recall=0.9", max_risk=0.5)
    made = Bundle.load(calibrate.run(args))
    assert "thresholds by recall=0.9: bell 0." in capsys.readouterr().out
    assert len(made.spec.thresholds) == 3 and set(made.spec.thresholds) != {0.5}
    report = judged(args, tmp_path / "calibrated", tmp_path)
    per_class = report["metrics"]["per_class"]
    assert [per_class[label]["threshold"] for label in LABELS] == pytest.approx(made.spec.thresholds)
    assert report["metrics"]["answers"]["n"] == round(24 * report["metrics"]["answers"]["coverage"])


def test_what_the_weights_learnt_from_is_refused(corpus: Path, tmp_path: Path) -> None:
    args = asked(tmp_path, corpus)
    args.bundle = tiny_bundle("single", Provenance(group_keys=trained_keys(args))).save(tmp_path / "other")
    with pytest.raises(DataError, match=r"^the bundle was trained on 24 of 24 clips of the val split: what is fitted"):
        calibrate.run(args)
    assert not args.out.exists()


def trained_keys(args: argparse.Namespace) -> tuple[str, ...]:
    return Bundle.load(args.bundle).spec.trained.group_keys


def test_clips_of_the_fit_are_not_held_out_any_more(corpus: Path, tmp_path: Path) -> None:
    args = asked(tmp_path, corpus)
    args.bundle = tiny_bundle("single").save(tmp_path / "fresh")  # it has heard nothing of this corpus
    made = Bundle.load(calibrate.run(args)).spec.trained
    frame = sides.resolve(args.config, []).frame
    val = frame[frame["split"] == "val"]
    assert set(made.group_keys) == set(made.val_group_keys) == manifest.group_keys(val)
    assert set(made.clip_hashes) == {h[:16] for h in val["sha256"]} and len(made.sample_hashes) == 24


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"thresholds": "f1"}, ConfigError, "--thresholds are for a model that gives several labels"),
        ({"max_risk": 1.5}, ConfigError, r"expected --max-risk from 0 to below 1, got 1.5"),
        ({"max_risk": 0.0, "overrides": ["split.val=0.2"]}, DataError, r"no limit keeps the risk at 0: the least is"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    corpus: Path, tmp_path: Path, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        calibrate.run(asked(tmp_path, corpus, **more))
    assert not (tmp_path / "calibrated").exists()


def test_another_bundle_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    args = asked(tmp_path, corpus)
    args.out = args.bundle
    with pytest.raises(
        DataError, match=r"^expected nothing at .*bundle, where the new bundle goes, and found something"
    ):
        calibrate.run(args)
    assert np.isfinite(Bundle.load(args.bundle).spec.temperature)


def test_the_job_itself(corpus: Path, tmp_path: Path) -> None:
    place = make_place(tmp_path / "user")
    args = asked(tmp_path, corpus)
    done = run(f"python jobs/calibrate.py {args.bundle} {args.config} --out {place}/new --max-risk 0.9", place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{place}/new"
    assert "no answer below" in done.stdout


def test_a_mistake_is_exit_code_2(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = asked(tmp_path, corpus, thresholds="f1")
    capsys.readouterr()
    assert cli.run_pipeline("calibrate", args) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: --thresholds are for a model that gives several labels")
