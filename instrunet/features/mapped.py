"""A split as files to be mapped into memory: made once from the shards, its pages shared by all workers of a node.

FOLDER/mapped-2/<split>/
    <feature>.npy   [N, F, L] in half precision, rows in the order of clips, as `shards.load` has them
    frames.npy      [N], how many of the L frames are a row's own
    rows.parquet    clip_id, uri, labels, group of each row

A training that draws its rows at random from the whole split needs no more memory than a batch.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from instrunet.data import parts
from instrunet.errors import JobError
from instrunet.features import FRAME_FEATURES, shards
from instrunet.features.featurizer import FrontEnd

FOLDER, ROWS, FRAMES = "mapped-2", "rows.parquet", "frames.npy"  # 2: rows have a group
NEEDED = ["clip_id", "uri", "labels", "group"]  # of a row, by training


def load(folder: Path, front: FrontEnd, split: str) -> shards.Features:
    """As `shards.load`, of what training needs."""
    place = folder / FOLDER / split
    clips = pq.read_table(place / ROWS).to_pydict()
    values = {name: load_values(place / f"{name}.npy") for name in front.shapes()}
    framed = front.length == "adaptive" and any(name in FRAME_FEATURES for name in values)
    return shards.Features(values, clips, np.load(place / FRAMES) if framed else None)


def load_values(path: Path) -> NDArray[np.float16]:
    """[N, F, L], read as rows are asked for. Copy on write, as torch wants arrays that it may write to."""
    values: NDArray[np.float16] = np.load(path, mmap_mode="c")
    return values


def expect(values: NDArray[np.float16], rows: NDArray[np.int64]) -> None:
    """Have the system read the pages of these rows while others are worked on; of what is held in memory, nothing."""
    if not isinstance(values, np.memmap) or not isinstance(values.base, mmap.mmap):
        return
    for row in rows.tolist():
        begin = values.offset + row * values.strides[0]
        before = begin % mmap.PAGESIZE
        values.base.madvise(mmap.MADV_WILLNEED, begin - before, before + values.strides[0])


def make(folder: Path, front: FrontEnd, split: str) -> None:
    """Part by part; the first to be done wins."""
    try:
        parts.publish_folder(folder / FOLDER / split, lambda aside: _write(folder, front, split, aside))
    except OSError as error:
        raise JobError(
            f"the {split} split cannot be written to {folder / FOLDER} for mapping: {error.strerror or error}; "
            f"make room for {n_bytes(folder, front, split) / 1e9:.1f} GB, or set train.feed=memory"
        ) from None


def n_bytes(folder: Path, front: FrontEnd, split: str) -> int:
    """What a split takes in memory or in its files."""
    row = sum(2 * bands * frames for bands, frames in front.shapes().values())
    n: int = sum(table.num_rows for table in _parts(folder, split, ["split"]))
    return n * row


def available() -> int:
    """Bytes that may still be taken here: the machine's, or what is left of the container's limit."""
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = [int(line.split()[1]) * 1024]
    for limit, used, stat in CGROUPS:
        if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
            free.append(int(most) - int(used.read_text()) + _cached(stat))
    return max(0, min(free))


def _cgroup(folder: Path, limit: str, used: str) -> tuple[Path, Path, Path]:
    return folder / limit, folder / used, folder / "memory.stat"


CGROUPS = (  # as a container sees its own: version 2, version 1
    _cgroup(Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    _cgroup(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _cached(stat: Path) -> int:
    """Pages of files: they are counted as used, and given back when somebody asks."""
    lines = stat.read_text().splitlines() if stat.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "total_inactive_file"))


def _write(folder: Path, front: FrontEnd, split: str, aside: Path) -> None:
    """Through ordinary writes: on a full disk a mapped page would kill the process."""
    rows = pa.concat_tables(_parts(folder, split, NEEDED))
    order = shards.in_order(rows["clip_id"].to_pylist())
    place, n = np.argsort(order), len(order)
    shapes, frames = front.shapes(), np.zeros(n, np.int64)
    for name, shape in shapes.items():
        with (aside / f"{name}.npy").open("wb") as file:
            head = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, head | {"shape": (n, *shape)})
            begin, at = file.tell(), 0
            for table in _parts(folder, split, [name]):
                values, own = shards.stack(table[name], shape)
                for row, to in enumerate(place[at : at + len(own)]):
                    file.seek(begin + int(to) * values[row].nbytes)
                    file.write(values[row].tobytes())
                if name in FRAME_FEATURES:
                    frames[place[at : at + len(own)]] = own
                at += len(own)
    np.save(aside / FRAMES, frames)
    pq.write_table(rows.take(order), aside / ROWS)


def _parts(folder: Path, split: str, columns: list[str]) -> Iterator[pa.Table]:
    wanted = [("split", "=", split), ("status", "=", "ok")]
    for path in sorted((folder / shards.KIND).glob("part-*.parquet")):
        yield pq.read_table(path, columns=columns, filters=wanted)
