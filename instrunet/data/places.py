"""Where sound and results lie: a folder of this machine, a URL of a store, or a pack in either, which is read only."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import IO, Annotated, Any, cast

from pydantic import PlainSerializer, PlainValidator

from instrunet.audio.decoder import DecodeError
from instrunet.data.listed import Listed
from instrunet.data.packed import Packed, leads_into
from instrunet.data.remote import Remote
from instrunet.data.store import FINAL, ObjectError, request, said
from instrunet.errors import ConfigError, DataError

URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)


def place(text: str | Path) -> Path:
    """A path, or what answers to the same calls: a store's object, a pack's file.

    Credentials come from the environment alone."""
    match = URL.fullmatch(text) if isinstance(text, str) else None
    if not match or match["scheme"].lower() == "file":
        return located(match["rest"] if match else text)
    scheme, rest = match["scheme"].lower(), match["rest"]
    if "@" in rest.split("/")[0] or "?" in rest:
        raise ValueError(
            f"a {scheme}:// URL with credentials or a query in it is refused: it would end up in logs and plans; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_ENDPOINT_URL names another store) instead"
        )
    if not rest.strip("/"):
        raise ValueError(f"expected {scheme}://BUCKET/FOLDER, got no bucket")
    return located(f"{scheme}://{rest}")


def located(uri: str | Path) -> Path:
    """As `place`, of a name that we wrote ourselves: an object's may hold what a folder's may not."""
    if isinstance(uri, Listed):
        return cast(Path, uri)
    if is_packed(uri):
        return cast(Path, Packed(uri))
    return cast(Path, Remote(uri)) if isinstance(uri, str) and URL.fullmatch(uri) else Path(uri)


Place = Annotated[Path, PlainValidator(place), PlainSerializer(str, return_type=str)]


def asked(text: str) -> Path:
    """The place that an argument names."""
    try:
        return place(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def is_remote(path: Path) -> bool:
    """Whether it is no file of this machine, which a decoder could open."""
    return isinstance(path, Listed)


def is_packed(uri: str | Path) -> bool:
    return leads_into(PurePosixPath(uri))


def need_no_pack(path: Path) -> None:
    if isinstance(path, Packed):
        raise ConfigError(f"expected a folder to write to, got {path}: a pack is written by jobs/pack.py alone")


def need_disk(path: Path, what: str) -> None:
    need_no_pack(path)
    if is_remote(path):
        raise ConfigError(
            f"{what} writes to a folder of a disk that all workers share, got {path}; give another out. "
            "data.root may be a URL, and so may be what jobs/featurize.py and jobs/tag.py write"
        )


def identity(path: Path) -> tuple[int, str]:
    """(bytes, version) of a file: when either differs, it is another."""
    if isinstance(path, Packed):
        known = path.known()
        return known["size"], known.get("sha256", "")
    if isinstance(path, Remote):
        info = path.known()
        version = next((info[k] for k in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(k)), "")
        return int(info.get("size") or 0), str(version)
    stat = path.stat()
    return stat.st_size, str(stat.st_mtime_ns)


def is_as_named(path: Path) -> bool:
    """Whether a path leads to the object that it was listed for: `a//b` and `a/./b` are names in a store."""
    listed = path.info if isinstance(path, Remote) else None
    return listed is None or str(path).partition("://")[2] == listed["key"]


def as_text(path: Path | str) -> str:
    """A path as valid Unicode, which Parquet and terminals insist on."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def check_name(path: Path | str) -> None:
    """soundfile opens no other names, and what stands in a row could not be turned back into them."""
    if as_text(path) != str(path):
        raise DecodeError("unreadable", f"expected a name in UTF-8, got {as_text(path)}; rename it")
    if not isinstance(path, str) and not is_as_named(path):
        raise DecodeError("unreadable", f"{path} is not how its store spells it (// or /./ in its name); rename it")


def checksum(path: Path) -> str:
    """The same for the same bytes, and known without reading them: a store's entity tag, a pack's own hash."""
    try:
        known = cast(Listed, path).known()
    except FileNotFoundError:
        return ""
    return str(known.get("ETag") or known.get("sha256") or "")


def source(path: Path) -> Path | BytesIO:
    """What pyarrow reads a table from. A store's is held in memory: an actor that is killed leaves no file behind."""
    return BytesIO(path.read_bytes()) if is_remote(path) else path


@contextmanager
def sound(uri: str | Path, n_bytes: int | None = None) -> Iterator[Path]:
    """A file for a decoder: a local one itself, of anything else a copy that is gone afterwards.

    What cannot be had is unreadable, and reasons name the object and not its copy.
    """
    path = located(uri)
    if not is_remote(path):
        yield path
        return
    # Not in a folder of its own, whose removal takes ext4 2 ms
    with NamedTemporaryFile(prefix="instrunet-", suffix=path.suffix[:16]) as file:
        copy = Path(file.name)
        try:
            _download(path, file, n_bytes)
            yield copy
        except ObjectError as error:
            raise DecodeError("unreadable", str(error)) from None
        except DecodeError as error:
            raise DecodeError(error.status, str(error).replace(str(copy), str(path))) from None


def put(path: Path, write: Callable[[Path], Any], *, create: bool) -> bool:
    """Write an object whole. With `create`, the first writer wins: False says that it was another.

    S3 holds to it (If-None-Match). Of a store that knows no such condition we look first and write then: two that
    look at the same moment both write. Parts are functions of the plan, so what differs is the time of writing alone.
    """
    with TemporaryDirectory(prefix="instrunet-") as folder:
        aside = Path(folder) / path.name
        write(aside)
        content = aside.read_bytes()
    try:
        try:
            _send(path, content, "create" if create else "overwrite")
        except NotImplementedError:
            if path.exists():
                raise FileExistsError(str(path)) from None
            _send(path, content, "overwrite")
    except FileExistsError:
        return False
    except FINAL as error:
        raise DataError(f"{path} cannot be written: {said(error)}; give another place") from None
    return True


def _send(path: Path, content: bytes, mode: str) -> None:
    request(str(path), "pipe_file", content, mode=mode, n_bytes=len(content))


def _download(path: Any, file: IO[bytes], n_bytes: int | None) -> None:
    try:
        for chunk in path.chunks(n_bytes):
            file.write(chunk)
        file.flush()
    except DataError as error:  # a folder that has a pack's name and is none
        raise ObjectError(str(error)) from None
    except FINAL as error:
        raise ObjectError(f"{path} cannot be had: {said(error)}") from None
