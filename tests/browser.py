"""A real browser over its own debugging protocol: what a page logs, loads, and how it looks."""

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)"
)
START_S, LOAD_S = 300, 120


class Page:
    """A page that is open; `said` are its console's warnings and errors, and its uncaught exceptions."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._n = socket, 0
        self.said: list[str] = []

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._n += 1
        await self._socket.send_json({"id": self._n, "method": method, "params": parameters})
        while True:
            told = await self._socket.receive_json(timeout=LOAD_S)
            self._note(told)
            if told.get("id") == self._n:
                assert "error" not in told, told["error"]
                found: dict[str, Any] = told["result"]
                return found

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        told = await self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def size(self, width: int, height: int) -> None:
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def dark(self, on: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path) -> None:
        told = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def _note(self, told: dict[str, Any]) -> None:
        parameters = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.said.append(json.dumps(parameters["exceptionDetails"]))
        if told.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.said.append(parameters["entry"]["text"])
        if told.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("warning", "error", "assert"):
            self.said.append(json.dumps(parameters["args"]))


def browse(url: str, visit: Any) -> Any:
    """Open `url` and run `visit(page)`, a coroutine function, on it; what it gave."""
    return asyncio.run(_browse(url, visit))


async def _browse(url: str, visit: Any) -> Any:
    assert CHROMIUM
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as home:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={home}", "--no-first-run"]
        flags += ["--autoplay-policy=no-user-gesture-required"]
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "about:blank"]  # it beeps
        with (Path(home) / "log").open("w") as log:
            job = subprocess.Popen([CHROMIUM, *flags], stdout=log, stderr=log)
        try:
            port = await _port(Path(home) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                    address = (await answer.json())["webSocketDebuggerUrl"]
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.ask(f"{domain}.enable")
                    await page.ask("Page.navigate", url=url)
                    await page.js(
                        "new Promise(done => { const look = () => document.readyState === 'complete' && "
                        "location.href !== 'about:blank' ? done(true) : setTimeout(look, 50); look(); })"
                    )
                    return await visit(page)
        finally:
            job.kill()
            job.wait()


async def _port(path: Path) -> int:
    for _ in range(START_S * 10):
        if path.is_file() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise AssertionError("the browser did not start")
