"""Several bundles on the same clips: each pair of scores is compared by the groups that both were tested on."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from archives import LABELS, tiny_bundle
from sklearn.metrics import balanced_accuracy_score, f1_score
from test_evaluate import arguments, corpus, featurize, place, run, write_corpus

from instrunet.bundle import Bundle
from instrunet.errors import DataError
from instrunet.metrics import intervals
from instrunet.metrics.intervals import Judged
from pipelines import cli, evaluate, sides
from pipelines.journal import Journal

__all__ = ["corpus", "place"]


def other(folder: Path, turned: int) -> Path:
    """The tiny bundle, whose answers are turned round: where it said the first label, this says a later one."""
    bundle = tiny_bundle()
    with torch.no_grad():
        for own in (bundle.network.body.head[-1].weight, bundle.network.body.head[-1].bias):
            own.copy_(own.roll(turned, 0))
    return Bundle(bundle.spec, bundle.network).save(folder)


def test_a_rival_is_told_beside_the_first(
    corpus: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    Journal(place).begin({"name": "tones-1"})
    rivals = [other(place / f"turned{k}", k) for k in (0, 1)]
    report = run(arguments(place, corpus, rivals=rivals))
    same, turned = report["rivals"]
    assert same["gain"]["balanced_accuracy"] == [0, 0, 0]
    frame = sides.resolve(corpus, []).frame
    truth = frame.set_index("clip_id")["labels"].str[0]
    clips = pq.read_table(place / "report/clips.parquet").to_pandas()
    said = [LABELS.index(predicted[0]) for predicted in clips["predicted"]]
    true = [LABELS.index(truth[name]) for name in clips["clip_id"]]
    expected = balanced_accuracy_score(true, [(k + 1) % 3 for k in said])
    assert turned["figures"]["balanced_accuracy"][0] == pytest.approx(expected)
    gain = expected - report["metrics"]["balanced_accuracy"]
    assert turned["gain"]["balanced_accuracy"][0] == pytest.approx(gain)
    told = capsys.readouterr().err
    assert f"{rivals[0]}: balanced accuracy {report['metrics']['balanced_accuracy']:.3f}, +0.000" in told
    page = (place / "report/index.html").read_text(encoding="utf-8")
    assert "Beside other models" in page and "within noise" in page and str(rivals[1]) in page
    (line,) = (line for line in Journal(place).lines if line["kind"] == "metrics")
    tracked, name = line["values"], f"test_rival_{turned['fingerprint'][:8]}_balanced_accuracy"
    assert tracked[name] == pytest.approx(expected)
    assert [tracked[f"{name}_gain{end}"] for end in ("", "_low", "_high")] == turned["gain"]["balanced_accuracy"]
    assert [tracked[f"test_mcc_{end}"] for end in ("low", "high")] == report["metrics"]["intervals"]["mcc"]


def test_bundles_of_other_tasks_are_refused(corpus: Path, place: Path) -> None:
    rival = tiny_bundle("multi").save(place / "multi")
    args = arguments(place, corpus, rivals=[rival])
    featurize(sides.resolve(corpus, []).frame, tiny_bundle(), Path("runs").absolute())
    with pytest.raises(DataError, match="answers with other labels .*compare bundles of one task"):
        evaluate.run(args)
    assert not (place / "report").exists()


def test_what_stands_before_the_data_is_a_bundle(corpus: Path, place: Path) -> None:
    first, second, third = (str(other(place / name, 0)) for name in "abc")
    made = cli.arguments(
        cli.evaluation_parser(""), [first, second, third, str(corpus), "split.seed=3", "--out", str(place / "out")]
    )
    cli._check_bundle(made)
    assert (made.bundle, made.rivals) == (Path(first), [Path(second), Path(third)])
    assert (str(made.target), made.overrides) == (str(corpus), ["split.seed=3"])


def test_pairs_of_several_labels_are_compared_on_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    truth, groups = rng.random((200, 4)) < 0.4, [f"g{k % 20}" for k in range(200)]
    a = truth ^ (rng.random(truth.shape) < 0.3)
    b = np.where(rng.random(truth.shape) < 0.3, truth, a)
    gap, interval = intervals.paired(Judged(truth, a, groups), Judged(truth, b, groups), 4)["micro_f1"]
    assert gap == pytest.approx(f1_score(truth.ravel(), b.ravel()) - f1_score(truth.ravel(), a.ravel()))
    assert 0 < interval.low < gap < interval.high
    one = [Judged(truth, said, ["g"] * 200) for said in (a, b)]
    assert intervals.paired(*one, 4)["micro_f1"][1] == intervals.Interval(-1.0, 1.0, 1)


def test_the_report_of_one_bundle_has_no_rivals(tmp_path: Path, place: Path) -> None:
    report = run(arguments(place, write_corpus(tmp_path / "alone")))
    assert report["rivals"] == [] and json.dumps(report)
    assert "Beside other models" not in (place / "report/index.html").read_text(encoding="utf-8")
