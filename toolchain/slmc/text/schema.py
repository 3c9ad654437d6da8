"""JSON Schema to a regular expression of the answers that fit it, written as a recipe's expected answers are.

That is `json.dumps(answer, ensure_ascii=False, sort_keys=True, separators=(",", ":"))`: no white space, an object's
properties in the order of their names, only the escapes that it writes. The expression is that of `outlines-core`. It
passes over keywords that it can't express, and takes names and patterns as they are; so what goes in is checked here
first, keyword by keyword, and whatever would make an answer that is no JSON or doesn't fit is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slmc.errors import CompileError
from slmc.text import regex

Schema = Mapping[str, Any]

_SAYS_NOTHING = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated")
)
_OF_TYPE = {
    "null": frozenset[str](),
    "boolean": frozenset[str](),
    "integer": frozenset[str](),
    "number": frozenset[str](),
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "array": frozenset(("items", "minItems", "maxItems")),
    "object": frozenset(("properties", "required", "additionalProperties")),
}
_FORMS = ("$ref", "anyOf", "const", "enum", "type")
"""What a schema says first of all; of these it has one, and a type besides const or enum."""
_FORMATS = ("date", "uuid")
"""Those of the library whose texts are JSON strings as they stand, and fit."""
_MOST = 1000
"""Of repeats; an automaton of more has no room anyhow."""
_STRING_INNER = r'([^"\\\x00-\x1F]|\\["\\bfnrt]|\\u00(0[0-7bef]|1[0-9a-f]))'
"""One character of a string as json.dumps writes it."""


def schema_regex(schema: Schema) -> str:
    """An expression, as slmc.text.regex reads them, of all answers. Raises CompileError naming the keyword."""
    from outlines_core import json_schema

    plain = json.dumps(_Checked(schema).plain(schema, "#", ()))
    try:
        made: str = json_schema.build_regex_from_schema(plain, whitespace_pattern="")
    except (ValueError, TypeError) as error:
        raise CompileError(f"the JSON Schema has no regular expression: {error}") from None
    return made.replace(json_schema.STRING_INNER, _STRING_INNER)


class _Checked:
    """A schema as the library understands it: references put in, annotations left out, properties in order."""

    def __init__(self, root: Schema) -> None:
        self.root = root

    def plain(self, schema: object, where: str, through: tuple[str, ...]) -> dict[str, Any]:
        """`where` is the schema's place in the file, `through` the references on the way there."""
        if not isinstance(schema, Mapping):
            raise _refused(where, f"{schema!r} says nothing", expected="an object")
        said = {key: value for key, value in schema.items() if key not in _SAYS_NOTHING}
        form = next((form for form in _FORMS if form in said), None)
        if form is None:
            raise _refused(where, f"none of {', '.join(_FORMS)}, so that any value would fit")
        if form == "$ref":
            return self.referred(_only(said, form, where), where, through)
        if form == "anyOf":
            options = _array(_only(said, form, where), f"{where}/anyOf")
            places = [f"{where}/anyOf/{number}" for number in range(len(options))]
            return {form: [self.plain(*option, through) for option in zip(options, places, strict=True)]}
        if form in ("const", "enum"):
            return _fixed(said, form, where)
        return self.typed(said, where, through)

    def referred(self, reference: object, where: str, through: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _refused(where, f"$ref {reference!r}", expected="a place in the same file, such as #/$defs/name")
        if reference in through:
            raise _refused(where, f"$ref {reference!r} comes back to itself")
        found: object = self.root
        for key in reference.removeprefix("#/").split("/"):
            name = key.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise _refused(where, f"$ref {reference!r} leads nowhere")
            found = found[name]
        return self.plain(found, reference, (*through, reference))

    def typed(self, said: dict[str, Any], where: str, through: tuple[str, ...]) -> dict[str, Any]:
        kinds = [said["type"]] if isinstance(said["type"], str) else _array(said["type"], f"{where}/type")
        for kind in kinds:
            if kind not in _OF_TYPE:
                raise _refused(where, f"type {kind!r}", expected=", ".join(_OF_TYPE))
        if kinds == ["integer", "number"] or kinds == ["number", "integer"]:
            kinds = ["number"]
        _check_keys(said, frozenset(("type",)).union(*(_OF_TYPE[kind] for kind in kinds)), where)
        made: dict[str, Any] = {"type": kinds if len(kinds) > 1 else kinds[0]}
        if "string" in kinds:
            made |= _string(said, where)
        if "array" in kinds:
            if "items" not in said:
                raise _refused(where, "an array without items, so that anything could be in it")
            made["items"] = self.plain(said["items"], f"{where}/items", through)
            made |= _counts(said, "minItems", "maxItems", where)
        return made | (self.object(said, where, through) if "object" in kinds else {})

    def object(self, said: dict[str, Any], where: str, through: tuple[str, ...]) -> dict[str, Any]:
        """More properties than those named are never written, whatever additionalProperties allows."""
        properties, required = said.get("properties"), said.get("required", [])
        if not isinstance(properties, Mapping):
            raise _refused(where, "an object without properties, so that anything could be in it")
        if isinstance(said.get("additionalProperties", False), Mapping):
            raise _refused(where, "additionalProperties with a schema", expected="true or false")
        for name in _array(required, f"{where}/required", least=0):
            if name not in properties:
                raise _refused(where, f"required {name!r} is none of its properties")
        for name in properties:
            if json.dumps(name, ensure_ascii=False) != f'"{name}"':
                raise _refused(where, f"a property {name!r}, which JSON writes with escapes")
        made = {
            name: self.plain(properties[name], f"{where}/properties/{name}", through) for name in sorted(properties)
        }
        return {"properties": made, "required": list(required)}


def _fixed(said: dict[str, Any], form: str, where: str) -> dict[str, Any]:
    _check_keys(said, frozenset((form, "type")), where)
    values = [said[form]] if form == "const" else _array(said[form], f"{where}/enum")
    kinds = said.get("type")
    wanted = None if kinds is None else [kinds] if isinstance(kinds, str) else kinds
    for value in values:
        if wanted is not None and not set(_types(value)) & set(wanted):
            raise _refused(where, f"{value!r} is not of type {kinds!r}")
        _check_numbers(value, where)
    return {"enum": json.loads(json.dumps(values, sort_keys=True))}


def _types(value: object) -> Sequence[str]:
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, int):
        return ("integer", "number")
    names = {float: "number", str: "string", list: "array", dict: "object"}
    return (names.get(type(value), "null"),)


