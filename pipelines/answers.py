"""What a server says, and to whom: a JSON API and its page over given bundles. No Ray: `serve.py` runs it there.

A sound comes as the body of a request, never as a name of a file, and is gone when its answer is.
"""

import asyncio
import base64
import hashlib
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import instrunet
from instrunet.audio import isolated
from instrunet.audio.decoder import shown
from instrunet.audio.io import DecodeError, Sound
from instrunet.bundle import Bundle
from instrunet.prediction import Prediction
from instrunet.report import seen
from pipelines.said import Answer, Limits, Model, Models, Refusal

PAGE = Path(__file__).parent / "serve.html"
DECODER = isolated.Limits(wait_s=10.0, tries=1)
UPLOAD_S = 60.0  # a body that takes longer keeps a place from others

Hear = Callable[[Bundle, Sound], Awaitable[Prediction]]


class RefusedError(Exception):
    def __init__(self, code: int, status: str, error: str) -> None:
        super().__init__(error)
        self.code, self.status, self.error = code, status, error


class Desk:
    """Takes a body, decodes it in a process of its own, and has it heard; so many at once, and no more.

    What a name of `bundles` leads to may change from one sound to the next.
    """

    def __init__(self, bundles: Mapping[str, Bundle], limits: Limits, uploads: Path, hear: Hear) -> None:
        self.bundles, self.limits, self.uploads, self.hear = bundles, limits, uploads, hear
        self.inside = 0
        n = min(limits.at_once, os.cpu_count() or 1)
        self._threads, self._decoders = ThreadPoolExecutor(n), SimpleQueue[isolated.Decoder]()
        for _ in range(n):
            self._decoders.put(isolated.Decoder(DECODER))

    async def answer(self, request: Request, name: str | None, picture: bool) -> Answer:
        name = next(iter(self.bundles)) if name is None else name
        if name not in self.bundles:
            raise RefusedError(404, "no_model", f"expected a model of {', '.join(self.bundles)}, got {name[:100]!r}")
        if self.inside >= self.limits.at_once:
            raise RefusedError(
                503, "busy", f"{self.limits.at_once} sounds are being heard, which is the most; come again"
            )
        self.inside += 1
        try:
            return await self._answer(request, name, picture)
        finally:
            self.inside -= 1

    async def _answer(self, request: Request, name: str, picture: bool) -> Answer:
        bundle, run = self.bundles[name], asyncio.get_running_loop().run_in_executor
        with NamedTemporaryFile(dir=self.uploads) as file:
            await self._receive(request, file)
            sound = await run(self._threads, self._decoded, Path(file.name), bundle.spec.front.sample_rate)
        said = await self.hear(bundle, sound)
        drawn = await run(self._threads, seen.seen, bundle, sound.wave) if picture else None
        more = {"model": name, "fingerprint": bundle.fingerprint, "window_s": bundle.spec.front.window_s}
        more |= {"answer": said.answer, "leaky": bundle.spec.trained.leaky}
        return Answer(**said.to_dict(), **more, spectrogram=asdict(drawn) if drawn else None)

    async def _receive(self, request: Request, file: Any) -> None:
        most, n = round(self.limits.mb * 1e6), 0
        told = request.headers.get("content-length", "0")
        try:
            async with asyncio.timeout(UPLOAD_S):
                if told.isdecimal() and int(told) > most:
                    raise RefusedError(
                        413, "too_large", f"expected at most {self.limits.mb:g} MB, got {int(told) / 1e6:.1f}"
                    )
                async for chunk in request.stream():
                    n += len(chunk)
                    if n > most:
                        raise RefusedError(413, "too_large", f"expected at most {most / 1e6:g} MB, got more")
                    file.write(chunk)
        except TimeoutError:
            raise RefusedError(408, "slow", f"expected the sound within {UPLOAD_S:g} s, got {n} bytes of it") from None
        except ClientDisconnect:
            raise RefusedError(400, "broken_off", "the sound broke off") from None
        if not n:
            raise RefusedError(422, "empty", "expected a sound as the body of the request, got nothing")
        file.flush()

    def _decoded(self, path: Path, rate: int) -> Sound:
        """In a thread: as many of them as there are decoders."""
        decoder = self._decoders.get()
        try:
            seconds = decoder.probe(path).duration_s
            if seconds > self.limits.seconds:
                raise RefusedError(
                    413, "too_long", f"expected at most {self.limits.seconds:g} s of sound, got {seconds:.1f}"
                )
            return decoder.read(path, rate)
        except DecodeError as error:
            told = str(error).replace(shown(path), "this")
            raise RefusedError(422, error.status, told) from None
        finally:
            self._decoders.put(decoder)


