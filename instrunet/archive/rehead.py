"""A new head on stored embeddings: trained on windows that were labelled, run over the archive; nothing is decoded.

A head is a logistic regression on standardised embeddings, each label weighing the same however often it was given.
Shapes: N windows with labels, W windows, E numbers of an embedding, K labels.
"""

import hashlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from instrunet import __version__
from instrunet.archive import books, retag, tagger, units
from instrunet.bundle_files import read_spec
from instrunet.bundle_spec import BundleSpec
from instrunet.config import fingerprint
from instrunet.data import parts, places
from instrunet.errors import ConfigError, DataError
from instrunet.rule import Rule

HEAD, CLIPS, NAMED = "head.safetensors", "clips.csv", "metadata.csv"
FOLDS = 5
Floats = NDArray[np.float32]


class Examples(NamedTuple):
    points: Floats  # [N, E]
    truth: NDArray[np.bool_]  # [N, K]
    labels: tuple[str, ...]
    uris: list[str]


class Head(NamedTuple):
    mean: Floats  # [E]
    std: Floats  # [E]
    weights: Floats  # [E, K]
    bias: Floats  # [K]

    @classmethod
    def fitted(cls, points: Floats, truth: NDArray[np.bool_], kind: str) -> Self:
        mean, std = points.mean(0), points.std(0) + 1e-6
        scaled = (points - mean) / std
        if kind == "single":
            weights, bias = _regression(scaled, truth.argmax(1), truth.shape[1])
        else:
            columns = [_regression(scaled, column.astype(int), 2) for column in truth.T]
            weights = np.stack([weight[:, 1] - weight[:, 0] for weight, _ in columns], 1)
            bias = np.array([one[1] - one[0] for _, one in columns], np.float32)
        return cls(mean, std, weights, bias)

    def scores(self, points: Floats, kind: str) -> Floats:
        """[W, E] to probabilities [W, K]."""
        logits = ((points - self.mean) / self.std) @ self.weights + self.bias
        if kind == "single":
            grown = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(grown / grown.sum(1, keepdims=True), np.float32)
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)


def read_labels(path: Path) -> pd.DataFrame:
    """`uri`, `start_s`, `stop_s` and `label` of each stretch that was labelled: a CSV of these, or what
    jobs/review.py made, with the metadata.csv that its page saved."""
    try:
        if path.is_dir():
            named = pd.read_csv(path / NAMED, dtype=str).merge(pd.read_csv(path / CLIPS, dtype={"uri": str}), on="path")
        else:
            named = pd.read_csv(path, dtype={"uri": str, "label": str})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as labels: {error}; give the folder of jobs/review.py with the metadata.csv that "
            "its page saves, or a CSV with uri, start_s, stop_s and label"
        ) from None
    for name in ("uri", "start_s", "stop_s", "label"):
        if name not in named or named[name].isna().any():
            raise DataError(f"{path} needs uri, start_s, stop_s and label in every row; {name} is missing")
    return named


def examples(runs: list[Path], named: pd.DataFrame, spec: BundleSpec) -> Examples:
    """The windows of these tags whose middle lies in a labelled stretch."""
    wanted = {str(uri): rows for uri, rows in named.groupby("uri")}
    half, found = spec.front.window_s / 2, list[tuple[Floats, str, set[str]]]()
    for row in (row for run in runs for row in _labelled_units(run, set(wanted))):
        rows = wanted[row["uri"]]
        for start_s, point in zip(row["window_start_s"], row["embeddings"], strict=True):
            inside = rows[(rows["start_s"] <= start_s + half) & (start_s + half < rows["stop_s"])]
            said = {label for text in inside["label"] for label in str(text).split(";") if label}
            if said:
                found.append((np.asarray(point, np.float32), row["uri"], said))
    labels = tuple(sorted({label for *_, said in found for label in said}))
    if len(labels) < 2:
        raise DataError(f"a head needs windows of two labels at least, found {', '.join(labels) or 'none'}; label more")
    if spec.kind == "single" and any(len(said) > 1 for *_, said in found):
        raise DataError("the bundle gives a clip one label, and a window has several here; label stretches apart")
    truth = np.array([[label in said for label in labels] for *_, said in found])
    return Examples(np.stack([point for point, *_ in found]), truth, labels, [uri for _, uri, _ in found])


def held_out(known: Examples, kind: str) -> float | None:
    """Balanced accuracy on recordings that the head was not trained on; None where all labels are of one."""
    n = min(FOLDS, len(set(known.uris)))
    if n < 2:
        return None
    guessed = np.zeros_like(known.truth)
    for train, test in GroupKFold(n).split(known.points, groups=known.uris):
        scores = Head.fitted(known.points[train], known.truth[train], kind).scores(known.points[test], kind)
        best = scores.argmax(1)[:, None] == np.arange(len(known.labels))
        guessed[test] = best if kind == "single" else scores >= 0.5
    recalls = [(guessed == known.truth)[column, k].mean() for k, column in enumerate(known.truth.T)]
    if kind == "multi":
        recalls += [
            (guessed == known.truth)[~column, k].mean() for k, column in enumerate(known.truth.T) if any(~column)
        ]
    return float(np.mean(recalls))


