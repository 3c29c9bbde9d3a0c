"""What makes a bundle's folder a model of MLflow, too: `MLmodel` and what it names, written beside the bundle's files.

By hand, and not by MLflow: its import takes longer than a run may wait for a server. The code of the library travels
as a zip, which Python imports as it is, so the model loads where `instrunet` is not installed.
"""

import json
import platform
import uuid
import zipfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import instrunet
from instrunet.data.parts import read_json

CODE = "instrunet.zip"
NEEDED = (
    *("librosa", "miniaudio", "numpy", "pandas", "pyarrow", "pydantic", "PyYAML", "s3fs", "safetensors", "scipy"),
    *("soundfile", "soxr", "torch", "torchaudio"),
)
BACKBONE = ("timm", "torchvision")
OUTPUTS: list[dict[str, Any]] = [
    {"type": "array", "items": {"type": "string"}, "name": "labels", "required": True},
    {"type": "array", "items": {"type": "double"}, "name": "scores", "required": True},
    {"type": "string", "name": "status", "required": True},
]


def write(bundle: Path, folder: Path) -> Path:
    """All but the bundle itself, into `folder`."""
    spec = read_json(bundle / "bundle.json")
    rate = int(spec["front"]["features"][0]["sample_rate"])
    pins = requirements(spec)
    python, today = platform.python_version(), datetime.now(UTC).replace(tzinfo=None)
    model = {
        "flavors": {
            "python_function": {
                "loader_module": "instrunet.pyfunc",
                "data": ".",
                "code": CODE,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": python,
                "streamable": False,
            }
        },
        "metadata": {"labels": spec["labels"], "kind": spec["kind"], "sample_rate": rate},
        "mlflow_version": version("mlflow"),
        "model_uuid": uuid.uuid4().hex,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "ndarray",
        },
        "signature": {
            "inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, -1]}}]),
            "outputs": json.dumps(OUTPUTS),
            "params": json.dumps([{"name": "sample_rate", "default": rate, "shape": None, "type": "long"}]),
        },
        "utc_time_created": str(today),
    }
    example = np.sin(np.arange(rate // 5) * (2 * np.pi * 440 / rate)).round(3).tolist()  # a fifth of a second of an A
    packages: list[Any] = [f"python={python}", "pip", {"pip": pins}]
    conda = {"name": "instrunet", "channels": ["conda-forge"], "dependencies": packages}
    environment = {"python": python, "build_dependencies": ["pip", "setuptools", "wheel"]}
    files = {
        "MLmodel": yaml.safe_dump(model, sort_keys=False, width=10_000),
        "requirements.txt": "\n".join(pins) + "\n",
        "conda.yaml": yaml.safe_dump(conda, sort_keys=False),
        "python_env.yaml": yaml.safe_dump(environment | {"dependencies": ["-r requirements.txt"]}, sort_keys=False),
        "input_example.json": json.dumps([example]),
        "serving_input_example.json": json.dumps({"inputs": [example]}),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    _zip(folder / CODE)
    return folder


def requirements(spec: dict[str, Any]) -> list[str]:
    """What predicts, pinned to what is installed here."""
    members = [spec["model"], *spec["model"].get("members", ())]
    more = BACKBONE if any(member["name"] == "backbone" for member in members) else ()
    return [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", *NEEDED, *more)]


def _zip(path: Path) -> None:
    """The library's modules; the same bytes for the same code."""
    home = Path(instrunet.__file__).parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(home.rglob("*.py")):
            entry = zipfile.ZipInfo(str(source.relative_to(home.parent)), (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)
