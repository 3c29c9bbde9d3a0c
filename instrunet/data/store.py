"""Requests to a store (S3, or what else fsspec reaches) that end: a deadline for each try, some tries, backoff."""

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import fsspec
from fsspec.asyn import sync
from pydantic import Field

from instrunet.config import Spec
from instrunet.errors import ConfigError, JobError

SLOWEST = 100_000  # bytes a second: a body that comes slower is as good as stalled
LISTING_S = 3600  # a listing is thousands of requests, each with a deadline of its own
LONGEST_WAIT_S = 10.0
PAGE = 1000  # of a listing, as many as S3 gives at once
# Answers. They are given at once and would be the same again
FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotImplementedError, ValueError)
# botocore's own, by name: it is s3fs that knows it, not we
UNSET = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "InvalidRegionError")


class Patience(Spec):
    """How long a store is waited for: INSTRUNET_STORE_TIMEOUT_S and INSTRUNET_STORE_TRIES."""

    timeout_s: float = Field(30.0, gt=0)  # of one try, and as long again for each 3 MB of a body
    tries: int = Field(5, ge=1)

    @classmethod
    def of_environment(cls) -> "Patience":
        names = {field: f"INSTRUNET_STORE_{field.upper()}" for field in cls.model_fields}
        return cls.parse({f: os.environ[n] for f, n in names.items() if n in os.environ}, "INSTRUNET_STORE_*")


class StoreError(JobError):
    """A store that does not answer, whatever is asked of it."""


class ObjectError(JobError):
    """One object that cannot be had from a store that answers, or written to it."""


def request(url: str, method: str, *args: Any, n_bytes: int = 0, check: Any = None, **kwargs: Any) -> Any:
    """What the store answers; that may be one of `FINAL`. No answer is a StoreError or, where the store answers to
    other questions, an ObjectError."""
    patience, listing = Patience.of_environment(), method == "find"
    store = _file_system(url.split(":")[0], patience, patience.tries if listing else 1)
    deadline_s = LISTING_S if listing else patience.timeout_s + n_bytes / SLOWEST

    def once() -> Any:
        answer = _within(deadline_s, store, method, url, *args, **kwargs)
        return check(answer) if check else answer

    error: Exception | None = None
    for wait in _waits(1 if listing else patience.tries):
        time.sleep(wait)
        answer, error = _tried(url, once)
        if error is None:
            return answer
    if listing or not _answers(url):
        raise StoreError(f"{_top(url)} does not answer: {reason(error)}; run the same command again when it does")
    answer, error = _tried(url, once)  # asking for something else may have outlasted what was wrong
    if error:
        done = "written" if method == "pipe_file" else "had"
        raise ObjectError(f"{url} cannot be {done}, after {patience.tries + 1} tries: {reason(error)}")
    return answer


def listed(url: str) -> Iterator[dict[str, Any]]:
    """What lies below a name; S3's page by page in the order of keys, so that nothing grows with the bucket."""
    patience = Patience.of_environment()
    store = _file_system(url.split(":")[0], patience, patience.tries)
    if not hasattr(store, "_iterdir"):
        yield from sorted(request(url, "find", detail=True).values(), key=lambda info: str(info["name"]))
        return
    bucket, key, _ = store.split_path(url)
    found = store._iterdir(bucket, delimiter="", prefix=f"{key}/" if key else "")

    async def page() -> list[dict[str, Any]]:
        infos: list[dict[str, Any]] = []
        async for info in found:
            infos.append(info)
            if len(infos) == PAGE:
                break
        return infos

    infos: list[dict[str, Any]] = [{}]
    while infos:
        infos, error = _tried(url, lambda: _deadline(store, LISTING_S, page))
        if error:  # botocore has asked for this page again already
            raise StoreError(f"{_top(url)} does not answer: {reason(error)}; run the same command again when it does")
        yield from infos


def reason(error: BaseException | None) -> str:
    """In one line, without what stands before an @ in a URL."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"//[^/@\s]*@", "//", text)[:300].rstrip(".")


def said(error: Exception) -> str:
    """What one of `FINAL` means."""
    if isinstance(error, FileNotFoundError):
        return "nothing is there"
    return "access is refused" if isinstance(error, PermissionError) else reason(error)


def _top(url: str) -> str:
    """The bucket."""
    return "/".join(url.split("/")[:3])


def _answers(url: str) -> bool:
    if url == _top(url):
        return False
    try:
        request(_top(url), "info")
    except StoreError:
        return False
    except FINAL:
        return True  # a no is an answer
    return True


def _tried(url: str, call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """(answer, None), or (None, what may pass)."""
    try:
        return call(), None
    except FINAL:
        raise
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise NotImplementedError(reason(error)) from None
        return None, error
    except Exception as error:  # aiohttp's and botocore's own: which of them mean "later" no list says
        if type(error).__name__ in UNSET:
            raise ConfigError(
                f"{_top(url)} cannot be used: {reason(error)}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, "
                "for a store other than Amazon's, AWS_ENDPOINT_URL"
            ) from None
        return None, error


def _waits(tries: int) -> Iterator[float]:
    """Seconds before each try. Many workers that were turned away together must not come back together."""
    yield 0.0
    for k in range(tries - 1):
        yield random.uniform(0.5, 1.0) * min(0.4 * 2**k, LONGEST_WAIT_S)


def _within(deadline_s: float, store: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    if not getattr(store, "async_impl", False):
        return getattr(store, method)(*args, **kwargs)

    return _deadline(store, deadline_s, lambda: getattr(store, f"_{method}")(*args, **kwargs))


def _deadline(store: Any, deadline_s: float, ask: Callable[[], Any]) -> Any:
    async def limited() -> Any:
        try:
            return await asyncio.wait_for(ask(), deadline_s)
        except TimeoutError:
            raise ConnectionError(f"no answer within {deadline_s:.3g} s") from None  # sync renames a TimeoutError

    return sync(store.loop, limited)


@cache
def _file_system(scheme: str, patience: Patience, tries: int) -> Any:
    """fsspec's. A listing's pages are tried again one by one, by botocore; all else is by us, so nothing multiplies."""
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": patience.timeout_s, "read_timeout": patience.timeout_s}
        options["config_kwargs"] = {**limits, "retries": {"total_max_attempts": tries, "mode": "standard"}}
    try:
        found = fsspec.filesystem(scheme, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{scheme}:// is no store that can be reached here: {reason(error)}") from None
    found.retries = 1
    if hasattr(found, "set_session"):
        sync(found.loop, found.set_session)  # half a second of reading tables, for which no deadline is meant
    return found
