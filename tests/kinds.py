"""Checks built-in kinds of Kubernetes offline, against the models of its own Python client, strictly.

Unknown fields, missing required ones and wrong types are found; what only a server knows (enumerations, formats,
rules between fields) is not.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from kubernetes import client

PLAIN: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,  # an int or string, or anything
    "datetime": str,
    "bytes": str,
}
GROUPS = {"batch/v1": "V1", "v1": "V1", "apps/v1": "V1", "networking.k8s.io/v1": "V1", "policy/v1": "V1"}
GROUPS |= {"rbac.authorization.k8s.io/v1": "V1", "scheduling.k8s.io/v1": "V1"}


def problems(resource: dict[str, Any]) -> list[str]:
    """One line for each thing that is wrong; a kind that the client does not know is wrong too."""
    kind, version = resource.get("kind", ""), resource.get("apiVersion", "")
    model = f"{GROUPS.get(version, '?')}{kind}"
    if not hasattr(client, model):
        return [f"$: no kind {kind} of {version}"]
    return list(_problems(model, resource, "$"))


def _problems(kind: str, value: Any, path: str) -> Iterator[str]:
    inner = re.fullmatch(r"(?:list|List)\[(.+)\]", kind)
    if inner:
        if not isinstance(value, list):
            yield f"{path}: expected a list, got {value!r:.80}"
            return
        for index, item in enumerate(value):
            yield from _problems(inner[1], item, f"{path}[{index}]")
        return
    inner = re.fullmatch(r"(?:dict|Dict)[\[(]str, (.+)[\])]", kind)
    if inner:
        if not isinstance(value, dict):
            yield f"{path}: expected a map, got {value!r:.80}"
            return
        for name, item in value.items():
            yield from _problems(inner[1], item, f"{path}.{name}")
    elif kind in PLAIN:
        wanted = PLAIN[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind in ("int", "float")):
            yield f"{path}: expected {kind}, got {value!r:.80}"
    else:
        yield from _fields(kind, value, path)


def _fields(kind: str, value: Any, path: str) -> Iterator[str]:
    types, required = _described(kind)
    if not isinstance(value, dict):
        yield f"{path}: expected a {kind}, got {value!r:.80}"
        return
    yield from (f"{path}: unknown field {name!r}" for name in sorted(value.keys() - types.keys()))
    yield from (f"{path}: {name!r} is missing" for name in sorted(required - value.keys()))
    for name in value.keys() & types.keys():
        if value[name] is not None:
            yield from _problems(types[name], value[name], f"{path}.{name}")


@functools.cache
def _described(kind: str) -> tuple[dict[str, str], frozenset[str]]:
    """The JSON names of a model's fields with their types, and those that must be there."""
    model = getattr(client, kind)
    types = {model.attribute_map[field]: of for field, of in model.openapi_types.items()}
    needed = {model.attribute_map[name] for name, field in model.model_fields.items() if field.is_required()}
    return types, frozenset(needed)