def run(out: Path, to: Path, head: Head, labels: tuple[str, ...]) -> dict[str, Any]:
    """The ledger of `to`: the tags of `out` by another head, which can be decided anew and reviewed as those can."""
    content = safetensors.numpy.save(head._asdict())
    spec, plan = _spec(out, labels, hashlib.sha256(content).hexdigest()), parts.read_json(out / parts.PLAN)
    claim = {"job": "rehead", "tags": fingerprint(plan), "bundle": spec.fingerprint(), "archive": plan.get("archive")}
    parts.claim(to, claim | {"code": __version__})
    if parts.is_done(to):
        return parts.read_json(to / books.LEDGER)
    retag.keep_spec(to, spec)
    parts.publish(to / HEAD, lambda aside: aside.write_bytes(content))
    parts.publish(to / units.WORK_LIST, lambda aside: _copy(out / units.WORK_LIST, aside))
    work = units.WorkList(to / units.WORK_LIST)
    for number in parts.left(to, books.UNITS, work.n_parts):
        table = _scored(pq.read_table(places.source(parts.part_path(out, books.UNITS, number))), head, spec)
        parts.publish(parts.part_path(to, books.UNITS, number), partial(_write, table))
    return books.close(to, work, Rule(spec))


def _labelled_units(run: Path, uris: set[str]) -> Iterator[dict[str, Any]]:
    columns = ["uri", "window_start_s", "embeddings"]
    for path in sorted((run / books.UNITS).glob("part-*.parquet")):
        file = pq.ParquetFile(places.source(path))
        if columns[-1] not in file.schema_arrow.names:
            raise DataError(f"{run} has no embeddings; tag again with jobs/tag.py --embeddings")
        there = set(file.read(["uri"]).column(0).to_pylist())
        if there & uris:
            yield from (row for row in file.read(columns).to_pylist() if row["uri"] in uris)


def _spec(out: Path, labels: tuple[str, ...], weights: str) -> BundleSpec:
    """As that of the tags, but for what belonged to its head."""
    tree = read_spec(out).model_dump()
    own = {"temperature": 1.0, "thresholds": (), "decisions": None, "runtimes": (), "int8_sha256": ""}
    return BundleSpec.model_validate(tree | own | {"labels": labels, "weights_sha256": weights})


def _scored(table: pa.Table, head: Head, spec: BundleSpec) -> pa.Table:
    if "embeddings" not in table.column_names:
        raise ConfigError("the tags have no embeddings; tag again with jobs/tag.py --embeddings")
    table = table.combine_chunks()
    embedded = table.column("embeddings").chunk(0) if len(table) else None
    flat = embedded.flatten().flatten().to_numpy(zero_copy_only=False) if embedded is not None else np.zeros(0)
    points = np.asarray(flat, np.float32).reshape(-1, len(head.mean))
    scores = head.scores(points, spec.kind).astype(np.float16)
    n, k = scores.shape
    inner = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * k, pa.array(scores.ravel()))
    offsets = embedded.offsets.to_numpy() - embedded.offsets[0].as_py() if embedded is not None else np.zeros(1, int)
    made = pa.ListArray.from_arrays(offsets.astype(np.int32), inner)
    table = table.set_column(table.column_names.index("scores"), "scores", made)
    bundle = pa.array([spec.fingerprint()] * len(table), pa.string())
    return table.set_column(table.column_names.index("bundle"), "bundle", bundle).cast(tagger.EMBEDDED)


def _regression(points: Floats, truth: NDArray[np.int64], n: int) -> tuple[Floats, Floats]:
    """Weights [E, n] and bias [n] of one linear layer; a label that never occurs, as in a fold, is never chosen."""
    there = np.unique(truth)
    weights, bias = np.zeros((points.shape[1], n), np.float32), np.full(n, -30.0, np.float32)
    bias[there] = 0.0
    if len(there) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 500 steps it is as good as it gets
            model = LogisticRegression(class_weight="balanced", max_iter=500).fit(points, truth)
        of_two = len(there) == 2
        weights[:, there[1:] if of_two else there] = model.coef_.T
        bias[there[1:] if of_two else there] = model.intercept_
    return weights, bias


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _copy(source: Path, path: Path) -> None:
    with source.open("rb") as there, path.open("wb") as here:
        copyfileobj(there, here)
