"""A report is whole or absent, needs no network, and says what it was given and nothing else."""

import base64
import dataclasses
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from instrunet.errors import ConfigError, DataError
from instrunet.metrics import multi, single
from instrunet.report import pictures
from instrunet.report.build import build, confused, worst_class
from instrunet.report.evaluation import ClipResult, Evaluation
from instrunet.report.words import clock, magnitude

LABELS = ["cello", "flute", "<script>alert(1)</script>", "箏 $\\frac{1}$\x01"]
VOID = {"meta", "img", "source", "br"}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    y_true = np.array([0, 0, 0, 1, 1, 2, 2])
    scores = np.array(
        [[8, 1, 1, 0], [7, 1, 2, 0], [3, 6, 1, 0], [1, 8, 1, 0], [1, 6, 3, 0], [0, 7, 3, 0], [0, 1, 9, 0]]
    )
    rows = [
        ClipResult(f"id{i}", f"/data/<b>/{i}.wav", f"rec{i}", [LABELS[t]], [LABELS[s.argmax()]], s.max() / 10, i, i + 3)
        for i, (t, s) in enumerate(zip(y_true, scores, strict=True))
    ]
    return Evaluation(
        title="Strings & <i>winds</i>",
        kind="single",
        labels=LABELS,
        metrics=single.evaluate(y_true, scores / 10, LABELS),
        bundle="runs/one/bundle",
        fingerprint="0123456789abcdef",
        model="resnet",
        n_parameters=4_213_771,
        corpus="irmas",
        split="test",
        n_clips=7,
        n_groups=7,
        leaky=False,
        clips=rows,
        history=[
            {"epoch": 1, "train_loss": 2.0, "val_loss": float("nan"), "val_accuracy": 0.1, "learning_rate": 1e-3},
            {"epoch": 2, "train_loss": 1.0, "val_loss": np.float32(1.5), "val_accuracy": None, "learning_rate": 1e-4},
        ],
        features={LABELS[3]: np.random.default_rng(0).random((16, 20)).astype(np.float16), "cello": np.ones((16, 1))},
    )


@pytest.fixture(scope="module")
def leaky(evaluation: Evaluation) -> Evaluation:
    return dataclasses.replace(evaluation, leaky=True, leak_reasons=["2 recordings are on <both> sides"])


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(evaluation, tmp_path_factory.mktemp("out") / "report").read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Fails on a tag that closes what is not open; collects the values of attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            assert dict(attrs).get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_pairs_that_are_confused_are_told_both_ways(evaluation: Evaluation) -> None:
    counts = [[5, 2, 0, 1], [3, 5, 0, 0], [0, 0, 5, 0], [0, 0, 4, 5]]
    found = confused(dataclasses.replace(evaluation, metrics={**evaluation.metrics, "confusion": counts}))
    assert [(one["pair"], one["n"], one["ways"]) for one in found] == [
        ((LABELS[1], LABELS[0]), 5, (3, 2)),
        ((LABELS[3], LABELS[2]), 4, (4, 0)),
        ((LABELS[3], LABELS[0]), 1, (0, 1)),
    ]


def test_page_is_balanced_html(page: str) -> None:
    assert {"h1", "table", "picture", "script", "style"} <= set(parsed(page).tags)


def test_page_loads_nothing(page: str) -> None:
    assert not re.search(r"https?:|@import|url\(", page)
    assert all(value.startswith("data:image/") for value in parsed(page).loaded)


