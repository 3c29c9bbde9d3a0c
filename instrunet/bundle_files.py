"""The files of a bundle: `bundle.json` says everything, `weights.safetensors` holds the numbers. See docs/bundle.md."""

import hashlib
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from instrunet.bundle_spec import MEASURED, BundleSpec
from instrunet.config import canonical_json
from instrunet.data.parts import read_json
from instrunet.errors import BundleError, ConfigError, DataError
from instrunet.models import Network

SPEC_FILE, WEIGHTS_FILE, INT8_FILE = "bundle.json", "weights.safetensors", "int8.onnx"


def save(spec: BundleSpec, network: Network, path: Path, int8: bytes = b"") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    weights = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
    (path / WEIGHTS_FILE).write_bytes(weights)
    if int8:
        (path / INT8_FILE).write_bytes(int8)
    hashes = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "int8_sha256": _sha256(int8)}
    sealed = spec.model_copy(update=hashes)
    unmeasured = {name for name in MEASURED if not getattr(sealed, name)}  # older versions read what does not name it
    (path / SPEC_FILE).write_text(
        canonical_json(sealed.model_dump(mode="json", exclude=unmeasured)) + "\n", encoding="utf-8"
    )
    return path


def read_spec(path: Path) -> BundleSpec:
    if not (path / SPEC_FILE).is_file():
        raise BundleError(
            f"expected a bundle (a folder with {SPEC_FILE}) at {path}, found none; jobs/train.py makes one"
        )
    try:
        tree = read_json(path / SPEC_FILE)
        if tree.get("format") != 1:
            raise BundleError(
                f"{path} has bundle format {tree.get('format')!r}; this version reads 1: upgrade instrunet"
            )
        return BundleSpec.parse(tree, str(path / SPEC_FILE))
    except (DataError, ConfigError) as error:
        raise BundleError(str(error)) from None


def read_int8(path: Path, sha256: str) -> bytes:
    return read_sealed(path / INT8_FILE, sha256) if sha256 else b""


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    content = read_sealed(path, sha256)
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(content)
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from None
    return weights


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if content else ""


def read_sealed(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; the bundle is not whole") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path} is not the file that bundle.json was sealed with; copy the bundle again")
    return content


def first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def publish(save: Callable[[Path], Path], out: Path) -> Path:
    """`Bundle.save` aside, then under its name: never half a bundle."""
    aside = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        save(aside)
        aside.rename(out)  # an empty folder is replaced
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return out
