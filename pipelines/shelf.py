"""The bundles that a server offers, by the names that clients use; where an alias of the registry leads may change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from instrunet.data import places
from instrunet.data.parts import write_json
from instrunet.errors import BundleError, ConfigError
from pipelines import registry
from pipelines.console import note


class Shelf:
    """`file` says where each bundle lies: a server reads it when it starts, and again when something has moved.

    Each is loaded once here, so that mistakes are told before anybody asks.
    """

    def __init__(self, given: list[str], folder: Path, runtime: str) -> None:
        self.folder, self.runtime, self.file = folder, runtime, folder / "models.json"
        self.places: dict[str, str] = {}
        self._versions: dict[str, str] = {}  # behind each name with an alias
        self._left: list[str] = []  # folders of versions that nobody asks for any more
        self._told = dict[str, str]()
        for text in _expanded(given):
            name, version = _name(text), _version(text)
            if name in self.places:
                raise ConfigError(f"two models are called {name}; leave one out, or copy it to another folder")
            self.places[name] = self._loaded(text, str(len(self.places)))
            self._versions |= {name: version} if version else {}
        write_json(self.file, self.places)

    @property
    def moves(self) -> bool:
        return bool(self._versions)

    def renew(self) -> list[str]:
        """The names that lead elsewhere by now. One whose new version cannot be had keeps the old one, and says so."""
        while self._left:
            shutil.rmtree(self._left.pop(), ignore_errors=True)
        moved = [name for name in self._versions if self._renewed(name)]
        if moved:
            write_json(self.file, self.places)
        return moved

    def _renewed(self, name: str) -> bool:
        try:
            version = _version(f"models:/{name}")
            if version in (None, self._versions[name]):  # an alias that is gone leads where it led
                return False
            path = self._loaded(f"models:/{name.partition('@')[0]}/{version}", f"{name}-{version}")
        except (BundleError, ConfigError) as error:
            if self._told.get(name) != str(error):  # once, not at every look
                note(f"warning: {name} stays at version {self._versions[name]}: {error}")
            self._told[name] = str(error)
            return False
        self._left.append(self.places[name])
        self.places[name], self._versions[name] = path, version
        return True

    def _loaded(self, text: str, place: str) -> str:
        registered = registry.REGISTERED.match(text)
        path = registry.fetched(text, self.folder / place) if registered else places.asked(text)
        registry.load(path, self.runtime)
        return str(path if places.is_remote(path) else path.absolute())


def _version(text: str) -> str | None:
    """Of a name with an alias; no other leads elsewhere some day."""
    name, at, alias = text.removeprefix("models:/").partition("@")
    return registry.Models(name).version(alias) if text.startswith("models:/") and at else None


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
