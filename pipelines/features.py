"""Manifest to features on Ray Data: a folder named by what is in it, made once, whole or resumable."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from instrunet.audio.fingerprint import ClipPrint
from instrunet.audio.isolated import Decoder, Limits
from instrunet.augment.copies import CopiesSpec, with_copies
from instrunet.config import fingerprint
from instrunet.data import corpora, manifest, parts, places, split
from instrunet.data.corpora import SynthCorpusSpec
from instrunet.data.packed import as_sorted
from instrunet.data.synth import write_corpus
from instrunet.drift import Profile
from instrunet.errors import DataError, JobError
from instrunet.experiment import ClusterSpec, Experiment
from instrunet.features import shards
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics
from pipelines import audit, cluster
from pipelines.console import bar, note, note_once, result
from pipelines.parts import run as run_parts
from pipelines.parts import told

CLIPS_PER_PART = 64  # 3 s clips: about 2 MB of features and half a second of work
BYTES_PER_PART = 1 << 28  # of sound files: 64 clips of half a minute, 44.1 kHz, stereo, are 340 MB and two parts
LAYOUT = 5  # of the shards and prints; a change of it makes new folders
ERRORS, STATISTICS, PROFILE = "errors.parquet", "statistics.json", "profile.json"


@dataclass(frozen=True)
class Recipe:
    """What is made of the clips."""

    front: FrontEnd
    copies: CopiesSpec = CopiesSpec()  # of the training split

    def plan(self) -> dict[str, Any]:
        """A folder without copies has the name that it had before there were any."""
        copies = {"copies": self.copies.model_dump(mode="json")} if self.copies.lists else {}
        return {"front": self.front.model_dump(mode="json"), **copies}


def run(experiment: Experiment, verbose: bool = False) -> Path:
    """The folder of features of an experiment; a second run finds it done."""
    return made_of(read_manifest(experiment), experiment, verbose)


def made_of(frame: pd.DataFrame, experiment: Experiment, verbose: bool) -> Path:
    """The same, of a manifest that several recipes share."""
    recipe = Recipe(experiment.front, experiment.copies)
    folder = prepare(frame, recipe, experiment.out, experiment.cluster, experiment.max_bad_fraction, verbose)
    note_once(audit.read(folder, experiment.audit).line)
    return folder


def read_manifest(experiment: Experiment) -> pd.DataFrame:
    if isinstance(experiment.data, SynthCorpusSpec) and not experiment.data.root.exists():
        _make_corpus(experiment.data)
    read = corpora.read(experiment.data)
    frame, notes = split.assign(read, experiment.split, experiment.audit.allow_leaks)
    check_labels(frame, experiment)
    for text in (*corpora.notes(read), *notes):
        note(f"note: {text}")
    return frame


def _make_corpus(spec: SynthCorpusSpec) -> None:
    """The embedded corpus takes half a minute the first time."""
    with bar("making the embedded corpus", total=1) as progress:
        write_corpus(spec.synth, spec.root, progress.set)


def check_labels(frame: pd.DataFrame, experiment: Experiment) -> None:
    task, found = experiment.the_task, manifest.labels_of(frame)
    unknown = [label for label in found if task.labels and label not in task.labels]
    if unknown:
        raise DataError(
            f"task {experiment.task} has the labels {', '.join(task.labels)}, the data has {unknown[0]!r}; "
            "set task=any to take the labels from the data"
        )
    if len(task.labels or found) < 2:
        raise DataError(f"a classifier needs two classes at least, the data has {', '.join(found) or 'none'}")
    several = frame.loc[(frame["labels"].map(len) > 1) & (frame["split"] != "official"), "uri"]
    if task.kind == "single" and len(several):
        raise DataError(
            f"task {experiment.task} gives one label a clip, {several.iloc[0]} has several; set task=any_multi"
        )


def prepare(
    frame: pd.DataFrame, recipe: Recipe, out: Path, spec: ClusterSpec, max_bad_fraction: float, verbose: bool
) -> Path:
    """The folder of features of a manifest whose splits are made; the copies are added here, after that."""
    n_clips, frame = len(frame), with_copies(as_they_lie(frame), recipe.copies)
    plan = plan_of(frame, recipe)
    folder = (out / "features" / fingerprint(plan)).absolute()
    if parts.is_done(folder):
        note_once(f"features: {n_clips} clips, made before")
        return folder
    parts.claim(folder, plan)
    _write_manifest(frame, folder)
    n_parts = pq.ParquetFile(places.source(folder / manifest.FILE)).num_row_groups
    if parts.left(folder, shards.KIND, n_parts):
        cluster.connect(spec, verbose=verbose)
        _make(folder, recipe, Limits(wait_s=spec.decode_wait_s), n_parts)
    _close(folder, n_parts, max_bad_fraction)
    return folder


def as_they_lie(frame: pd.DataFrame) -> pd.DataFrame:
    """Clips of a pack in the order of its shards, so that a part is some requests and not one for each clip."""
    uris = frame["uri"].tolist()
    if not any(map(places.is_packed, uris)):
        return frame
    return frame.iloc[sorted(range(len(uris)), key=lambda row: as_sorted(uris[row]))].reset_index(drop=True)


def plan_of(frame: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    return {
        "job": "features",
        "layout": LAYOUT,
        "manifest": manifest.digest(frame),
        **recipe.plan(),
        "clips_per_part": CLIPS_PER_PART,
        "bytes_per_part": BYTES_PER_PART,
    }


def cut(frame: pd.DataFrame) -> list[slice]:
    """The clips of each part: so many at most, and so many bytes, of which the clips of one file share its own."""
    shares = (frame["n_bytes"].fillna(0) / frame.groupby("uri")["uri"].transform("size")).to_numpy()
    starts, held = [0], 0.0
    for k, share in enumerate(shares):
        if k > starts[-1] and (k - starts[-1] == CLIPS_PER_PART or held + share > BYTES_PER_PART):
            starts, held = [*starts, k], 0.0
        held += share
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(frame)], strict=True) if b > a]


class Worker:
    """An actor that makes parts: it reads its clips from the manifest's row group, publishes prints, then features."""

    def __init__(
        self,
        folder: str,
        front: dict[str, Any],
        limits: Limits | None = None,
        copies: Mapping[str, Any] | None = None,
    ) -> None:
        torch.set_num_threads(1)  # one actor a core
        self.folder = places.located(folder)
        self.manifest = places.source(self.folder / manifest.FILE)
        self.featurizer = Featurizer(FrontEnd.model_validate(front))
        self.copies = CopiesSpec.model_validate(copies or {})
        self.decoder = Decoder(limits)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return told(self.make, row)

    def make(self, number: int) -> dict[str, Any]:
        clips = pq.ParquetFile(self.manifest).read_row_group(number).to_pylist()
        prints: dict[str, ClipPrint] = {}
        table = shards.make_part(clips, self.featurizer, prints, self.decoder.read, self.copies)
        audit.publish_prints(self.folder, number, prints)  # first: a shard that is listed has its prints
        path = parts.part_path(self.folder, shards.KIND, number)
        # Half-precision features are noise to a compressor: 4 % smaller for 5 times the write
        parts.publish(path, lambda aside: pq.write_table(table, aside, compression="none", use_dictionary=False))
        return {"n_clips": len(clips)}


