"""A page to try bundles on, and the same as a JSON API, on Ray Serve."""

import argparse
import asyncio
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from ray import serve
from ray.exceptions import RayError

from instrunet.audio.io import Sound
from instrunet.bundle import Bundle
from instrunet.data import places
from instrunet.data.parts import read_json
from instrunet.errors import ConfigError
from instrunet.experiment import ClusterSpec
from instrunet.prediction import Prediction
from pipelines import answers, cluster, registry
from pipelines.console import note, result
from pipelines.said import Limits
from pipelines.shelf import Shelf

APP = "instrunet"
RENEW_S = 120.0  # to load a bundle that an alias has moved to
TOGETHER, WAIT_S = 16, 0.01  # sounds whose windows share a batch, and how long the first waits for others


class Server:
    """`models` is a Shelf's file."""

    def __init__(self, models: str, limits: Limits, uploads: str, host: str, runtime: str) -> None:
        self.models, self.runtime = Path(models), runtime
        self.bundles = self.loaded(read_json(self.models))
        self.limits, self.uploads, self.host = limits, Path(uploads), host
        self.thread = ThreadPoolExecutor(1)

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 Ray Serve's name
        return answers.api(answers.Desk(self.bundles, self.limits, self.uploads, self.heard), self.host)

    def loaded(self, models: dict[str, str]) -> dict[str, Bundle]:
        return {name: registry.load(places.located(path), self.runtime) for name, path in models.items()}

    async def renew(self, names: list[str]) -> None:
        """What these names lead to by now; a sound that is being heard is answered by the bundle it came to."""
        models = read_json(self.models)
        new = await asyncio.to_thread(self.loaded, {name: models[name] for name in names})
        self.bundles.update(new)

    async def heard(self, bundle: Bundle, sound: Sound) -> Prediction:
        said: Prediction = await self.together((bundle, sound))
        return said

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def together(self, asked: list[tuple[Bundle, Sound]]) -> list[Prediction]:
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.told, asked)

    def told(self, asked: list[tuple[Bundle, Sound]]) -> list[Prediction]:
        """The sounds of each bundle in shared batches."""
        said: dict[int, Prediction] = {}
        for bundle in {id(bundle): bundle for bundle, _ in asked}.values():
            own = [k for k, (other, _) in enumerate(asked) if other is bundle]
            heard = bundle.hear_together([asked[k][1] for k in own])
            said |= zip(own, map(bundle.told, heard), strict=True)
        return [said[k] for k in range(len(asked))]


# The desk says when it is enough, in JSON
deployed = serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})(serve.ingress()(Server))


def run(args: argparse.Namespace) -> None:
    """Until it is stopped."""
    limits = _limits(args)
    with TemporaryDirectory(prefix="instrunet-serve-") as folder:
        home = Path(folder)
        port = _free(args.host, args.port)
        shelf = Shelf(args.bundles, home / "models", args.runtime)
        (home / "uploads").mkdir()
        cluster.connect(ClusterSpec(), verbose=args.verbose)
        if not args.verbose:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        app = deployed.bind(str(shelf.file), limits, str(home / "uploads"), args.host, args.runtime)
        handle = _start(args, port, app)
        try:
            for name, path in shelf.places.items():
                note(f"{name}: {path}")
            result(f"http://[{args.host}]:{port}" if ":" in args.host else f"http://{args.host}:{port}")
            _wait(shelf, handle, args.refresh)
        finally:
            serve.delete(APP)  # all of Serve ends with our Ray; its own `shutdown` has Ray report that it was killed


def _start(args: argparse.Namespace, port: int, app: Any) -> Any:
    quiet = {"log_level": "INFO" if args.verbose else "ERROR", "enable_access_log": args.verbose}
    serve.start(
        proxy_location="HeadOnly",
        http_options=serve.HTTPOptions(host=args.host, port=port),
        logging_config=quiet,
    )
    return serve.run(app, name=APP, route_prefix="/", logging_config=quiet)


def _wait(shelf: Shelf, handle: Any, refresh_s: float) -> None:
    """Where names have an alias, with a look every so often whether it has moved."""
    moved: list[str] = []
    try:
        while not Event().wait(refresh_s if shelf.moves else None):
            moved += shelf.renew()
            if moved and _renewed(handle, moved):
                for name in moved:
                    note(f"{name}: {shelf.places[name]}")
                moved = []
    except (KeyboardInterrupt, SystemExit):
        note("stopped")


def _renewed(handle: Any, names: list[str]) -> bool:
    """A server that starts again meanwhile reads for itself what has moved."""
    try:
        handle.renew.remote(names).result(timeout_s=RENEW_S)
    except (RayError, TimeoutError) as error:
        note(f"warning: {', '.join(names)} moved, which the server has yet to take: {str(error).splitlines()[0]}")
        return False
    return True


def _limits(args: argparse.Namespace) -> Limits:
    for option in ("max-mb", "max-seconds", "at-once", "refresh"):
        if not (value := getattr(args, option.replace("-", "_"))) > 0:
            raise ConfigError(f"--{option} is a {'time' if option == 'refresh' else 'limit'} above 0, got {value:g}")
    return Limits(mb=args.max_mb, seconds=args.max_seconds, at_once=args.at_once)


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