def api(desk: Desk, host: str) -> FastAPI:
    """GET / is the page, /api the rest, /openapi.json its description."""
    said = "What a trained bundle says of a sound."
    app = FastAPI(title="instrunet", version=instrunet.__version__, description=said, docs_url=None, redoc_url=None)
    page, policy = _page()

    @app.middleware("http")
    async def guard(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
        refused = _stranger(request, host)
        answer = _refusal(refused) if refused else await handle(request)
        answer.headers.update({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})
        return answer

    @app.exception_handler(RefusedError)
    async def refuse(_: Request, error: RefusedError) -> Response:
        return _refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return _refusal(RefusedError(422, "invalid", told))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        answer = _refusal(RefusedError(error.status_code, "unknown", error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _refusal(RefusedError(500, "failed", f"this went wrong here: {type(error).__name__}"))

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    @app.get("/api/models", summary="The models that answer, the first if none is asked for, and the limits")
    async def list_models() -> Models:
        return Models(models=[_told(name, bundle) for name, bundle in desk.bundles.items()], limits=desk.limits)

    refusals = {code: {"model": Refusal, "description": text} for code, text in REFUSALS.items()}
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

    @app.post(
        "/api/predict",
        summary="What a model says of the sound that is the body of the request: WAV, FLAC, Ogg, MP3 and others",
        responses=refusals,  # type: ignore[arg-type]
        openapi_extra={"requestBody": {"required": True, "content": binary}},
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="its name in /api/models")] = None,
        spectrogram: Annotated[bool, Query(description="with what the model hears, as a picture")] = False,
    ) -> Answer:
        return await desk.answer(request, model, spectrogram)

    return app


REFUSALS = {
    400: "the body broke off",
    403: "another site's page asks",
    404: "no such model",
    408: "the body took too long",
    413: "more bytes or seconds than the limits allow",
    422: "no sound that can be decoded, by its status, or a parameter that is none",
    503: "as many sounds as allowed are being heard",
}


def _refusal(error: RefusedError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.code == 503 else {}
    return JSONResponse(Refusal(status=error.status, error=error.error).model_dump(), error.code, headers)


def _stranger(request: Request, host: str) -> RefusedError | None:
    """A page of another site may neither ask nor, by a name of its own that leads to this machine, read."""
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return RefusedError(403, "other_site", "a page of another site may not ask here")
    if is_loopback(host) and not is_loopback(request.url.hostname or ""):
        return RefusedError(
            403, "other_site", f"expected localhost as the host, got {(request.url.hostname or '')[:100]!r}"
        )
    return None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _told(name: str, bundle: Bundle) -> Model:
    spec = bundle.spec
    return Model(
        name=name,
        fingerprint=bundle.fingerprint,
        network=spec.model.name,
        kind=spec.kind,
        labels=list(spec.labels),
        thresholds=bundle.thresholds.tolist() if spec.kind == "multi" else None,
        abstain_below=bundle.decisions.abstain_below,
        window_s=spec.front.window_s,
        sample_rate=spec.front.sample_rate,
        runs_on=bundle.runs_on,
        leaky=spec.trained.leaky,
    )


def _page() -> tuple[str, str]:
    """The page, and the policy by which a browser runs its own script and no other."""
    text = PAGE.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; img-src data:; media-src blob:"
    closed = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return text, f"default-src 'none'; connect-src 'self'; {allowed}; {closed}"
