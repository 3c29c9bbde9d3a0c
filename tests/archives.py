"""Small archives and bundles for tests: every status from a real file, and a network whose scores move with the sound.

Shapes: T samples.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from numpy.typing import NDArray

from instrunet.archive import books, listing, sources, tagger, units
from instrunet.archive.units import Look, UnitSpec, WorkList
from instrunet.audio.io import probe
from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec, Provenance
from instrunet.data import packs, parts, places
from instrunet.data.packed import SHARDS
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Task8Spec

RATE = 8000
LABELS = ("bell", "drum", "horn")
FRONT = FrontEnd(
    features=(LogMelSpec(sample_rate=RATE, n_fft=512, hop_length=256, n_mels=32, fmax_hz=4000),), window_s=1, hop_s=1
)


def tiny_bundle(kind: Literal["single", "multi"] = "single", trained: Provenance | None = None) -> Bundle:
    """Untrained, with its last layer made loud: otherwise all scores would be a third, whatever the sound."""
    spec = BundleSpec(
        kind=kind,
        labels=LABELS,
        front=FRONT,
        model=Task8Spec(picture=PictureSpec(size=16)),
        statistics=Statistics(mean={"logmel": (-5.0,)}, std={"logmel": (3.0,)}, n_windows=1),
        trained=trained or Provenance(),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    with torch.no_grad():
        network.body.head[-1].weight.mul_(40)
    return Bundle(spec, network)


def sound(seconds: float, hz: float = 440.0, rate: int = RATE) -> NDArray[np.float32]:
    """A tone [T] that slides up an octave in three seconds, so that no two of its windows are alike."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * hz * t * (1 + t / 6)) * (1 + 0.5 * np.sin(9 * t)) / 1.5).astype(np.float32)


def write(path: Path, wave: NDArray[np.float32], rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


def write_cut_mp3(path: Path) -> Path:
    """Half of the bytes of a file whose header promises four seconds."""
    whole = write(path, sound(4.0, rate=22_050), 22_050).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def write_streamed_flac(path: Path) -> Path:
    """A FLAC as a pipe leaves it: its header states 0 samples, "unknown"."""
    return _with_header(write(path, sound(2.0)), n_samples=0)


def write_boundless_flac(path: Path) -> Path:
    """A FLAC whose broken header promises a hundred days."""
    return _with_header(write(path, sound(2.0)), n_samples=2**36 - 1)


def _with_header(path: Path, n_samples: int) -> Path:
    """In STREAMINFO, from byte 18: 20 bits of rate, 3 of channels - 1, 5 of bits a sample - 1, 36 of samples."""
    content = path.read_bytes()
    fields = RATE << 44 | 15 << 36 | n_samples
    path.write_bytes(content[:18] + fields.to_bytes(8, "big") + content[26:])
    return path


def write_archive(folder: Path) -> dict[str, str]:
    """A folder with a file of every status; returns {name: status}."""
    write(folder / "a.wav", sound(2.5))
    write(folder / "deep/er/long.wav", sound(7.3, 330))
    write(folder / "deep/räksmörgås 箏.flac", sound(1.2, 550))
    write(folder / "silent.wav", np.zeros(RATE, np.float32))
    write(folder / "short.wav", sound(0.03))
    write_cut_mp3(folder / "cut.mp3")
    (folder / "z_copy.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "letter.wav").write_text("dear reader")
    (folder / "empty.wav").touch()
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    (folder / "box.wav").mkdir()
    (folder / "notes.txt").write_text("no sound, no business of ours")
    tagged = dict.fromkeys(("a.wav", "deep/er/long.wav", "deep/räksmörgås 箏.flac"), "tagged")
    return tagged | {
        "silent.wav": "silent",
        "short.wav": "too_short",
        "cut.mp3": "damaged",
        "z_copy.wav": "duplicate",
        "letter.wav": "corrupt",
        "empty.wav": "corrupt",
        "gone.wav": "unreadable",
        "box.wav": "unreadable",
    }


def make_work(archive: Path | str, out: Path, spec: UnitSpec, bundle: str = "b", look: Look = probe) -> WorkList:
    """The listing and the work list of an archive, published: what the pipeline begins with."""
    out.mkdir(parents=True, exist_ok=True)
    found = listing.scan(sources.archive(archive), out / "found.parquet")
    listing.finish(found, out / listing.FILES)
    found.path.unlink()
    units.make(out / listing.FILES, out / units.WORK_LIST, spec, bundle, look)
    return WorkList(out / units.WORK_LIST)


def work_rows(archive: Path | str, spec: UnitSpec, bundle: str = "b") -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = make_work(archive, Path(folder), spec, bundle).table().to_pylist()
        return rows


def tag_archive(archive: Path, out: Path, bundle: Bundle, spec: UnitSpec) -> WorkList:
    """The work list, all of its parts tagged and published: what the pipeline does, without Ray."""
    work = make_work(archive, out, spec, bundle.fingerprint)
    tag_parts(work, out, bundle)
    return work


def tag_parts(work: WorkList, out: Path, bundle: Bundle) -> None:
    for k in range(work.n_parts):
        write_part(out, k, tagger.table([tagger.tag(unit, bundle) for unit in work.part(k)]))


def pack_archive(archive: Path, out: Path, shard_mb: float = 0.05, skip: bool = False) -> Path:
    """A pack, made as the pipeline makes it, without Ray; the path that leads into it."""
    from pipelines import pack

    entries, shard_bytes = packs.list_entries(archive), round(shard_mb * 1e6)
    folder = pack.folder_of(str(out))
    parts.claim(folder, pack.plan_of(archive, entries, shard_bytes))
    parts.publish(folder / packs.FILES, lambda aside: packs.save_files(entries, shard_bytes, aside))
    worker = pack.Worker(str(folder), str(archive), skip)
    n_parts = len(packs.cut(entries, shard_bytes))
    for number in parts.left(folder, SHARDS, n_parts, ".tar"):
        worker.make(number)
    pack._close(folder, n_parts)
    return places.located(str(out))


def write_part(out: Path, number: int, made: pa.Table) -> None:
    parts.write_aside(parts.part_path(out, books.UNITS, number), lambda aside: pq.write_table(made, aside))
