"""Our own files (YAML, TOML, JSON) into frozen pydantic types; what doesn't fit is told by its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from slmc.errors import SlmcError, did_you_mean


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Model = TypeVar("Model", bound=BaseModel)


def parse(kind: type[Model], raw: object, path: object, error: type[SlmcError]) -> Model:
    """Validate parsed YAML, TOML or JSON. Raises `error` naming the file, the key and the mend."""
    try:
        # By way of JSON, whose rules let a list be a tuple while numbers and strings stay strict.
        return kind.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as invalid:
        problems = invalid.errors(include_url=False)
        first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise error(f"{key}: {first['msg']}{more}", where=path, todo=_hint(kind, first)) from None


def read_json(kind: type[Model], path: Path, error: type[SlmcError], what: str) -> Model:
    """A JSON file of ours. Raises `error` where it is not `what`, such as "a compiled model"."""
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise error(f"not {what}: {problem}", where=path) from None
    return parse(kind, raw, path, error)


def write_json(model: BaseModel, path: Path) -> None:
    """The same model, the same bytes."""
    path.write_text(model.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _hint(kind: type[BaseModel], problem: ErrorDetails) -> str | None:
    """For an unknown key: the closest key that exists at that place."""
    if problem["type"] != "extra_forbidden":
        return None
    known = _keys_at(kind.model_json_schema(), problem["loc"][:-1])
    return did_you_mean(str(problem["loc"][-1]), known)


def _keys_at(schema: dict[str, object], place: tuple[int | str, ...]) -> set[str]:
    """Keys allowed at a place of a JSON Schema, following references and alternatives."""
    definitions = schema.get("$defs", {})
    nodes = [schema]
    for part in (*place, None):
        nodes = [found for node in nodes for found in _resolved(node, definitions)]
        if part is not None:
            nodes = [inner for node in nodes for inner in _step(node, part)] or nodes
    return {key for node in nodes for key in _mapping(node.get("properties"))}


def _resolved(node: dict[str, object], definitions: object) -> list[dict[str, object]]:
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = _mapping(definitions).get(reference.rsplit("/", 1)[-1])
        return _resolved(_mapping(target), definitions)
    for key in ("anyOf", "oneOf"):
        choices = node.get(key)
        if isinstance(choices, list):
            return [found for choice in choices for found in _resolved(choice, definitions)]
    return [node]


def _step(node: dict[str, object], part: int | str) -> list[dict[str, object]]:
    inner = _mapping(node.get("properties")).get(str(part))
    return [_mapping(found) for found in (inner, node.get("additionalProperties")) if isinstance(found, dict)][:1]


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
