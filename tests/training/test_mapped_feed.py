"""Training from mapped files: the same rows, the same bits, and little memory."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_fit
from making import FRONT, LABELS, features_folder, tone_clips, tones_folder
from test_fit import ITERATION11, last, tensors

from instrunet.errors import JobError
from instrunet.features import mapped, shards
from instrunet.features.featurizer import FrontEnd
from instrunet.training import feed as feeds
from instrunet.training.feed import Feed

ADAPTIVE = FrontEnd.model_validate(FRONT.model_dump() | {"length": "adaptive", "window_s": 1.0})


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tones_folder(tmp_path_factory.mktemp("tones"))


@pytest.mark.parametrize("front", [FRONT, ADAPTIVE], ids=["fixed", "adaptive"])
def test_what_is_mapped_is_what_the_shards_hold(tmp_path: Path, front: FrontEnd) -> None:
    clips = [
        clip
        for k, s in enumerate((0.3, 0.7, 1.9))
        for clip in tone_clips(tmp_path / str(k), 5, 3, [["low"], ["top"]], s)
    ]
    folder = features_folder(tmp_path / "features", clips, front)
    for split in ("train", "val"):
        mapped.make(folder, front, split)
        held, found = shards.load(folder, front, split), mapped.load(folder, front, split)
        assert isinstance(found.values["logmel"], np.memmap) and not isinstance(held.values["logmel"], np.memmap)
        np.testing.assert_array_equal(found.values["logmel"], held.values["logmel"])
        assert found.clips == {name: held.clips[name] for name in mapped.NEEDED}
        assert mapped.n_bytes(folder, front, split) == held.values["logmel"].nbytes
        if front is FRONT:
            assert found.frames is None and held.frames is None
        else:
            np.testing.assert_array_equal(found.frames, held.frames)


@pytest.mark.parametrize("front", [FRONT, ADAPTIVE], ids=["fixed", "adaptive"])
def test_batches_are_the_same(tones: Path, tmp_path: Path, front: FrontEnd) -> None:
    folder = features_folder(tmp_path / "f", tone_clips(tmp_path / "s", 20, 1, [["low"]], 0.4), front)
    mapped.make(folder, front, "train")
    one, two = (Feed(load(folder, front, "train"), LABELS, "train") for load in (shards.load, mapped.load))
    spec = test_fit.train(sampling="groups", roll={})
    for a, b in zip(one.epoch(spec, 3, (1, 2)), two.epoch(spec, 3, (1, 2)), strict=True):
        assert a.number == b.number and a.features.keys() == b.features.keys()
        for name in a.features:
            np.testing.assert_array_equal(a.features[name], b.features[name])


def test_the_weights_are_those_from_memory_to_the_bit(tones: Path, tmp_path: Path) -> None:
    for name in ("memory", "map"):
        test_fit.run(test_fit.job(tones, ITERATION11, epochs=2, feed=name), tmp_path / name)
        assert (tones / mapped.FOLDER).exists() == (name == "map")
    assert tensors(last(tmp_path / "memory")) == tensors(last(tmp_path / "map"))


def test_files_are_made_once_and_whole(tones: Path) -> None:
    mapped.make(tones, FRONT, "train")
    before = {path: path.stat().st_mtime_ns for path in (tones / mapped.FOLDER / "train").iterdir()}
    mapped.make(tones, FRONT, "train")
    assert before == {path: path.stat().st_mtime_ns for path in (tones / mapped.FOLDER / "train").iterdir()}


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tones_folder(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)  # the last but one of the files
        with pytest.raises(JobError) as error:
            test_fit.run(test_fit.job(folder, feed="map"))
    assert str(error.value) == (
        f"the train split cannot be written to {folder / 'mapped-2'} for mapping: No space left on device; "
        "make room for 0.0 GB, or set train.feed=memory"
    )
    assert not list((folder / mapped.FOLDER).iterdir())
    test_fit.run(test_fit.job(folder, feed="map", epochs=1))


def test_auto_maps_where_memory_is_short(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(mapped.n_bytes(tones, FRONT, split) for split in ("train", "val"))
    monkeypatch.setattr(mapped, "available", lambda: 4 * size)
    assert [feeds.is_mapped(tones, FRONT, "auto", n) for n in (1, 2, 3)] == [False, False, True]
    assert feeds.is_mapped(tones, FRONT, "map", 1) and not feeds.is_mapped(tones, FRONT, "memory", 9)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = mapped.available()
    assert free > 1 << 20
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 400000\n")
    group = tuple(tmp_path / name for name in ("memory.max", "memory.current", "memory.stat"))
    monkeypatch.setattr(mapped, "CGROUPS", (group,))
    assert mapped.available() == 900_000
    (tmp_path / "memory.max").write_text("max\n")
    assert mapped.available() > 1 << 20


MEASURE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from making import LABELS
from instrunet.features import mapped, shards
from instrunet.features.featurizer import FrontEnd
from instrunet.training.feed import Feed
from instrunet.training.optim import TrainSpec

def anonymous():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

folder, front = Path(sys.argv[1]), FrontEnd()
before, most = anonymous(), 0
if sys.argv[3] == "map":
    mapped.make(folder, front, "train")
    most = anonymous()
load = mapped.load if sys.argv[3] == "map" else shards.load
feed = Feed(load(folder, front, "train"), LABELS, "train")
total = 0.0
for batch in feed.epoch(TrainSpec(batch_size=32, specaugment=None), 0, (0, 1)):
    total += float(batch.features["logmel"].float().sum())
    most = max(most, anonymous())
print(json.dumps({"grown": most - before, "total": total}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 MB of noise in shards of 17 MB, three seconds of sound a row."""
    front = FrontEnd()
    folder, shape = tmp_path_factory.mktemp("large"), front.shapes()["logmel"]
    row, per_part = 2 * shape[0] * shape[1], 512
    rng = np.random.default_rng(0)
    part = rng.integers(0, 1 << 14, per_part * row // 2, np.uint16).view(np.float16).tobytes()
    values = pa.array([part[k * row : (k + 1) * row] for k in range(per_part)], pa.binary())
    for number in range(-(-600_000_000 // (row * per_part))):
        ids = [f"{number}-{k}" for k in range(per_part)]
        columns = {"clip_id": ids, "uri": ids, "group": ids, "split": ["train"] * per_part, "corpus": ids}
        columns |= {"status": ["ok"] * per_part, "error": [""] * per_part, "labels": [["low"]] * per_part}
        columns |= {"start_s": [0.0] * per_part, "measures": [[]] * per_part, "logmel": values}
        path = folder / shards.KIND / f"part-{number:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns, schema=shards.schema(front)), path, compression="none", use_dictionary=False)
    return folder


def test_a_split_of_600_mb_is_fed_in_a_fraction_of_it(large: Path) -> None:
    """Anonymous memory: pages of a mapped file are the system's, which takes them back when it wants them."""
    told = {}
    for how in ("map", "memory"):
        command = [sys.executable, "-c", MEASURE, str(large), str(Path(__file__).parent.parent), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
        told[how] = json.loads(done.stdout)
    assert told["map"]["total"] == told["memory"]["total"]
    assert told["memory"]["grown"] > 600e6
    assert told["map"]["grown"] < 0.15 * told["memory"]["grown"], told  # 0.08
