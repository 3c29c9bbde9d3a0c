"""A new head on stored embeddings: it learns what was labelled, and the sound may be gone."""

import json
from argparse import Namespace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from archives import make_work, sound, tiny_bundle, write, write_part

from instrunet.archive import books, rehead, retag, review, tagger
from instrunet.archive.rehead import Head
from instrunet.archive.units import UnitSpec
from instrunet.data import parts
from instrunet.errors import DataError
from instrunet.rule import Rule
from pipelines import retag as job

HIGH, LOW, SILENT = 12, 12, 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tags with embeddings of high tones and of low ones, and what three quarters of them are called; no sound."""
    home, bundle = tmp_path_factory.mktemp("rehead"), tiny_bundle()
    names = [f"high-{k:02d}" for k in range(HIGH)] + [f"low-{k:02d}" for k in range(LOW)]
    for k, name in enumerate(names):
        write(home / f"in/{name}.wav", sound(3.0, (2000 if name < "l" else 200) + 5 * k))
    for k in range(SILENT):
        write(home / f"in/silent-{k}.wav", np.zeros(8000 + k, np.float32))
    out = home / "tags"
    parts.claim(out, {"job": "tag", "archive": str(home / "in")})
    retag.keep_spec(out, bundle.spec)
    work = make_work(home / "in", out, UnitSpec(unit_s=2, part_units=7), bundle.fingerprint)
    for k in range(work.n_parts):
        write_part(out, k, tagger.table(tagger.tag_all(work.part(k), bundle, embed=True), embed=True))
    assert books.close(out, work, bundle)["closed"]
    parts.finish(out)
    rmtree(home / "in")
    rows = [f"{home}/in/{name}.wav,0,3,{name.split('-')[0]}" for name in names if int(name[-2:]) < 9]
    (home / "labels.csv").write_text("\n".join(["uri,start_s,stop_s,label", *rows]) + "\n")
    return home


def rehead_tags(home: Path) -> Path:
    """As `jobs/retag.py tags --labels labels.csv --to again --format csv`."""
    asked = {"labels": home / "labels.csv", "threshold": None, "thresholds": None, "format": "csv"}
    return job.run(Namespace(out=str(home / "tags"), to=str(home / "again"), **asked))


def test_a_head_of_new_labels_is_run_over_the_archive(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehead_tags(home) == home / "again"
    told = capsys.readouterr().out
    assert "a head of 2 labels from 54 windows: " in told
    assert float(told.split("windows: ")[1].split()[0]) > 0.9
    rows = pq.read_table(home / "again/recordings").to_pylist()
    assert len(rows) == HIGH + LOW + SILENT
    for row in rows:
        name = Path(row["uri"]).name.split("-")[0]
        assert row["labels"] == ([] if name == "silent" else [name]), row
    assert json.loads((home / "again/ledger.json").read_text())["closed"]
    units = [pq.read_table(home / name / "units").to_pylist() for name in ("tags", "again")]
    for old, new in zip(*units, strict=True):
        assert {n: old[n] for n in old if n not in ("scores", "bundle")} == {
            n: new[n] for n in new if n not in ("scores", "bundle")
        }
        assert [len(row) for row in new["scores"]] == [2] * len(old["scores"]) and new["bundle"] != old["bundle"]
    before = {p: p.stat().st_mtime_ns for p in (home / "again").rglob("*")}
    assert rehead_tags(home) == home / "again"
    assert before == {p: p.stat().st_mtime_ns for p in (home / "again").rglob("*")}
    assert retag.run(home / "again", home / "surer", 0.99, None)["closed"], "it is decided anew as tags are"
    assert review.pick([home / "again"], 3, Rule(retag.read_spec(home / "again")))[0].scores.shape == (2,)


def test_labels_of_a_review_are_those_of_its_clips(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,uri,start_s,stop_s\nclips/1.wav,/a.wav,0.5,1.5\nclips/2.wav,/b.wav,0,1\n")
    (tmp_path / "metadata.csv").write_text("path,label,group\nclips/2.wav,bell;horn,b\n")
    (row,) = rehead.read_labels(tmp_path).to_dict("records")
    assert (row["uri"], row["start_s"], row["stop_s"], row["label"]) == ("/b.wav", 0, 1, "bell;horn")


def test_several_labels_a_window_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((300, 6)).astype(np.float32)
    truth = points[:, :3] > 0.3
    scores = Head.fitted(points, truth, "multi").scores(points, "multi")
    assert ((scores >= 0.5) == truth).mean() > 0.95
    one = truth.copy()
    one[:, 1] = True
    assert Head.fitted(points, one, "multi").scores(points, "multi")[:, 1].min() > 0.99


def test_three_labels_equal_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    points, truth = rng.standard_normal((200, 5)).astype(np.float32), rng.integers(0, 3, 200)
    head = Head.fitted(points, np.eye(3, dtype=bool)[truth], "single")
    scaled = (points - head.mean) / head.std
    theirs = LogisticRegression(class_weight="balanced", max_iter=500).fit(scaled, truth).predict_proba(scaled)
    np.testing.assert_allclose(head.scores(points, "single"), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uri,start_s,stop_s,label\n{0}/in/high-00.wav,0,3,high\n", "windows of two labels at least, found high"),
        ("uri,start_s,stop_s,label\n{0}/in/nowhere.wav,0,3,high\n", "found none; label more"),
        ("uri,start_s,stop_s,label\n{0}/in/high-00.wav,0,3,a;b\n", "a window has several here"),
    ],
)
def test_too_few_labels_are_refused(text: str, said: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text.format(home))
    with pytest.raises(DataError, match=said):
        named = rehead.read_labels(tmp_path / "labels.csv")
        rehead.examples([home / "tags"], named, tiny_bundle().spec)


@pytest.mark.parametrize("text", ["path,label\na,b\n", "uri,start_s,stop_s,label\na,0,,b\n", ""])
def test_what_are_no_labels_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match="uri, start_s, stop_s and label"):
        rehead.read_labels(tmp_path / "labels.csv")


def test_tags_without_embeddings_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    pq.write_table(
        pq.read_table(home / "tags/units").drop_columns(["embeddings"]), tmp_path / "units/part-00000.parquet"
    )
    named = pd.DataFrame([{"uri": "/a", "start_s": 0.0, "stop_s": 1.0, "label": "x"}])
    with pytest.raises(DataError, match="has no embeddings; tag again with jobs/tag.py --embeddings"):
        rehead.examples([tmp_path], named, tiny_bundle().spec)
