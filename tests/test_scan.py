"""The scan of `make lint`, against a stand-in of OSV: a loopback server with one vulnerability planted."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import scan

Capture = pytest.CaptureFixture[str]
PLANTED = ("torch", "GHSA-plan-ted0-0000")


class Osv(BaseHTTPRequestHandler):
    asked: list[object]

    def do_POST(self) -> None:  # noqa: N802, http.server finds it so
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        assert self.path == "/v1/querybatch"
        assert {query["package"]["ecosystem"] for query in queries} == {"PyPI"}
        hit = {"vulns": [{"id": PLANTED[1], "modified": "2026-01-01T00:00:00Z"}]}
        self.reply({"results": [hit if query["package"]["name"] == PLANTED[0] else {} for query in queries]})

    def do_GET(self) -> None:  # noqa: N802
        assert self.path == f"/v1/vulns/{PLANTED[1]}"
        self.reply({"id": PLANTED[1], "summary": "planted"})

    def reply(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_vulnerability_is_told_and_fails_the_strict_scan(
    service: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scan.main(["--service", service]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: torch ")
    assert line.endswith(": GHSA-plan-ted0-0000: planted")
    assert scan.main(["--strict", "--service", service]) == 1
    assert capsys.readouterr().out.startswith("error: torch ")
    monkeypatch.setitem(scan.ACCEPTED, PLANTED[1], "we never call it")
    assert scan.main(["--strict", "--service", service]) == 0
    assert capsys.readouterr().out == ""


def test_a_list_out_of_reach_is_said(capsys: Capture) -> None:
    nobody = "http://127.0.0.1:9"
    assert scan.main(["--service", nobody]) == 0
    assert "packages not looked up: http://127.0.0.1:9 gave ConnectionError" in capsys.readouterr().out
    assert scan.main(["--strict", "--service", nobody]) == 1


def test_every_pin_is_looked_up() -> None:
    text = (scan.ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert len(scan.PIN.findall(text)) == len(text.splitlines())


def test_a_key_in_the_checkout_fails_it(
    service: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if paths := scan.tracked():  # else no git checkout, which the scan says
        assert len(paths) > 100
        assert scan.secrets(paths) == []
    (tmp_path / "settings.py").write_text("KEY = 'AKIA" + "A" * 16 + "'")
    (tmp_path / "clean.py").write_text("KEY = 'AKIA'")
    monkeypatch.setattr(scan, "tracked", lambda: sorted(tmp_path.iterdir()))
    assert scan.main(["--service", service]) == 1
    assert capsys.readouterr().out.startswith("error: expected no key in the checkout, ")
    monkeypatch.setattr(scan, "tracked", list)
    assert scan.main(["--strict", "--service", service]) == 1
    assert "no keys looked for" in capsys.readouterr().out
