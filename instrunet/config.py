"""Specs: frozen pydantic models, read from YAML and dotted overrides, with one canonical text and fingerprint."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from instrunet.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-3` as a number, as YAML 1.2 does; PyYAML's 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class Spec(BaseModel):
    """All that decides how a component behaves. Frozen; an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> str:
        """The same text for the same values, whatever order they were written in."""
        return canonical_json(self.model_dump(mode="json"))

    def fingerprint(self) -> str:
        return fingerprint(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, tree: Mapping[str, Any], source: str) -> Self:
        """Build from a plain tree; every mistake in it becomes one line of one ConfigError."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            # pydantic also counts a list whose only item is wrong as too short: that says nothing new
            items = error.errors(include_url=False)
            lines = [_explain(cls, item) for item in items if item["type"] != "too_short" or len(items) == 1]
            raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits over the canonical JSON: 64 bits, enough to tell every experiment ever run apart."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def load_tree(path: Path | str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """A YAML file plus `a.b=value` overrides, as a plain tree."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, _yaml_names(path.parent), n=1, cutoff=0.5)
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a YAML file, see configs/"
        raise ConfigError(f"expected a configuration file at {path}, found none; {hint}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, a date that is none
        raise ConfigError(f"{path} is not valid YAML: {_yaml_reason(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} should hold `key: value` lines, it holds a {type(tree).__name__}")
    for override in overrides:
        apply_override(tree, override)
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key in place; the value is read as YAML, so `3`, `true` and `[a, b]` mean what they say."""
    key, found, text = override.partition("=")
    if not found or not key or "" in key.split("."):
        raise ConfigError(f"expected an override like train.epochs=3, got {override!r}")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        value = text
    set_path(tree, key, value)


def set_path(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.0.c` in a tree of dicts and lists, making the dicts that are missing.

    Naming another component (`model.name=...`) drops the fields of the one it replaces: they are not its own.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = _child(node, part, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif last == "name" and parents and node.get("name") != value:
        node.clear()
        node["name"] = value
    else:
        node[last] = value


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if isinstance(node.get(part), str):  # `model: task8` is short for `model: {name: task8}`
        node[part] = {"name": node[part]}
    child = {} if node.get(part) is None else node[part]
    if not isinstance(child, dict | list):
        raise ConfigError(f"cannot set {key}: {part} is the value {child!r}, not a group of fields")
    node[part] = child.copy()  # two places may share one group by a YAML anchor; an override means one of them
    return node[part]


def _index(node: list[Any], part: str, key: str) -> int:
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise ConfigError(f"cannot set {key}: {part!r} is not a position in a list of {len(node)}")


def _yaml_reason(error: Exception) -> str:
    """What and where, without the line itself: it may hold what should stay out of a log."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', None) or 'it breaks off'} at line {mark.line + 1}, column {mark.column + 1}"


def _yaml_names(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []


def _explain(spec: type[BaseModel], item: Mapping[str, Any]) -> str:
    place, options = _walk(spec, item["loc"])
    if item["type"] == "extra_forbidden":
        known = {name for option in _walk(spec, item["loc"][:-1])[1] for name in option.model_fields}
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown field {place}; {hint}"
    if item["type"] == "union_tag_invalid":
        expected = item["ctx"]["expected_tags"].replace("'", "")
        tag = str(item["ctx"]["tag"])
        near = difflib.get_close_matches(tag, expected.split(", "), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {expected}"
        return f"unknown {place} {tag!r}; {hint}"
    if item["type"] == "union_tag_not_found":
        return f"{place}.name is required, one of {', '.join(str(_name(option)) for option in options)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{place}: {message}" if place else message
    if item["type"] == "missing":
        return f"{place} is required; give it in the file or as {place}=VALUE"
    # A group of fields is not echoed: it may hold what should stay out of a log
    came = "a group of fields" if isinstance(item["input"], dict | list) else repr(item["input"])
    return f"{place}: {message[:1].lower()}{message[1:]}, got {came}"


def _walk(spec: type[BaseModel], loc: tuple[Any, ...]) -> tuple[str, list[type[BaseModel]]]:
    """Where an error's path leads: the dotted key as one writes it, and the specs that may stand there.

    The path also names which spec of a union was meant (`model.task8.dropout`); that is no part of the key.
    """
    options, key = [spec], []
    for step in loc:
        if len(options) > 1 and isinstance(step, str):
            options = [option for option in options if _name(option) == step]
            continue
        key.append(str(step))
        if isinstance(step, str):
            fields = [option.model_fields[step] for option in options if step in option.model_fields]
            options = [leaf for field in fields for leaf in _specs(field.annotation)]
    return ".".join(key), options


def _name(spec: type[BaseModel]) -> Any:
    return spec.model_fields["name"].default if "name" in spec.model_fields else None


def _specs(annotation: Any) -> list[type[BaseModel]]:
    """The specs inside an annotation such as `tuple[A | B, ...]` or `A | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _specs(inner)]