def _write_manifest(frame: pd.DataFrame, folder: Path) -> None:
    table = pa.Table.from_pandas(frame, schema=manifest.SCHEMA, preserve_index=False)

    def write(aside: Path) -> None:
        """A row group a part, so that a worker reads its clips alone."""
        with pq.ParquetWriter(aside, manifest.SCHEMA) as writer:
            for part in cut(frame):
                writer.write_table(table.slice(part.start, part.stop - part.start))

    parts.publish(folder / manifest.FILE, write)


def _make(folder: Path, recipe: Recipe, limits: Limits, n_parts: int) -> None:
    done = n_parts - len(parts.left(folder, shards.KIND, n_parts))
    arguments = {"folder": str(folder), **recipe.plan(), "limits": limits}
    with bar("features", n_parts, done) as progress:
        for _ in run_parts(folder, shards.KIND, n_parts, Worker, arguments):
            progress.advance()


def _close(folder: Path, n_parts: int, max_bad_fraction: float) -> None:
    """Collect the bad clips, fit the statistics, and sign the folder; too many bad clips fail the job."""
    summaries = [shards.summary_of(parts.part_path(folder, shards.KIND, k)) for k in range(n_parts)]
    n_clips, n_bad = (sum(s[key] for s in summaries) for key in ("n_clips", "n_bad"))
    errors = _write_errors(folder, [k for k, summary in enumerate(summaries) if summary["n_bad"]])
    audio_s, n_windows = (sum(s[key] for s in summaries) for key in ("audio_s", "n_windows"))
    n_copies = len(manifest.load(folder / manifest.FILE)) - n_clips
    copies = f" and {n_copies} copies" if n_copies else ""
    result(f"features: {n_clips} clips{copies}, {n_windows} windows, {audio_s / 60:.1f} min of sound, {n_bad} bad")
    if n_bad > max_bad_fraction * n_clips:
        kinds = ", ".join(f"{n} {status}" for status, n in errors["status"].value_counts().items())
        raise JobError(
            f"{n_bad} of {n_clips} clips are bad ({kinds}), more than max_bad_fraction={max_bad_fraction:g} allows; "
            f"see {folder / ERRORS}"
        )
    if any(s["n_train_windows"] for s in summaries):
        parts.write_json(folder / STATISTICS, shards.statistics_of(folder, n_parts).model_dump(mode="json"))
        parts.write_json(folder / PROFILE, shards.profile_of(folder).model_dump(mode="json"))
    audit.write(folder)
    parts.finish(folder)


def _write_errors(folder: Path, numbers: list[int]) -> pd.DataFrame:
    columns = ["clip_id", "uri", "status", "error"]
    sources = [places.source(parts.part_path(folder, shards.KIND, k)) for k in numbers]
    bad = [pq.read_table(source, columns=columns, filters=[("status", "!=", "ok")]) for source in sources]
    none = pa.schema([(name, pa.string()) for name in columns]).empty_table()
    table = pa.concat_tables([none, *(t.replace_schema_metadata() for t in bad)])
    parts.write_aside(folder / ERRORS, lambda aside: pq.write_table(table, aside))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def statistics(folder: Path) -> Statistics:
    path = folder / STATISTICS
    if not path.is_file():
        raise DataError(f"{folder} holds no clip of a training split; give clips the split train, or leave it empty")
    return Statistics.parse(parts.read_json(path), str(path))


def profile(folder: Path) -> Profile:
    """It is there where the statistics are."""
    return Profile.parse(parts.read_json(folder / PROFILE), str(folder / PROFILE))
