"""Two nodes, of which one loses its power and comes back: a training, a study and a tagging end as if it had not.

Nodes have addresses of their own on loopback. What is trained lies on a disk that both see, what is tagged in a store.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nodes
import pyarrow.parquet as pq
import pytest
from archives import sound, tiny_bundle, write
from conftest import environment, make_place, run
from nodes import Nodes
from stores import Store, settings

pytestmark = [pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(1200)]
TRAIN = (
    "python jobs/train.py configs/smoke.yaml data.name=irmas data.root=CORPUS train.epochs=8 train.batch_size=8 "
    "tracking.enabled=false cluster.workers=2 cluster.cpus_per_worker=1.5"
)
TUNE = """tune:
  samples: 4
  scheduler: random
  confirm: {top: 1, seeds: 1}
  space: {train.learning_rate: {loguniform: [1.0e-4, 1.0e-3]}}
"""
TIMING = ("clips_per_s", "wait_share", "epoch_s")


@pytest.fixture(scope="module")
def pair(store: Store) -> Iterator[Nodes]:
    """Two nodes of two cores: of two workers that take one and a half each, one goes to each node."""
    with nodes.started(2, cpus=2, **settings(store.port, timeout_s=30)) as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path) -> Path:
    place = make_place(tmp_path_factory.mktemp("two") / "instrunet")
    (place / "CORPUS").symlink_to(small_corpus)
    return place


def with_a_failure(pair: Nodes, place: Path, command: str, ready: Callable[[str], bool]) -> str:
    """The log of a job that ends well although the second node loses its power while it is at work."""
    log = place / "log"
    with log.open("w") as file:
        job = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=place, env=environment() | pair.client, stdout=file, stderr=file
        )
    try:
        until = time.monotonic() + 600
        while not ready(log.read_text()):
            assert job.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        pair.kill(2)
        time.sleep(3)
        assert job.poll() is None, log.read_text()  # it was at work when the node went
        pair.add(2)
        assert job.wait(600) == 0, log.read_text()
    finally:
        job.kill()
        if 2 not in pair.running:
            pair.add(2)
    return log.read_text()


def test_training(pair: Nodes, place: Path) -> None:
    whole = run(f"{TRAIN} out=whole", place, **pair.client)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    (place / "cut").mkdir()
    (place / "cut/features").symlink_to(place / "whole/features")
    said = with_a_failure(pair, place, f"{TRAIN} out=cut", lambda log: log.count("\nepoch") >= 3)
    (first,), (second,) = (list(place.glob(f"{out}/train/*/bundle")) for out in ("whole", "cut"))
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes(), said
    untimed = [
        [
            {k: v for k, v in row.items() if k not in TIMING}
            for row in json.loads((one.parent / "history.json").read_text())
        ]
        for one in (first, second)
    ]
    assert untimed[0] == untimed[1]


def test_a_study(pair: Nodes, place: Path) -> None:
    smoke = (place / "configs/smoke.yaml").read_text().replace("name: smoke", "name: two")
    (place / "study.yaml").write_text(smoke + TUNE)
    options = "data.name=irmas data.root=CORPUS train.epochs=6 tracking.enabled=false out=whole"

    def at_work() -> bool:
        rows = [path.read_text().count("\n") for path in place.glob("whole/tune/two-*/ray/*/result.json")]
        return sum(n >= 2 for n in rows) >= 2

    with_a_failure(pair, place, f"python jobs/tune.py study.yaml {options}", lambda _: at_work())
    (path,) = place.glob("whole/tune/two-*/trials.json")
    trials = json.loads(path.read_text())
    assert len(trials) == 4 and {row["status"] for row in trials} == {"done"}


def test_a_tagging(pair: Nodes, place: Path, store: Store) -> None:
    tiny_bundle("multi").save(place / "bundle")
    for k in range(300):
        path = write(place / f"archive/{k:04d}.wav", sound(4.0 + k % 5, 200 + k))
        if k % 20 == 7:
            path.write_bytes(b"no sound")
    url = store.bucket("two-nodes")
    store.upload(place / "archive", f"{url}/in")
    tag = f"python jobs/tag.py bundle {url}/in --unit-s 2 --out"
    whole = run(f"{tag} {url}/whole", place, **pair.client)
    assert whole.returncode == 0, whole.stdout + whole.stderr

    def at_work() -> bool:
        found = store.client.list_objects_v2(Bucket="two-nodes", Prefix="cut/units/part-")
        return int(found["KeyCount"]) >= 3

    with_a_failure(pair, place, f"{tag} {url}/cut", lambda _: at_work())
    rows = []
    for out in ("whole", "cut"):
        folder = store.download(f"{url}/{out}", place / "came" / out)
        assert json.loads((folder / "ledger.json").read_text())["closed"]
        rows.append(sorted(pq.read_table(folder / "units").to_pylist(), key=lambda row: row["unit_id"]))
    assert rows[0] == rows[1] and len(rows[0]) > 600
