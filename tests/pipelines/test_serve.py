"""One real server of two bundles: its answers, its limits, its page in a browser, and whatever a client may send."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jsonschema
import numpy as np
import pytest
import soundfile
from archives import LABELS, RATE, sound, tiny_bundle, write, write_archive
from browser import Page, browse, needs_browser
from conftest import ROOT, environment, make_place, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.data.parts import write_json
from instrunet.drift import Profile
from instrunet.errors import InstrunetError
from pipelines import serve
from pipelines.said import Limits

pytestmark = pytest.mark.ray
MB, SECONDS, AT_ONCE = 1.0, 20.0, 3
BAD = {
    "empty.wav": "empty",
    "abort.wav": "corrupt",
    "letter.wav": "corrupt",
    "noise.mp3": "corrupt",
    "half.flac": "corrupt",
}


@dataclass(frozen=True)
class Server:
    address: str
    job: "subprocess.Popen[str]"
    bundles: dict[str, Bundle]
    sounds: Path
    temporary: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=300)

    def ask(self, body: Any = None, path: str = "predict", method: str = "POST", **more: Any) -> tuple[int, Any, Any]:
        """Code, headers, and what the body says."""
        headers = more.pop("headers", {})
        with closing(self.connect()) as link:
            link.request(method, f"/api/{path}?{urlencode(more)}", body, headers)
            reply = link.getresponse()
            return reply.status, reply.headers, json.loads(reply.read())


def guarded(kind: Any) -> Bundle:
    """The tiny bundle, which knows what it was trained on: sliding tones of a second or two."""
    bundle = tiny_bundle(kind)
    rows = [bundle.featurizer.fast(sound(1 + k / 8, 200 + 60 * k)).measures for k in range(9)]
    more = {"profile": Profile.of(rows, [[LABELS[k % 3]] for k in range(9)])}
    more |= {"thresholds": (0.2, 0.3, 0.4)} if kind == "multi" else {}
    return Bundle(bundle.spec.model_copy(update=more), bundle.network)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = make_place(tmp_path_factory.mktemp("serve") / "instrunet")
    bundles = {kind: guarded(kind) for kind in ("single", "multi")}
    bundles = {kind: Bundle.load(bundle.save(place / kind / "bundle")) for kind, bundle in bundles.items()}
    sounds = place / "sounds"
    write_archive(sounds)
    (sounds / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (sounds / "half.flac").write_bytes((write(sounds / "whole.flac", sound(2.0))).read_bytes()[:60])
    content = bytearray((sounds / "a.wav").read_bytes())
    content[44:57] = b"abort at read"
    (sounds / "abort.wav").write_bytes(content)
    before = {*Path(tempfile.gettempdir()).glob("instrunet-serve-*")}
    limits = f"--max-mb {MB} --max-seconds {SECONDS} --at-once {AT_ONCE}".split()
    command = [sys.executable, "jobs/serve.py", "single/bundle", "multi/bundle/", "--port", "0", *limits]
    with (place / "err").open("w") as err:
        env = environment() | {"PYTHONPATH": f"{ROOT / 'tests/crashing'}:{ROOT}"}  # decoders with bugs
        job = subprocess.Popen(command, cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=err)
    try:
        assert job.stdout
        address = job.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (place / "err").read_text()
        (own,) = {*Path(tempfile.gettempdir()).glob("instrunet-serve-*")} - before
        yield Server(address, job, bundles, sounds, own)
        job.send_signal(signal.SIGTERM)
        rest = job.communicate(timeout=60)[0]
        told = (place / "err").read_text()
        assert job.returncode == 0 and rest == "", told
        assert told.splitlines()[-1] == "stopped" and "Traceback" not in told, told
        assert not own.exists()
    finally:
        job.kill()
        job.communicate()


def test_it_answers_as_the_bundle_does(server: Server) -> None:
    code, headers, told = server.ask(path="models", method="GET")
    assert code == 200 and "access-control-allow-origin" not in headers
    assert [model["name"] for model in told["models"]] == ["single", "multi"]
    assert told["limits"] == {"mb": MB, "seconds": SECONDS, "at_once": AT_ONCE}
    for model in told["models"]:
        assert model["fingerprint"] == server.bundles[model["name"]].fingerprint
        assert model["labels"] == list(LABELS)
    assert told["models"][1]["thresholds"] == pytest.approx([0.2, 0.3, 0.4])
    for name in ("a.wav", "deep/er/long.wav", "cut.mp3", "silent.wav", "short.wav"):
        for model, bundle in server.bundles.items():
            said = bundle(server.sounds / name)
            code, _, told = server.ask((server.sounds / name).read_bytes(), model=model)
            assert code == 200 and (told["model"], told["fingerprint"]) == (model, bundle.fingerprint)
            for key in ("status", "labels", "window_start_s", "duration_s", "flags", "error", "drift", "answer"):
                assert told[key] == getattr(said, key), key
            assert told["scores"] == pytest.approx(said.scores, abs=1e-5)
            if said.scores:
                np.testing.assert_allclose(told["window_scores"], said.window_scores, atol=1e-5)
    _, _, far = server.ask(write(server.sounds / "far.wav", sound(15.0) * 0.01).read_bytes())
    assert far["drift"] > 1 and far["spectrogram"] is None


def test_many_at_a_time_are_answered_one_by_one(server: Server) -> None:
    files = [write(server.sounds / f"{k}.wav", sound(1 + k % 4, 200 + 37 * k)) for k in range(24)]

    def ask(k: int) -> Any:
        while True:  # as Retry-After says
            code, headers, told = server.ask(files[k].read_bytes(), model=("single", "multi")[k % 2])
            if code != 503:
                return told
            assert headers["Retry-After"] == "1" and told["status"] == "busy"

    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(ask, range(24))]
    for k, told in enumerate(answers):
        said = server.bundles[("single", "multi")[k % 2]](files[k])
        assert told["labels"] == said.labels and told["scores"] == pytest.approx(said.scores, abs=1e-5)
    assert not [*(server.temporary / "uploads").iterdir()]


@pytest.mark.parametrize(("name", "status"), BAD.items())
def test_what_is_no_sound_has_a_status(server: Server, name: str, status: str) -> None:
    code, _, told = server.ask((server.sounds / name).read_bytes())
    assert code == 422 and told["status"] == status
    assert "instrunet-serve" not in told["error"] and "\n" not in told["error"]
    assert name != "abort.wav" or "died of signal 6" in told["error"]


def test_limits_are_told(server: Server) -> None:
    code, _, told = server.ask(bytes(1_200_000))
    assert (code, told["status"], told["error"]) == (413, "too_large", "expected at most 1 MB, got 1.2")
    code, _, told = server.ask(iter([bytes(400_000)] * 3))  # chunked: its length is not said before
    assert (code, told["status"]) == (413, "too_large")
    long = write(server.sounds / "long.flac", sound(25.0), RATE).read_bytes()
    code, _, told = server.ask(long)
    assert (code, told["status"], told["error"]) == (413, "too_long", "expected at most 20 s of sound, got 25.0")
    waiting = [server.connect() for _ in range(AT_ONCE)]
    for link in waiting:  # a place is taken as soon as a sound begins to come
        link.putrequest("POST", "/api/predict")
        link.putheader("Content-Length", "1000")
        link.endheaders(b"RIFF")
    code, headers, told = 200, {}, {}
    for _ in range(100):
        code, headers, told = server.ask(b"x")
        if code == 503:
            break
    assert code == 503 and headers["Retry-After"] == "1" and told["status"] == "busy"
    assert server.ask(path="models", method="GET")[0] == 200
    for link in waiting:
        link.close()
    for _ in range(100):
        code = server.ask((server.sounds / "a.wav").read_bytes())[0]
        if code == 200:
            break
    assert code == 200
    assert not [*(server.temporary / "uploads").iterdir()]


def test_who_may_ask(server: Server) -> None:
    body = (server.sounds / "a.wav").read_bytes()
    other = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    code, headers, told = server.ask(body, headers=other)
    assert (code, told["status"]) == (403, "other_site") and "access-control-allow-origin" not in headers
    code, _, told = server.ask(path="models", method="GET", headers={"Host": "elsewhere.example"})
    assert (code, told["status"]) == (403, "other_site")
    assert server.ask(path="models", method="OPTIONS", headers=other)[0] in (403, 405)
    code, _, told = server.ask(body, model="../single/bundle")
    assert (code, told) == (
        404,
        {"status": "no_model", "error": "expected a model of single, multi, got '../single/bundle'"},
    )
    assert server.ask(path="nothing", method="GET")[0] == 404
    assert server.ask(path="predict", method="GET")[0] == 405


def test_sounds_that_come_together_share_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray Serve calls with what came meanwhile, without it."""
    places = {kind: str(tiny_bundle(kind).save(tmp_path / kind)) for kind in ("single", "multi")}
    models, limits = str(write_json(tmp_path / "models.json", places)), Limits(mb=1, seconds=1, at_once=9)
    own = serve.Server(models, limits, str(tmp_path), "localhost", "torch")
    sizes: list[int] = []
    for bundle in own.bundles.values():
        hear = bundle.hear_together
        monkeypatch.setattr(bundle, "hear_together", lambda some, hear=hear: (sizes.append(len(some)), hear(some))[1])
    bundles = [*own.bundles.values()]
    asked = [(bundles[k % 2], Sound(sound(1 + k / 9, 200 + 40 * k))) for k in range(9)]
    said = own.told(asked)
    assert sorted(sizes) == [4, 5]
    for (bundle, wave), one in zip(asked, said, strict=True):
        assert one.labels == bundle.decided(wave).labels


