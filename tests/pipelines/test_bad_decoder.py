"""A decoder that aborts, stalls or is killed costs the files that do it a status, through the real jobs on Ray."""

import json
from pathlib import Path

import pandas as pd
import pytest
from archives import sound, tiny_bundle, write
from conftest import ROOT, make_place, run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]
MARKS = {
    "open.wav": b"abort at open",
    "read.wav": b"abort at read",
    "stall.wav": b"stall at read",
    "once.wav": b"kill me once",
}
GOOD = [f"good{k}.wav" for k in range(8)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = make_place(tmp_path / "instrunet")
    for k, name in enumerate([*GOOD, *MARKS]):
        path = write(place / "archive" / "ab"[k % 2] / name, sound(1.5, 200 + 50 * k))
        content = bytearray(path.read_bytes())
        mark = MARKS.get(name, b"")
        content[44 : 44 + len(mark)] = mark  # in place of its first samples
        path.write_bytes(content)
    return place


def job(command: str, place: Path) -> tuple[int, str]:
    bad = {"PYTHONPATH": f"{ROOT / 'tests/crashing'}:{ROOT}", "ONCE": str(place / "once")}
    done = run(command, place, **bad)
    return done.returncode, done.stdout + done.stderr


def test_tagging(place: Path) -> None:
    tiny_bundle().save(place / "bundle")
    command = "python jobs/tag.py bundle archive --out tags --decode-wait-s 3 --max-bad-fraction"
    code, told = job(f"{command} 0.2", place)
    assert code == 1 and "3 of 12 files are bad (9 tagged, 3 corrupt)" in told, told
    ledger = json.loads((place / "tags/ledger.json").read_text())
    assert ledger["closed"] and ledger["files"]["in"] == ledger["files"]["out"] == 12
    rows = pd.read_parquet(place / "tags/units")
    rows.index = [Path(uri).name for uri in rows["uri"]]
    assert rows["status"].to_dict() == dict.fromkeys([*GOOD, "once.wav"], "tagged") | dict.fromkeys(
        ("open.wav", "read.wav", "stall.wav"), "corrupt"
    )
    for name, why in (
        ("open", "died of signal 6"),
        ("read", "died of signal 6"),
        ("stall", "gave no answer within 3 s"),
    ):
        assert why in rows.loc[f"{name}.wav", "error"]
    assert (place / "once").exists()
    code, told = job(f"{command} 0.3", place)  # finds all tagged, and closes the books
    assert code == 0 and "Traceback" not in told and "mpg123" not in told, told


def test_features(place: Path) -> None:
    command = (
        "python jobs/featurize.py configs/csv.yaml data.name=folder data.root=archive out=runs task=any "
        "max_bad_fraction=0.5 cluster.decode_wait_s=3"
    )
    code, told = job(command, place)
    assert code == 0 and "3 bad" in told, told
    (errors,) = (place / "runs/features").glob("*/errors.parquet")
    frame = pd.read_parquet(errors)
    assert {Path(uri).name for uri in frame["uri"]} == {"open.wav", "read.wav", "stall.wav"}
    assert set(frame["status"]) == {"corrupt"}
