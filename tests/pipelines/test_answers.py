"""A server's answers without a server: what takes a client longer than a test of a real one should wait for."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from archives import tiny_bundle

from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.prediction import Prediction
from pipelines import answers
from pipelines.said import Limits


def asked(desk: answers.Desk, wait_s: float) -> tuple[int, dict[str, Any]]:
    """What a client is told that sends a byte every `wait_s`, and never comes to an end."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(wait_s)
        return {"type": "http.request", "body": b"R", "more_body": True}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "path": "/api/predict",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(answers.api(desk, "127.0.0.1")(scope, receive, send))
    return said[0]["status"], json.loads(b"".join(one.get("body", b"") for one in said[1:]))


def test_a_sound_that_drips_is_let_go_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hear(bundle: Bundle, sound: Sound) -> Prediction:
        raise AssertionError(f"{bundle} heard {len(sound.wave)} samples of a sound that never came whole")

    monkeypatch.setattr(answers, "UPLOAD_S", 0.3)
    desk = answers.Desk({"one": tiny_bundle()}, Limits(mb=1, seconds=1, at_once=1), tmp_path, hear)
    for _ in range(2):  # the place is free again
        code, told = asked(desk, 0.01)
        assert (code, told["status"]) == (408, "slow")
        assert told["error"].startswith("expected the sound within 0.3 s, got ")
    assert desk.inside == 0 and not [*tmp_path.iterdir()]
