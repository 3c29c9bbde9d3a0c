"""From an evaluation to a folder: `metrics.json`, `clips.parquet` and a page that opens from disk with no network."""

import json
import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instrunet.errors import DataError
from instrunet.report import belief, explained, pages, pictures
from instrunet.report.evaluation import CLIPS, ClipResult, Evaluation

SCHEMA = 2  # of metrics.schema.json, which says what is in it
MAX_MISTAKES, MAX_PAIRS = 25, 5
OUR_FILES = {"index.html", "metrics.json", "clips.parquet"}
NEEDED = {
    "single": {"n", "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc", "per_class", "confusion"},
    "multi": {"n", "micro_f1", "macro_f1", "samples_f1", "lrap", "hamming", "top1_hit", "per_class"},
}


def build(evaluation: Evaluation, folder: Path) -> Path:
    """Write the report as `folder`, whole or not at all, and return the path of its page."""
    pictures.require()
    validate(evaluation)
    folder = Path(folder)
    check_folder(folder)
    texts = {"index.html": render(evaluation), "metrics.json": summary(evaluation)}
    files = {name: text.encode() for name, text in texts.items()} | {"clips.parquet": _table(evaluation.clips)}
    _publish(files, folder.resolve())
    return folder / "index.html"


def validate(evaluation: Evaluation) -> None:
    e = evaluation
    if e.kind not in NEEDED:
        raise DataError(f"expected kind single or multi, got {e.kind!r}; take it from the task")
    missing = sorted(NEEDED[e.kind] - set(e.metrics))
    if missing:
        raise DataError(f"expected metrics of a {e.kind} task, got none of {missing}; pass what metrics.{e.kind} gave")
    if list(e.metrics["per_class"]) != list(e.labels):
        raise DataError(
            f"expected metrics of {list(e.labels)}, got {list(e.metrics['per_class'])}; pass the same labels"
        )
    if e.metrics["n"] != e.n_clips or len(e.clips) not in (0, e.n_clips):
        raise DataError(
            f"expected {e.n_clips} clips, got metrics of {e.metrics['n']} and {len(e.clips)} rows; "
            "pass the figures and the rows of the same clips"
        )
    if e.leak_reasons and not e.leaky:
        raise DataError(f"expected no leak_reasons as leaky is false, got {list(e.leak_reasons)}; set leaky=True")
    _validate_features(e)


def _validate_features(evaluation: Evaluation) -> None:
    for label, feature in evaluation.features.items():
        if label not in evaluation.labels:
            raise DataError(f"expected features of {list(evaluation.labels)}, got one of {label!r}; drop or rename it")
        if feature.ndim != 2 or not feature.size or not np.isfinite(feature).all():
            raise DataError(
                f"expected a finite feature [F, L] of {label!r}, got shape {feature.shape}; pass that of one clip"
            )


def check_folder(folder: Path) -> None:
    """A report may take the place of nothing, of an empty folder or of another report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"expected a folder for the report at {folder}, found a file; give another path")
    found = {path.name for path in folder.iterdir()}
    foreign = sorted(found - OUR_FILES)
    # A metrics.json alone proves nothing: what stands beside it would be deleted with the old report.
    if foreign or (found and not _is_ours(folder / "metrics.json")):
        what = ", ".join(foreign[:3]) or "no metrics.json of a report"
        raise DataError(f"expected an empty folder or an earlier report at {folder}, found {what}; give another path")


def summary(evaluation: Evaluation) -> str:
    """metrics.json: all but the rows and the pictures. NaN becomes null, as JSON has no word for it."""
    names = [f.name for f in fields(evaluation) if f.name not in ("clips", "features", "why", "slices")]
    tree = {"schema": SCHEMA} | {name: _plain(getattr(evaluation, name)) for name in names}
    tree["slices"] = [_plain(asdict(one)) for one in evaluation.slices]
    return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def render(evaluation: Evaluation) -> str:
    """The page. Its words stand in page.html; here is only what they are about."""
    mistakes = [clip for clip in evaluation.clips if clip.wrong]
    single, why = evaluation.kind == "single", evaluation.why
    return pages.render(
        "page.html",
        e=evaluation,
        m=evaluation.metrics,
        worst=worst_class(evaluation),
        n_present=sum(row["n"] > 0 for row in evaluation.metrics["per_class"].values()),
        n_mistakes=len(mistakes),
        mistakes=sorted(mistakes, key=lambda clip: -clip.score)[:MAX_MISTAKES],
        pairs=confused(evaluation) if single else [],
        max_counted=pictures.MAX_COUNTED_LABELS,
        confusion=pictures.confusion(evaluation.metrics["confusion"], evaluation.labels) if single else None,
        curves=pictures.curves(evaluation.history),
        believed=belief.drawn(evaluation.belief),
        spectrograms={label: pictures.spectrogram(feature) for label, feature in evaluation.features.items()},
        shown=[(one, *explained.looked_at(one.heard, one.went_by), explained.sound(one.audio)) for one in why.shown],
        strips=explained.strips(why.strips),
        scatter=explained.scatter(why.maps, why.point_labels, why.point_wrong, evaluation.labels),
    )


def confused(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most, in either direction."""
    counts, labels = np.array(evaluation.metrics["confusion"]), list(evaluation.labels)
    found: list[dict[str, Any]] = [
        {"pair": (labels[j], labels[k]), "n": int(counts[j, k] + counts[k, j]), "ways": (counts[j, k], counts[k, j])}
        for j in range(len(labels))
        for k in range(j)
        if counts[j, k] + counts[k, j]
    ]
    return sorted(found, key=lambda one: -one["n"])[:MAX_PAIRS]


def worst_class(evaluation: Evaluation) -> dict[str, Any] | None:
    """The class of the lowest F1 among those with clips, and what it is most often taken for."""
    rows = evaluation.metrics["per_class"]
    present = [label for label in evaluation.labels if rows[label]["n"]]
    if not present:
        return None
    label = min(present, key=lambda name: float(rows[name]["f1"]))
    row = rows[label]
    found = round(row["recall"] * row["n"])
    called = round(found / row["precision"]) if found else 0
    worst = {"label": label, "found": found, "called": called, "rival": None, "n_rival": 0, **row}
    if evaluation.kind == "single":
        k = list(evaluation.labels).index(label)
        wrong = [0 if j == k else n for j, n in enumerate(evaluation.metrics["confusion"][k])]
        worst |= {"rival": evaluation.labels[int(np.argmax(wrong))], "n_rival": max(wrong)}
    return worst


def _is_ours(path: Path) -> bool:
    try:
        return "schema" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _table(clips: Sequence[ClipResult]) -> bytes:
    """A row a clip, in the order of the labels of metrics.json."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([asdict(clip) for clip in clips], schema=CLIPS), sink)
    return bytes(sink.getvalue())


def _publish(files: Mapping[str, bytes], folder: Path) -> None:
    """Write aside, then rename into place; an earlier report goes only when the new one is there."""
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}.{mark}.{word}") for word in ("new", "old"))
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _plain(value: Any) -> Any:
    """Numpy's numbers, tuples and mappings as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
