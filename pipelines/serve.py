"""A page to try bundles on, and the same as a JSON API, on Ray Serve."""

import argparse
import asyncio
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from ray import serve

from instrunet.audio.io import Sound
from instrunet.data import places
from instrunet.errors import ConfigError
from instrunet.experiment import ClusterSpec
from instrunet.prediction import Prediction
from pipelines import answers, cluster, registry
from pipelines.console import note, result
from pipelines.said import Limits

APP = "instrunet"
TOGETHER, WAIT_S = 16, 0.01  # sounds whose windows share a batch, and how long the first waits for others


class Server:
    def __init__(self, models: dict[str, str], limits: Limits, uploads: str, host: str, runtime: str) -> None:
        self.bundles = {name: registry.load(places.located(path), runtime) for name, path in models.items()}
        self.limits, self.uploads, self.host = limits, Path(uploads), host
        self.thread = ThreadPoolExecutor(1)

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 Ray Serve's name
        return answers.api(answers.Desk(self.bundles, self.limits, self.uploads, self.heard), self.host)

    async def heard(self, name: str, sound: Sound) -> Prediction:
        said: Prediction = await self.together((name, sound))
        return said

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def together(self, asked: list[tuple[str, Sound]]) -> list[Prediction]:
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.told, asked)

    def told(self, asked: list[tuple[str, Sound]]) -> list[Prediction]:
        """The sounds of each model in shared batches."""
        said: dict[int, Prediction] = {}
        for name in {name for name, _ in asked}:
            own = [k for k, (other, _) in enumerate(asked) if other == name]
            heard = self.bundles[name].hear_together([asked[k][1] for k in own])
            said |= zip(own, map(self.bundles[name].told, heard), strict=True)
        return [said[k] for k in range(len(asked))]


# The desk says when it is enough, in JSON
deployed = serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})(serve.ingress()(Server))


def run(args: argparse.Namespace) -> None:
    """Until it is stopped."""
    limits = _limits(args)
    with TemporaryDirectory(prefix="instrunet-serve-") as folder:
        home = Path(folder)
        port = _free(args.host, args.port)
        models = dict(_models(args.bundles, home / "models", args.runtime))
        (home / "uploads").mkdir()
        cluster.connect(ClusterSpec(), verbose=args.verbose)
        if not args.verbose:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        _start(args, port, deployed.bind(models, limits, str(home / "uploads"), args.host, args.runtime))
        try:
            for name, path in models.items():
                note(f"{name}: {path}")
            result(f"http://[{args.host}]:{port}" if ":" in args.host else f"http://{args.host}:{port}")
            _wait()
        finally:
            serve.delete(APP)  # all of Serve ends with our Ray; its own `shutdown` has Ray report that it was killed


def _start(args: argparse.Namespace, port: int, app: Any) -> None:
    quiet = {"log_level": "INFO" if args.verbose else "ERROR", "enable_access_log": args.verbose}
    serve.start(
        proxy_location="HeadOnly",
        http_options=serve.HTTPOptions(host=args.host, port=port),
        logging_config=quiet,
    )
    serve.run(app, name=APP, route_prefix="/", logging_config=quiet)


def _wait() -> None:
    try:
        Event().wait()
    except (KeyboardInterrupt, SystemExit):
        note("stopped")


def _limits(args: argparse.Namespace) -> Limits:
    for option, value in (("max-mb", args.max_mb), ("max-seconds", args.max_seconds), ("at-once", args.at_once)):
        if not value > 0:
            raise ConfigError(f"--{option} is a limit above 0, got {value:g}")
    return Limits(mb=args.max_mb, seconds=args.max_seconds, at_once=args.at_once)


def _models(given: list[str], folder: Path, runtime: str) -> Iterator[tuple[str, str]]:
    """Short names, all that a client hears, and places; each is loaded once, so that mistakes are told now."""
    names = set[str]()
    for k, text in enumerate(_expanded(given)):
        path = registry.fetched(text, folder / str(k)) if registry.REGISTERED.match(text) else places.asked(text)
        registry.load(path, runtime)
        name = _name(text)
        if name in names:
            raise ConfigError(f"two models are called {name}; leave one out, or copy it to another folder")
        names.add(name)
        yield name, str(path if places.is_remote(path) else path.absolute())


def _expanded(given: list[str]) -> Iterator[str]:
    """`models:/NAME` is every version of it that has an alias."""
    for text in given:
        name = text.removeprefix("models:/")
        if name == text or "/" in name or "@" in name:
            yield text
            continue
        aliases = registry.Models(name).aliases()
        if not aliases:
            raise ConfigError(f"{name} has no version with an alias; name a version: models:/{name}/1")
        yield from (f"models:/{name}@{alias}" for alias in sorted(aliases))


def _name(text: str) -> str:
    """`smoke-1234abcd` for `runs/train/smoke-1234abcd/bundle`, `instruments@champion` for `models:/...`."""
    parts = [part for part in text.split("/") if part not in ("", ".", "bundle")]
    if registry.REGISTERED.match(text):
        return "/".join(parts[1:])
    return parts[-1] if parts else "bundle"


def _free(host: str, port: int) -> int:
    """The port, free, or for 0 one that is; said before anything is started."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"--port is a number from 0 to 65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
            held.listen()
            found = int(held.getsockname()[1])
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror}; give another --port or --host") from None
    if not answers.is_loopback(host):
        note(f"note: whoever reaches {host} may ask, without a password")
    return found
