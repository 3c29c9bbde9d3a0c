"""Many small FLACs, plain and packed, on a disk and in a store on loopback (moto): listing them, and having each as a
file for a decoder. Says nothing of a disk that seeks or of a network: files are cached here, and a request takes
milliseconds.

The last line is JSON: seconds and, of the store, requests. Sides take turns; figures are medians of rounds.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from instrunet.archive import sources
from instrunet.data import packed, places, store
from instrunet.data.readahead import Reader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from archives import pack_archive  # noqa: E402
from stores import Proxy, proxied, settings, started  # noqa: E402

N_FILES, ROUNDS = int(os.environ.get("N_FILES", 2000)), 3
RATE = 16_000


def main() -> None:
    with TemporaryDirectory() as folder, started() as server, proxied(server) as proxy:
        os.environ.update(settings(proxy.port, timeout_s=60))
        store._file_system.cache_clear()
        plain = make(Path(folder) / "archive")
        began = time.perf_counter()
        on_disk = pack_archive(plain, Path(folder) / "archive.packed", 256)
        packing_s = time.perf_counter() - began
        bucket = server.bucket("packing")
        server.upload(plain, f"{bucket}/archive")
        server.upload(Path(folder) / "archive.packed", f"{bucket}/archive.packed")
        sides = {
            "disk": [plain, on_disk],
            "store": [places.place(f"{bucket}/archive"), places.place(f"{bucket}/archive.packed")],
        }
        found = {"n_files": N_FILES, "packing_s": round(packing_s, 2)}
        for name, pair in sides.items():
            rounds = [[measured(archive, proxy) for archive in pair] for _ in range(ROUNDS)]
            for kind, side in zip(("plain", "packed"), zip(*rounds, strict=True), strict=True):
                for what in side[0]:
                    found[f"{name}_{kind}_{what}"] = round(statistics.median(one[what] for one in side), 3)
        print(json.dumps(found))


def make(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(N_FILES):
        path = folder / f"{k % 50:02d}" / f"{k:05d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(RATE), RATE)
    return folder


def measured(archive: Path, proxy: Proxy) -> dict[str, float]:
    """As a process that begins: no index is in memory."""
    packed._opened.cache_clear()
    packed.READER = Reader()
    seen, began = len(proxy.seen), time.perf_counter()
    files = list(sources.archive(archive).files())
    listed = time.perf_counter()
    for file in files:
        with places.sound(file.path) as local:
            n_bytes = len(local.read_bytes())
            assert n_bytes > RATE
    done = time.perf_counter()
    return {"list_s": listed - began, "read_s": done - listed, "requests": len(proxy.seen) - seen}


if __name__ == "__main__":
    main()
