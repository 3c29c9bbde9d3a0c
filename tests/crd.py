"""Validates a custom resource offline as a strict API server would, against the operator's own CRDs.

In the server's order: defaults are filled in, then types and required fields are checked, unknown fields refused,
keys of list-maps held unique, and CEL rules evaluated when cel-python is there. What the server does not check
(the pods inside a template, the operator's rules in code) is not checked here either.
"""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parents[2] / "shared" / "kuberay"
needs_crds = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"KubeRay's CRD schemas are not at {FOLDER}; they are no part of the project"
)

NAME = {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
LABEL = {"type": "string", "maxLength": 63, "pattern": r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"}
METADATA = {  # CRDs leave ObjectMeta to the server: this is the part of it that people write
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": NAME,
        "namespace": NAME,
        "labels": {"type": "object", "additionalProperties": LABEL},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "additionalProperties": False,
}
INT32 = {"minimum": -(2**31), "maximum": 2**31 - 1}


def problems(resource: dict[str, Any]) -> list[str]:
    """One line for each thing that the API server would refuse; empty when it would accept."""
    schema = _schema(resource.get("apiVersion", ""), resource.get("kind", ""))
    filled = _with_defaults(schema, resource)
    errors = sorted(_validator(resource["apiVersion"], resource["kind"]).iter_errors(filled), key=lambda e: e.json_path)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors] + list(_beyond_types(schema, filled, "$"))


@functools.cache
def _schema(api_version: str, kind: str) -> dict[str, Any]:
    for path in sorted(FOLDER.glob("*.yaml")):
        if kind.lower() not in path.name:  # rayjobs.yaml holds RayJob; each file takes seconds to read
            continue
        spec = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        for version in spec["versions"]:
            if (f"{spec['group']}/{version['name']}", spec["names"]["kind"]) == (api_version, kind):
                return version["schema"]["openAPIV3Schema"]
    raise LookupError(f"no CRD for {kind} of {api_version} in {FOLDER}")


@functools.cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    schema = _strict(_schema(api_version, kind))
    schema["properties"]["metadata"] = METADATA
    return Draft202012Validator(schema)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's dialect as JSON Schema, closed: a field that is not described is an error."""
    out = copy.copy(schema)
    if "properties" in schema:
        out["properties"] = {name: _strict(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            out[key] = _strict(schema[key])
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["integer", "string"]
    if schema.get("format") == "int32":
        out = INT32 | out
    if schema.get("nullable"):
        out["type"] = [out["type"], "null"]
    return out


def _with_defaults(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    missing = {
        name: copy.deepcopy(child["default"])
        for name, child in schema.get("properties", {}).items()
        if "default" in child and name not in value
    }
    return {name: _with_defaults(_child(schema, name), item) for name, item in (missing | value).items()}


def _child(schema: dict[str, Any], name: str) -> dict[str, Any]:
    child = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
    return child if isinstance(child, dict) else {}


def _beyond_types(schema: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    """What JSON Schema has no word for: unique keys of list-maps, and CEL rules."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):  # oldSelf: only on updates
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _beyond_types(_child(schema, name), item, f"{path}.{name}")
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        found = [tuple(item.get(key) for key in keys) for item in value] if keys else []
        yield from (f"{path}: {key} stands there twice" for key in sorted({k for k in found if found.count(k) > 1}))
        for index, item in enumerate(value):
            yield from _beyond_types(schema.get("items", {}), item, f"{path}[{index}]")


def _holds(rule: str, value: Any) -> bool:
    try:
        import celpy  # optional: without it the rules are taken to hold
    except ImportError:
        return True
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value)}))
