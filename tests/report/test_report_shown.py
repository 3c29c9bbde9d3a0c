"""What a report shows and plays, of a network that was trained on tones; and the page in a real browser."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from browser import Page, browse, needs_browser
from making import FRONT, LABELS, SMALL, draft, tones_folder

from instrunet.audio import io as audio
from instrunet.bundle import Bundle
from instrunet.features import shards
from instrunet.features.shards import Features
from instrunet.metrics import single
from instrunet.report import build, shown
from instrunet.report.evaluation import ClipResult, Evaluation, Why
from instrunet.training.fit import fit
from instrunet.training.job import Job
from instrunet.training.optim import TrainSpec
from instrunet.training.state import BUNDLE_FOLDER

PAPER_PX = 673  # A4 less its margins, at 96 a dot


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_folder(tmp_path_factory.mktemp("tones"), n_val=15)


@pytest.fixture(scope="module")
def held(tones: Path) -> Features:
    return shards.load(tones, FRONT, "val")


@pytest.fixture(scope="module")
def bundle(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    home = tmp_path_factory.mktemp("bundle") / "last"
    home.mkdir()
    spec = TrainSpec(epochs=6, batch_size=8, learning_rate=3e-3, specaugment=None, keep="last", precision="fp32")
    job = Job(draft(tones, model=SMALL), spec, tones)
    fit(job, lambda seen, save: save(home) if seen["epoch"] == 5 else None, torch.device("cpu"))
    return Bundle.load(home / BUNDLE_FOLDER)


@pytest.fixture(scope="module")
def clips(bundle: Bundle, held: Features) -> list[ClipResult]:
    """Two of them said to be what they are not, so that there are mistakes."""
    scores = bundle.predict({name: torch.from_numpy(value) for name, value in held.values.items()})
    found = []
    for k, (name, uri, own) in enumerate(zip(held.clips["clip_id"], held.clips["uri"], scores, strict=True)):
        said = LABELS[int(own.argmax())]
        true = LABELS[(LABELS.index(said) + 1) % 3] if k < 2 else said
        found.append(ClipResult(name, uri, name, [true], [said], float(own.max()), scores=own.tolist()))
    return found


@pytest.fixture(scope="module")
def why(bundle: Bundle, held: Features, clips: list[ClipResult]) -> Why:
    uris = {clip.clip_id: clip.uri for clip in clips}
    return shown.why(bundle, held, clips, lambda name, *at: audio.read(Path(uris[name]), *at))


def test_mistakes_come_first_then_what_is_barely_right(clips: list[ClipResult], why: Why) -> None:
    wrong, right = [s.clip for s in why.shown[:2]], [s.clip for s in why.shown[2:]]
    assert [c.clip_id for c in wrong] == [c.clip_id for c in sorted(clips[:2], key=lambda clip: -clip.score)]
    assert len(right) == shown.UNSURE and not any(clip.wrong for clip in right)
    margins = [float(np.diff(np.sort(clip.scores))[-1]) for clip in right]
    assert margins == sorted(margins)
    assert max(margins) <= min(float(np.diff(np.sort(c.scores))[-1]) for c in clips[2:] if c not in right)


def test_what_is_played_is_what_was_heard(why: Why) -> None:
    for one in why.shown:
        wave, rate = sf.read(io.BytesIO(one.audio))
        assert rate == FRONT.sample_rate
        original, _ = sf.read(one.clip.uri)
        assert len(wave) >= len(original)  # an MP3 is filled up to its frames
        loudest = [np.abs(np.fft.rfft(x[: len(original)])).argmax() * rate / len(original) for x in (wave, original)]
        assert abs(loudest[0] - loudest[1]) < 10
        assert one.heard is not None and one.went_by is not None and one.heard.shape == one.went_by.shape == (16, 16)


def test_a_recording_that_is_gone_is_shown_without_its_sound(
    bundle: Bundle, held: Features, clips: list[ClipResult]
) -> None:
    def gone(*_: Any) -> audio.Sound:
        raise audio.DecodeError("unreadable", "it is not there any more")

    found = shown.why(bundle, held, clips, gone)
    assert len(found.shown) == 2 + shown.UNSURE and not any(one.audio for one in found.shown)


def test_the_loudest_windows_of_a_clip_are_told(bundle: Bundle, held: Features, clips: list[ClipResult]) -> None:
    """Here all windows are said to be of the first clip, four seconds apart."""
    n = len(held)
    together = {**held.clips, "clip_id": [clips[0].clip_id] * n, "start_s": [4.0 * k for k in range(n)]}
    (one,) = shown._shown(bundle, replace(held, clips=together), clips[:1], lambda *_: audio.Sound(np.zeros(0)))
    answer = LABELS.index(clips[0].predicted[0])
    scores = bundle.predict({name: torch.from_numpy(value) for name, value in held.values.items()})[:, answer]
    first = np.argsort(-scores, kind="stable")[: shown.LOUDEST]
    assert one.loudest == [(4.0 * k, pytest.approx(float(scores[k]))) for k in first]
    assert one.start_s == one.loudest[0][0]


def test_strips_are_named_by_their_pitch(why: Why) -> None:
    names = [name for name, _ in why.strips]
    assert all(name.endswith(" Hz") for name in names)
    low, high = (float(name.split()[0].replace(",", "")) for name in names[::11])
    assert 30 < low < 300 and 3000 < high < 4000


@pytest.fixture(scope="module")
def page(why: Why, clips: list[ClipResult], bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    truth = np.array([LABELS.index(clip.true[0]) for clip in clips])
    evaluation = Evaluation(
        title="task8 on tones",
        kind="single",
        labels=LABELS,
        metrics=single.evaluate(truth, np.array([clip.scores for clip in clips]), LABELS) | {"intervals": {}},
        bundle="bundle",
        fingerprint=bundle.fingerprint,
        model="task8",
        n_parameters=1000,
        corpus="tones",
        split="test",
        n_clips=len(clips),
        n_groups=len(clips),
        leaky=False,
        clips=clips,
        why=why,
    )
    return build.build(evaluation, tmp_path_factory.mktemp("page") / "report")


def test_the_page_holds_sounds_and_pictures_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<audio controls") == 2 + shown.UNSURE
    assert text.count("data:audio/mpeg;base64,") == 2 + shown.UNSURE
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


@needs_browser
def test_in_a_browser_all_is_loaded_plays_and_sorts(page: Path, tmp_path: Path) -> None:
    async def visit(one: Page) -> None:
        await one.size(1280, 900)
        assert await one.js("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        seconds = await one.js(
            "Promise.all([...document.querySelectorAll('audio')].map(audio => new Promise((done, fail) => {"
            "audio.ontimeupdate = () => audio.currentTime > 0.1 && done(audio.duration);"
            "audio.onerror = () => fail(audio.error.message); audio.play(); })))"
        )
        assert len(seconds) == 2 + shown.UNSURE and all(0.4 < s < 1 for s in seconds)
        first = "document.querySelector('table[data-sort] tbody tr th').textContent"
        await one.js("document.querySelector('table[data-sort] th button').click()")
        assert await one.js(first) == min(LABELS)
        await one.js("document.querySelector('table[data-sort] th button').click()")
        assert await one.js(first) == max(LABELS)
        for width, dark in ((1280, False), (1280, True), (380, False)):
            await one.size(width, 900)
            await one.dark(dark)
            await one.picture(tmp_path / f"{width}-{dark}.png")
            assert await one.js("document.documentElement.scrollWidth <= window.innerWidth")
        assert one.said == []

    browse(page.as_uri(), visit)


@needs_browser
def test_printed_nothing_lies_outside_the_paper(page: Path) -> None:
    async def visit(one: Page) -> None:
        await one.ask("Emulation.setEmulatedMedia", media="print")
        await one.size(PAPER_PX, 1000)
        outside = (
            "[...document.querySelectorAll('img, svg, table, figure, p, h2, .card')].filter(e => e.offsetParent && ("
            "e.getBoundingClientRect().right > window.innerWidth + 1 || e.getBoundingClientRect().left < -1))"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert await one.js(outside) == []
        assert await one.js("[...document.querySelectorAll('audio')].every(e => e.offsetParent === null)")
        printed = base64.b64decode((await one.ask("Page.printToPDF", preferCSSPageSize=True))["data"])
        assert printed.startswith(b"%PDF-") and 2 <= printed.count(b"/Type /Page\n") <= 12

    browse(page.as_uri(), visit)