def test_drawings_are_well_formed_and_keep_the_labels(page: str) -> None:
    drawings = [base64.b64decode(code) for code in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    texts = ["".join(ElementTree.fromstring(svg).itertext()) for svg in drawings]
    assert len(texts) == 2 * (1 + 3)  # light and dark: the matrix and three panels of curves
    assert all(name in texts[0] for name in ("cello", "<script>alert(1)</scr…", "箏 $\\frac{1}$"))


def test_user_text_is_escaped(page: str) -> None:
    assert parsed(page).tags.count("script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>winds</i>" not in page
    assert "/data/<b>/" not in page


def test_verdict_names_what_on_what_and_the_worst_class(page: str) -> None:
    verdict = re.sub(r"<[^>]+>|\s+", " ", page[page.index('class="card verdict') : page.index('class="tiles"')])
    verdict = re.sub(r"\s+", " ", verdict)
    for part in (
        "resnet",
        "4.21\u00a0million parameters",
        "test split of irmas",
        "7 clips",
        "Clean split",
        "72.2\u202f%",
    ):
        assert part.replace("\u00a0", " ").replace("\u202f", " ") in verdict
    assert (
        "The weakest class is flute (F1 0.67): it finds 2 of 2 clips, but of the 4 that it calls flute only 2 are"
        in verdict
    )


def test_same_evaluation_gives_the_same_bytes(evaluation: Evaluation, page: str, tmp_path: Path) -> None:
    assert build(evaluation, tmp_path / "again").read_text(encoding="utf-8") == page


def test_mistakes_are_the_surest_first(page: str) -> None:
    rows = re.findall(r'<td class="clip" title="[^"]*?(\d)\.wav', page)
    assert rows == ["5", "2"]


def test_leaky_only_if_leaky(page: str, leaky: Evaluation, tmp_path: Path) -> None:
    assert "LEAKY" not in page
    assert 'class="banner"' not in page
    text = build(leaky, tmp_path / "report").read_text(encoding="utf-8")
    parsed(text)
    assert "LEAKY: do not quote these figures" in text
    assert "<title>LEAKY" in text
    assert "2 recordings are on &lt;both&gt; sides" in text
    assert "Clean split" not in text


def test_where_all_clips_trained_the_page_says_so(evaluation: Evaluation, page: str, tmp_path: Path) -> None:
    learnt = [{"epoch": k, "train_loss": 2.0 / k, "learnt_accuracy": 0.4, "learning_rate": 1e-3} for k in (1, 2)]
    text = build(dataclasses.replace(evaluation, history=learnt), tmp_path / "report").read_text(encoding="utf-8")
    parsed(text)
    none_left = "All clips trained: none was left to validate on"
    assert none_left in text and none_left not in page
    assert "A validation loss that rises" in page and "A validation loss that rises" not in text


def test_metrics_json_round_trip(evaluation: Evaluation, tmp_path: Path) -> None:
    build(evaluation, tmp_path / "report")
    tree = json.loads((tmp_path / "report/metrics.json").read_text(encoding="utf-8"))
    assert tree["schema"] == 2
    assert tree["metrics"] == evaluation.metrics
    assert tree["labels"] == LABELS
    assert tree["history"][0]["val_loss"] is None
    assert tree["history"][1]["val_loss"] == 1.5
    assert (tree["bundle"], tree["leaky"], tree["n_groups"]) == ("runs/one/bundle", False, 7)
    assert not {"clips", "features"} & set(tree)


def test_multi_label_without_extras(evaluation: Evaluation, tmp_path: Path) -> None:
    y_true = np.array([[True, True, False], [False, False, False]])
    metrics = multi.evaluate(y_true, np.array([[0.9, 0.2, 0.1], [0.1, 0.2, 0.3]]), LABELS[:3], np.full(3, 0.5))
    metrics["intervals"] = {"macro_f1": (0.25, 0.75)}
    bare = dataclasses.replace(
        evaluation, kind="multi", labels=LABELS[:3], metrics=metrics, n_clips=2, clips=(), history=(), features={}
    )
    text = build(bare, tmp_path / "report").read_text(encoding="utf-8")
    parsed(text)
    assert "Micro F1" in text
    assert "interval 0.250 to 0.750" in text
    assert "confusion" not in text.lower()
    assert "<img" not in text


def test_replaces_a_report_of_ours(evaluation: Evaluation, tmp_path: Path) -> None:
    build(evaluation, tmp_path / "report")
    build(dataclasses.replace(evaluation, title="The second"), tmp_path / "report")
    assert "The second" in (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.txt": "mine"}, r"found thesis\.txt; give another path"),
        ({"metrics.json": '{"schema": 1}', "notes.md": "mine"}, r"found notes\.md"),
        ({"metrics.json": '{"accuracy": 1}'}, r"found no metrics\.json of a report"),
        ({"metrics.json": "not json"}, r"found no metrics\.json of a report"),
        ({"index.html": "<p>my site"}, r"found no metrics\.json of a report"),
    ],
)
def test_refuses_what_is_not_ours(evaluation: Evaluation, tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        build(evaluation, tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == files


def test_refuses_a_file(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="found a file; give another path"):
        build(evaluation, tmp_path / "report")


def test_nothing_is_left_when_a_picture_fails(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pictures, "spectrogram", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        build(evaluation, tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", ["write_bytes", "rename"])
def test_the_old_report_stays_when_writing_fails(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    build(evaluation, tmp_path / "report")
    real = getattr(Path, action)

    def fail(self: Path, target: Any, **options: Any) -> Any:
        if ".new" in str(self):
            raise OSError("disk full")
        return real(self, target, **options)

    monkeypatch.setattr(Path, action, fail)
    with pytest.raises(OSError, match="disk full"):
        build(dataclasses.replace(evaluation, title="The second"), tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert "winds" in (tmp_path / "report/index.html").read_text(encoding="utf-8")


def test_says_which_extra_is_missing(evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs matplotlib.*pip install instrunet\[report\]"):
        build(evaluation, tmp_path / "report")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "both"}, "kind single or multi, got 'both'"),
        ({"kind": "multi"}, r"metrics of a multi task, got none of \['hamming'"),
        ({"labels": LABELS[:2]}, r"expected metrics of \['cello', 'flute'\], got"),
        ({"n_clips": 8}, "expected 8 clips, got metrics of 7 and 7 rows"),
        ({"leak_reasons": ["twins"]}, r"no leak_reasons as leaky is false, got \['twins'\]; set leaky=True"),
        ({"features": {"oboe": np.ones((2, 2))}}, "got one of 'oboe'; drop or rename it"),
        ({"features": {"cello": np.ones(2)}}, r"finite feature \[F, L\] of 'cello', got shape \(2,\)"),
        ({"features": {"cello": np.full((2, 2), np.nan)}}, "finite feature"),
    ],
)
def test_refuses_what_does_not_fit_together(
    evaluation: Evaluation, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        build(dataclasses.replace(evaluation, **change), tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_worst_class_has_clips_and_a_rival(evaluation: Evaluation) -> None:
    y_true, y_pred = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 1])
    metrics = single.evaluate(y_true, np.eye(4)[y_pred], LABELS)
    worst = worst_class(dataclasses.replace(evaluation, metrics=metrics))
    assert worst is not None
    figures = {key: worst[key] for key in ("label", "found", "n", "rival", "n_rival", "called")}
    assert figures == {"label": "cello", "found": 1, "n": 3, "rival": "flute", "n_rival": 2, "called": 1}


def test_words_for_numbers() -> None:
    assert [magnitude(n) for n in (812, 48_210, 4_213_771, 1_300_000_000)] == [
        "812",
        "48.2\u00a0thousand",
        "4.21\u00a0million",
        "1.3\u00a0billion",
    ]
    assert [clock(s) for s in (0, 59.97, 61.25)] == ["0:00.0", "1:00.0", "1:01.2"]


def test_many_labels_are_drawn_without_counts() -> None:
    n = pictures.MAX_COUNTED_LABELS + 1
    drawing = pictures.confusion(np.eye(n, dtype=int).tolist(), [f"bird {k}" for k in range(n)])
    assert len(drawing.light) < 200_000
    assert drawing.light != drawing.dark
