"""The page on which clips are named by keys, in a real browser, and the corpus that comes of it."""

import csv
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from archives import LABELS, RATE, sound, tag_archive, tiny_bundle, write
from browser import Page, browse, needs_browser

from instrunet.archive import books, retag
from instrunet.archive.units import UnitSpec
from instrunet.data import parts
from instrunet.errors import DataError
from pipelines import review


@pytest.fixture(scope="module", params=["single", "multi"])
def labelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The folder that the job makes of small tags."""
    home, bundle = tmp_path_factory.mktemp("page"), tiny_bundle(request.param)
    for k in range(4):
        write(home / f"in/<b>{k}, &.wav", sound(3.0, 250 + 200 * k))
    parts.claim(home / "tags", {"job": "tag", "archive": str(home / "in")})
    retag.keep_spec(home / "tags", bundle.spec)
    books.close(home / "tags", tag_archive(home / "in", home / "tags", bundle, UnitSpec()), bundle)
    parts.finish(home / "tags")
    made = review.run(Namespace(out=str(home / "tags"), to=home / "labels", n=5, bundle=None))
    assert made == home / "labels/index.html"
    with pytest.raises(DataError, match="expected a new folder, found"):
        review.run(Namespace(out=str(home / "tags"), to=home / "labels", n=5, bundle=None))
    return request.param, home / "labels"


def test_clips_are_the_windows(labelled: tuple[str, Path]) -> None:
    _, folder = labelled
    paths = sorted((folder / "clips").iterdir())
    assert [path.name for path in paths] == [f"{k:04d}.wav" for k in range(1, 6)]
    for path in paths:
        wave, rate = soundfile.read(path)
        assert rate == RATE and wave.shape == (RATE,) and np.abs(wave).max() > 0.05
    text = (folder / "index.html").read_text()
    assert "http" not in text.replace("http-equiv", "") and "<b>0" not in text


@needs_browser
def test_keys_label_and_the_manifest_trains(labelled: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = labelled
    found = browse(f"file://{folder}/index.html", lambda page: visit(page, tmp_path, kind))
    assert found["said"] == []
    rows = list(csv.DictReader(found["manifest"].splitlines()))
    assert [row["path"] for row in rows] == ["clips/0001.wav", "clips/0002.wav"]
    first = LABELS[0] if kind == "single" else f"{LABELS[0]};{LABELS[2]}"
    assert [row["label"] for row in rows] == [first, LABELS[1]]
    assert all(row["group"].startswith("<b>") and row["group"].endswith(", &.wav") for row in rows)
    assert all((folder / row["path"]).is_file() for row in rows)
    assert found["where"] == "Clip 3 of 5" and "(2)" in found["save"]
    assert found["length"] == pytest.approx(1.0, abs=0.2)
    assert found["kept"] == 2 and found["wide"] <= 390
    for name in ("light", "dark", "phone"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


async def visit(page: Page, folder: Path, kind: str) -> dict[str, Any]:
    async def press(key: str) -> None:
        for what in ("keyDown", "keyUp"):
            await page.ask("Input.dispatchKeyEvent", type=what, key=key)

    await page.size(1100, 800)
    keys = ["1", "2"] if kind == "single" else ["1", "3", "2", "2", "Enter", "2", "Enter"]
    for key in keys:
        await press(key)
    for key in ("3", "Backspace", "ArrowLeft", "ArrowRight"):  # taken back
        await press(key)
    if kind == "single":  # 3 went on to the fourth clip, which Backspace clears: back to the third, and clear that
        for key in ("ArrowLeft", "Backspace"):
            await press(key)
    found = {"manifest": await page.js("manifest()"), "where": await page.js("at('where').textContent")}
    found["save"] = await page.js("at('save').textContent")
    found["kept"] = len(json.loads(await page.js("localStorage.getItem(key)")))
    found["length"] = await page.js(
        "new Promise(done => { const a = at('sound'), tell = () => done(a.duration); "
        "a.readyState ? tell() : a.onloadedmetadata = tell; })"
    )
    await page.dark(False)
    await page.picture(folder / "light.png")
    await page.dark(True)
    await page.picture(folder / "dark.png")
    await page.size(390, 800)
    await page.picture(folder / "phone.png")
    found["wide"] = await page.js("document.documentElement.scrollWidth")
    return found | {"said": page.said}
