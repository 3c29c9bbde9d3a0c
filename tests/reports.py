"""What a report says, read as another program would: metrics.json, held to its written schema."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from instrunet.report import build

SCHEMA = json.loads(Path(build.__file__).with_name("metrics.schema.json").read_text(encoding="utf-8"))


def problems(tree: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(tree)]


def metrics_of(report: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert problems(tree) == []
    return tree