def _check_numbers(value: object, where: str) -> None:
    """Python and the library write these the same."""
    if isinstance(value, float) and not (value == value and "e" not in repr(value) and "inf" not in repr(value)):
        raise _refused(where, f"the number {value!r}", expected="one that is written without an exponent")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise _refused(where, f"the number {value!r}", expected="one of 64 bits")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inside:
        _check_numbers(one, where)


def _string(said: dict[str, Any], where: str) -> dict[str, Any]:
    given = [key for key in ("pattern", "format", "minLength", "maxLength") if key in said]
    if ("pattern" in given or "format" in given) and len(given) > 1:
        raise _refused(where, f"{' and '.join(given)} together", expected="one of them")
    if "format" in said and said["format"] not in _FORMATS:
        raise _refused(where, f"format {said['format']!r}", expected=" or ".join(_FORMATS))
    if "pattern" in said:
        return {"pattern": _pattern(said["pattern"], f"{where}/pattern")}
    return {"format": said["format"]} if "format" in said else _counts(said, "minLength", "maxLength", where)


def _pattern(pattern: object, where: str) -> str:
    """In a group, as the library would let | reach beyond the string's quotes."""
    if not isinstance(pattern, str) or pattern[:1] != "^" or pattern[-1:] != "$" or pattern[-2:-1] == "\\":
        raise _refused(where, f"the pattern {pattern!r}", expected="one for the whole string: ^...$")
    inner = pattern[1:-1]
    for node in regex.walk(regex.parse(inner)):
        leaf = node if isinstance(node, regex.Leaf) else None
        if leaf and regex.members(leaf)[np.array([*range(0x20), ord('"'), ord("\\")])].any():
            what = f'{leaf.expression!r} can match ", \\ or a control character, which JSON writes as escapes'
            raise _refused(where, what)
    return f"^(?:{inner})$"


def _counts(said: dict[str, Any], low: str, high: str, where: str) -> dict[str, int]:
    found = {key: said[key] for key in (low, high) if key in said}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise _refused(where, f"{key} {value!r}", expected=f"a number from 0 to {_MOST}")
    if found.get(low, 0) > found.get(high, _MOST):
        raise _refused(where, f"{low} is more than {high}")
    return found


def _only(said: dict[str, Any], form: str, where: str) -> object:
    _check_keys(said, frozenset((form,)), where)
    return said[form]


def _array(value: object, where: str, least: int = 1) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise _refused(where, f"{value!r}", expected="an array" if least == 0 else "an array that is not empty")
    return value


def _check_keys(said: dict[str, Any], known: frozenset[str], where: str) -> None:
    for key in said:
        if key not in known:
            raise _refused(where, f"the keyword {key!r}", expected=", ".join(sorted(known)))


def _refused(where: str, what: str, *, expected: str | None = None) -> CompileError:
    return CompileError(f"the JSON Schema can't be compiled: {what}", where=where, expected=expected)