def description(server: Server) -> Any:
    with closing(server.connect()) as link:
        link.request("GET", "/openapi.json")
        return json.loads(link.getresponse().read())


def wavs() -> Any:
    """Files of sound, whole, cut, and with some bytes changed."""

    def made(form: str, seconds: float, at: float, new: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=f".{form}") as file:
            soundfile.write(file.name, sound(seconds), RATE)
            content = bytearray(Path(file.name).read_bytes())
        where = round(at * len(content))
        content[where : where + len(new)] = new
        return bytes(content[: len(content) if len(new) % 2 else where])

    forms = st.sampled_from(["wav", "flac", "ogg", "mp3"])
    return st.builds(made, forms, st.floats(0, 2), st.floats(0, 1), st.binary(max_size=40))


def of_schema(parameter: Any) -> Any:
    """What a client may send for a parameter: by its schema, and not."""
    plain = {"boolean": st.sampled_from(["true", "false"]), "string": st.sampled_from(["single", "multi"])}
    kinds = [one["type"] for one in parameter["schema"].get("anyOf", [parameter["schema"]]) if one["type"] != "null"]
    return st.one_of(st.none(), st.text(max_size=20), *(plain[kind] for kind in kinds))


def test_whatever_is_sent_is_answered_as_described(server: Server) -> None:
    told = description(server)
    assert set(told["paths"]) == {"/api/models", "/api/predict"}
    operation = told["paths"]["/api/predict"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/octet-stream"]
    query = st.fixed_dictionaries({one["name"]: of_schema(one) for one in operation["parameters"]})
    codes = set()

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(query, st.one_of(st.binary(max_size=200), wavs()))
    def check(query: dict[str, str | None], body: bytes) -> None:
        code, headers, answer = server.ask(body, **{k: v for k, v in query.items() if v is not None})
        assert headers["content-type"] == "application/json"
        form = operation["responses"][str(code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, form | {"components": told["components"]})
        codes.add(code)

    check()
    assert {200, 422} <= codes <= {200, 404, 422}
    assert not [*(server.temporary / "uploads").iterdir()]


@needs_browser
def test_the_page(server: Server, tmp_path: Path) -> None:
    found = browse(server.address, lambda page: visit(page, server, tmp_path))
    assert found["said"] == []
    single, multi = (bundle(server.sounds / "deep/er/long.wav") for bundle in server.bundles.values())
    assert found["chosen"] == {
        "answer": single.answer,
        "name": "long.wav · single",
        "status": "tagged",
        "drift": f"drift {single.drift:.2f}: {'unlike' if (single.drift or 0) > 1 else 'like'} the training data",
    }
    assert found["windows"] == f"{len(single.window_start_s)} windows of 1.0 s"
    assert found["length"] == pytest.approx(single.duration_s, abs=0.1)
    assert found["colours"] > 20 and found["lines"] == 3
    assert found["switched"]["answer"] == multi.answer and found["switched"]["name"] == "long.wav · multi"
    assert found["marks"] == 3 and "0.200" not in found["scores"] and " / 0.20" in found["scores"]
    assert found["dropped"] == "dropped.wav · multi"
    assert found["recorded"]["name"] == "recording · multi" and found["recorded_s"] > 0.5
    assert found["refused"].startswith("corrupt") and found["hidden"]
    assert found["wide"] <= 380
    for name in ("light", "dark", "phone", "phone-dark", "refused"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


READ = """new Promise(done => {
  const busy = () => at('told').textContent || at('result').style.opacity < 1
    || (at('result').hidden && at('refused').hidden);
  const read = () => Object.fromEntries(['answer', 'name', 'status', 'drift'].map(id => [id, at(id).textContent]));
  const look = () => busy() ? setTimeout(look, 30) : done(read());
  setTimeout(look, 30);
})"""


async def choose(page: Page, path: Path) -> None:
    root = (await page.ask("DOM.getDocument"))["root"]["nodeId"]
    node = (await page.ask("DOM.querySelector", nodeId=root, selector="#file"))["nodeId"]
    await page.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


async def visit(page: Page, server: Server, folder: Path) -> dict[str, Any]:
    await page.size(1280, 900)
    await page.dark(False)
    await page.js("new Promise(done => { const look = () => models.length ? done(1) : setTimeout(look, 30); look(); })")
    await choose(page, server.sounds / "deep/er/long.wav")
    found = {"chosen": await page.js(READ), "windows": await page.js("at('windows').textContent")}
    found["length"] = await page.js(
        "new Promise(done => { const a = at('sound'), tell = () => done(a.duration); "
        "a.readyState ? tell() : a.onloadedmetadata = tell; })"
    )
    found["colours"] = await page.js(
        "new Set(new Uint32Array(document.querySelector('canvas').getContext('2d').getImageData("
        "0, 0, document.querySelector('canvas').width, document.querySelector('canvas').height).data.buffer)).size"
    )
    found["lines"] = await page.js("document.querySelectorAll('#curves polyline').length")
    await page.picture(folder / "light.png")
    await page.js("at('model').value = 'multi'; at('model').onchange()")
    found["switched"] = await page.js(READ)
    found["marks"] = await page.js("document.querySelectorAll('#scores i').length")
    found["scores"] = await page.js("at('scores').textContent")
    await page.dark(True)
    await page.picture(folder / "dark.png")
    await page.size(380, 800)
    found["wide"] = await page.js("document.documentElement.scrollWidth")
    await page.picture(folder / "phone-dark.png")
    await page.dark(False)
    await page.picture(folder / "phone.png")
    await page.js(
        "const d = new DataTransfer(); d.items.add(new File([wav([Float32Array.from({length: 9000}, "
        "(_, k) => Math.sin(k / 9) / 2)], 9000, 8000)], 'dropped.wav'));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: d}))"
    )
    found["dropped"] = (await page.js(READ))["name"]
    await page.js("record()")
    await page.js(
        "new Promise(done => { const look = () => recording && recording.n > 48000 ? done(1) : setTimeout(look, 30); "
        "look(); })"
    )
    await page.js("record()")
    found["recorded"] = await page.js(READ)
    found["recorded_s"] = await page.js("last.file.size / 2 / 48000")
    found["said"] = [*page.said]
    await choose(page, server.sounds / "letter.wav")
    await page.js(READ)
    found["refused"] = await page.js("at('refused').textContent")
    found["hidden"] = await page.js("at('result').hidden")
    await page.size(1280, 900)
    await page.picture(folder / "refused.png")
    return found


@pytest.mark.parametrize(
    ("bundles", "more", "told"),
    [
        (["nowhere"], {}, "expected a bundle"),
        (["single"], {"max_mb": 0.0}, "--max-mb is a limit above 0, got 0"),
        (["single"], {"refresh": 0.0}, "--refresh is a time above 0, got 0"),
        (["single", "other/single"], {}, "two models are called single"),
        (["single"], {"runtime": "fast"}, "expected a runtime of torch"),
        (["single"], {"host": "nowhere.invalid"}, "cannot listen at nowhere.invalid:0: "),
        (["single"], {"port": 99_999}, "--port is a number from 0 to 65535, got 99999"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    bundles: list[str], more: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("single", "other/single"):
        tiny_bundle().save(tmp_path / name)
    limits = {"max_mb": 1.0, "max_seconds": 1.0, "at_once": 1, "refresh": 1.0}
    usual = {"host": "127.0.0.1", "port": 0, "runtime": "torch"} | limits
    with pytest.raises(InstrunetError, match=re.escape(told)) as error:
        serve.run(Namespace(bundles=bundles, verbose=False, **(usual | more)))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    place = make_place(tmp_path / "instrunet")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = run(f"python jobs/serve.py bundle --port {port}", place)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    expected = f"error: cannot listen at 127.0.0.1:{port}: Address already in use; give another --port or --host"
    assert done.stderr.splitlines() == [expected]
