"""Random JSON Schemas of the kind that extract tasks have, and what fits them, told without slmc."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

SLOTS = ("date", "first_name", "last_name", "people", "time")
"""Of Restaurant-8k."""
BOOKING: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Booking",
    "type": "object",
    "properties": {name: {"type": "string", "description": f"the {name}"} for name in reversed(SLOTS)},
    "additionalProperties": False,
}
ORDER: dict[str, Any] = {
    "$defs": {"kind": {"enum": ["food", "drink", None, 'süß "é"\n']}},
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 3}, "kind": {"$ref": "#/$defs/kind"}},
                "required": ["kind"],
            },
        },
        "count": {"type": "integer"},
        "price": {"anyOf": [{"type": "number"}, {"const": "free"}]},
        "paid": {"type": ["boolean", "null"]},
        "code": {"type": "string", "pattern": "^[a-z]{2}|x-[0-9]+$"},
    },
    "required": ["count", "items"],
}
TEXTS = st.text(st.sampled_from('ab é\n"\\/\t\x00\x1f\x7f漢😀')) | st.text(max_size=4)
NUMBERS = st.integers(-1000, 10**12) | st.floats(-1e6, 1e6, allow_nan=False)
NAMES = st.sampled_from(["a", "b", "date", "last_name", "größe", "x y"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=5,
)


def written(value: object) -> str:
    """As a recipe's expected answers are."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _objects(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def made(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        required = st.just([]) if not properties else st.lists(st.sampled_from(sorted(properties)), unique=True)
        return st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.just(properties), "required": required}
        )

    return st.dictionaries(NAMES, below, max_size=4).flatmap(made)


def _arrays(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    low, high = st.integers(0, 1), st.integers(1, 3)
    return st.fixed_dictionaries(
        {"type": st.just("array"), "items": below}, optional={"minItems": low, "maxItems": high}
    )


SCALARS = st.one_of(
    st.sampled_from(["null", "boolean", "integer", "number", "string"]).map(lambda kind: {"type": kind}),
    st.just({"type": ["string", "null"]}),
    st.fixed_dictionaries(
        {"type": st.just("string")}, optional={"minLength": st.integers(0, 2), "maxLength": st.integers(2, 4)}
    ),
    st.lists(st.none() | st.booleans() | st.integers(-9, 99) | TEXTS, min_size=1, max_size=4).map(
        lambda v: {"enum": v}
    ),
    TEXTS.map(lambda value: {"const": value}),
)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    SCALARS,
    lambda below: (
        _objects(below)
        | _arrays(below)
        | st.lists(below, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    ),
    max_leaves=5,
)


def fits(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether a value fits; of an object's properties only those that are named may be there."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return fits(root["$defs"][name], value, root)
    if "anyOf" in schema:
        return any(fits(option, value, root) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return any(_same(value, one) for one in schema.get("enum", [schema.get("const")]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(_is(schema, kind, value, root) for kind in kinds)


def _same(one: Any, other: Any) -> bool:
    return written(one) == written(other)


def _is(schema: dict[str, Any], kind: str, value: Any, root: dict[str, Any]) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        case "array":
            count = isinstance(value, list) and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
            return count and all(fits(schema["items"], one, root) for one in value)
    if not isinstance(value, dict) or not set(schema.get("required", ())) <= set(value) <= set(schema["properties"]):
        return False
    return all(fits(schema["properties"][name], one, root) for name, one in value.items())


def fitting(schema: dict[str, Any], root: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values that fit; not for $ref and patterns."""
    if "anyOf" in schema:
        return st.one_of([fitting(option) for option in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_fitting(schema, kind) for kind in kinds])


def _fitting(schema: dict[str, Any], kind: str) -> st.SearchStrategy[Any]:
    if kind == "string":
        low, high = schema.get("minLength", 0), schema.get("maxLength", 8)
        return st.text(st.sampled_from('ab é\n"\\/\x00\x7f漢😀'), min_size=low, max_size=high)
    if kind == "array":
        return st.lists(
            fitting(schema["items"]), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3)
        )
    if kind == "object":
        parts = {name: fitting(below) for name, below in schema["properties"].items()}
        required = schema.get("required", ())
        optional = {name: part for name, part in parts.items() if name not in required}
        return st.fixed_dictionaries({name: parts[name] for name in required}, optional=optional)
    scalars = {"null": st.none(), "boolean": st.booleans(), "integer": st.integers(), "number": NUMBERS}
    return scalars[kind]
