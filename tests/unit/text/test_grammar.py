"""The language of a schema: all that fits, as it is written, and nothing else; and the tokens that spell it."""

from __future__ import annotations

import json
import re
import struct
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slmc.errors import CompileError
from slmc.text.automaton import DEAD, START, ByteAutomaton
from slmc.text.grammar import compile_schema, grammar_bytes
from slmc.text.sections import Section
from slmc.text.tables import strings_bytes
from slmc.text.token_masks import Spelled, token_masks
from slmc.text.tokenizer import compile_tokenizer

from ...json_schemas import BOOKING, ORDER, SCHEMAS, VALUES, fits, fitting, written
from ...tokenizer_kinds import KINDS

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def random_text(automaton: ByteAutomaton, random: Random) -> bytes:
    """A walk that comes to an end."""
    away = _away(automaton)
    state, text = START, bytearray()
    while not automaton.accepting[state] or (random.random() < 0.7 and automaton.next[state].any()):
        ways = np.flatnonzero(automaton.next[state])
        if len(text) > 30:
            ways = ways[away[automaton.next[state, ways]] < away[state]]
        text.append(byte := int(random.choice(ways)))
        state = int(automaton.next[state, byte])
    return bytes(text)


def _away(automaton: ByteAutomaton) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many bytes each state is from where a text may end."""
    away = np.where(automaton.accepting, 0, 1 << 30)
    away[DEAD] = 1 << 30
    while (nearer := np.minimum(away, 1 + away[automaton.next].min(axis=1)) < away).any():
        away[nearer] = 1 + away[automaton.next[nearer]].min(axis=1)
    return away


@SLOW
@given(st.data())
def test_what_fits_is_accepted_and_nothing_else(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    automaton = compile_schema(schema)
    for value in (data.draw(fitting(schema)), data.draw(VALUES)):
        text = written(value)
        exponent = any("e" in part for part in text.replace("true", "").replace("false", "").split('"')[::2])
        if not exponent:  # an exponent is written with a sign, or not at all
            assert automaton.accepts(text.encode()) == fits(schema, value), text
        spaced = json.dumps(value, ensure_ascii=False, sort_keys=True)
        if spaced != text and not isinstance(value, str):
            assert not automaton.accepts(spaced.encode())


@SLOW
@given(SCHEMAS | st.sampled_from([BOOKING, ORDER]), st.randoms())
def test_what_is_accepted_fits_and_is_written_so(schema: dict[str, Any], random: Random) -> None:
    automaton = compile_schema(schema, ": ")
    for _ in range(20):
        text = random_text(automaton, random).decode()
        assert text.startswith(": ")
        assert fits(schema, json.loads(text[2:])), text
        as_read = json.loads(text[2:], parse_float=kept, parse_int=kept)
        assert re.sub(f'"{MARK}([^"]*)"', r"\1", written(as_read)) == text[2:]


MARK = "\ue000\ue001"


def kept(number: str) -> str:
    """Numbers such as 1.50 and -0 fit, though json.dumps writes them otherwise."""
    return MARK + number


def test_slots_in_the_order_of_their_names() -> None:
    automaton = compile_schema(BOOKING)
    for text in ("{}", '{"date":"August 23rd","people":"9 people"}', '{"time":"½ \\"7\\"\\n\\u001f"}'):
        assert automaton.accepts(text.encode())
    for text in (
        '{"time":"7","date":"a"}',
        '{"date": "a"}',
        '{"Date":"a"}',
        '{"date":"a",}',
        '{"date":"\\/"}',
        "{} ",
        "",
    ):
        assert not automaton.accepts(text.encode())


REFUSED: dict[str, tuple[dict[str, Any] | list[Any], str]] = {
    "a bound on numbers": ({"type": "integer", "minimum": 3}, "'minimum'"),
    "allOf": ({"allOf": [{"type": "null"}]}, "none of"),
    "oneOf beside type": ({"type": "string", "oneOf": []}, "'oneOf'"),
    "not": ({"type": "null", "not": {}}, "'not'"),
    "anything": ({}, "none of"),
    "not a schema": ([], "says nothing"),
    "true": ({"type": "object", "properties": {"a": True}}, "True says nothing"),
    "an object of anything": ({"type": "object"}, "without properties"),
    "other properties": (
        {"type": "object", "properties": {}, "additionalProperties": {"type": "null"}},
        "additionalProp",
    ),
    "patterns of names": ({"type": "object", "properties": {}, "patternProperties": {}}, "'patternProperties'"),
    "what is required and not there": ({"type": "object", "properties": {}, "required": ["a"]}, "required 'a'"),
    "a name with a quote": ({"type": "object", "properties": {'"': {"type": "null"}}}, "escapes"),
    "an array of anything": ({"type": "array"}, "without items"),
    "no two alike": ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "'uniqueItems'"),
    "more repeats than there is room for": ({"type": "string", "maxLength": 10**6}, "maxLength"),
    "bounds the wrong way": ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength is more"),
    "another format": ({"type": "string", "format": "email"}, "format 'email'"),
    "format and length": ({"type": "string", "format": "date", "maxLength": 3}, "together"),
    "a search": ({"type": "string", "pattern": "a"}, "pattern 'a'"),
    "a pattern of quotes": ({"type": "string", "pattern": "^.*$"}, "can match"),
    "a pattern of escapes": ({"type": "string", "pattern": r"^\\d$"}, "can match"),
    "an anchor inside": ({"type": "string", "pattern": "^a^b$"}, "an anchor"),
    "an unknown type": ({"type": "text"}, "type 'text'"),
    "no type": ({"type": []}, "[]"),
    "no value": ({"enum": []}, "[]"),
    "a value of another type": ({"enum": ["a", True], "type": ["string", "integer"]}, "True is not"),
    "a number with an exponent": ({"const": 1e300}, "1e+300"),
    "a number of more than 64 bits": ({"enum": [{"a": [2**64]}]}, str(2**64)),
    "half a character": ({"const": "\ud800"}, "regular expression"),
    "itself": ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
    "another file": ({"$ref": "other.json"}, "other.json"),
    "nowhere": ({"$ref": "#/$defs/a"}, "nowhere"),
    "more states than there is room for": (
        {"type": "array", "items": {"type": "string", "maxLength": 999}, "maxItems": 999},
        "more than",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_grammar_is_refused_by_its_name(case: str) -> None:
    schema, said = REFUSED[case]
    with pytest.raises(CompileError) as refused:
        compile_schema(schema)  # type: ignore[arg-type]
    assert said in str(refused.value)


# ---- Tokens ----------------------------------------------------------------------------------------------------------


def compiled(tmp_path: Path, kind: str) -> dict[Section, bytes]:
    path = tmp_path / "tokenizer.json"
    KINDS[kind]().save(str(path))
    return dict(compile_tokenizer(path))


def ids_of(mask: bytes) -> list[int]:
    return np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")).tolist()


@pytest.mark.parametrize("kind", ["gemma", "unigram_bytes"])
def test_masks_are_those_found_one_by_one(kind: str, tmp_path: Path) -> None:
    automaton = compile_schema({"type": "object", "properties": {"a": {"type": ["string", "null"]}}})
    spelled = Spelled.of(compiled(tmp_path, kind), "", 1)
    masks, table = token_masks(automaton, spelled), automaton.next.tolist()

    def after(state: int, piece: bytes) -> int:
        for byte in piece:
            state = table[state][byte]
        return state if piece else DEAD

    assert START in masks
    for state, mask in masks.items():
        found = {id: after(state, piece) for id, piece in enumerate(spelled.later)}
        if state == START:
            found = {id: after(state, piece) for id, piece in enumerate(spelled.first)}
        assert ids_of(mask) == [id for id, to in found.items() if to != DEAD]
        assert {to for to in found.values() if to != DEAD} <= set(masks)


def spelled(*pieces: bytes, first: list[bytes] | None = None, prefix: str = "") -> Spelled:
    return Spelled([b"", *pieces], [b"", *(pieces if first is None else first)], prefix.encode())


def test_tokens_that_lead_to_no_end_are_left_out() -> None:
    """No token closes "c"."""
    pieces = spelled(b'"a', b'b"', b'"c')
    masks = token_masks(compile_schema({"enum": ["ab", "c"]}), pieces)
    assert sorted(map(ids_of, masks.values())) == [[], [1], [2]]


def test_a_vocabulary_that_spells_no_answer_is_refused() -> None:
    with pytest.raises(CompileError, match="no tokens"):
        token_masks(compile_schema({"enum": ["ab"]}), spelled(b'"', b"a"))


def test_a_first_token_may_lose_what_belongs_to_the_prefix() -> None:
    pieces = spelled(b" {", b"{", b"}", b" ", first=[b"{", b"{", b"}", b""], prefix=" ")
    empty = {"type": "object", "properties": {}}
    assert ids_of(token_masks(compile_schema(empty, " "), pieces)[START]) == [1, 4]
    bare = Spelled(pieces.later, pieces.first, b"")
    assert ids_of(token_masks(compile_schema(empty), bare)[START]) == [1, 2]


def test_a_first_token_may_not_lose_what_belongs_to_the_answer() -> None:
    """A decoder that drops every mark of a first token."""
    pieces = spelled(b'" ', b'"', b'a"', first=[b'"', b'"', b'a"'])
    assert ids_of(token_masks(compile_schema({"enum": [" a", "a"]}), pieces)[START]) == [2]


def test_special_tokens_and_the_end_are_in_no_mask() -> None:
    tokenizer = {
        Section.TOKENS: strings_bytes([b"null", b"null", b"null", b""]),
        Section.SPELLING: struct.pack("<III", 1, 32, 0) + bytes([0, 1, 0, 4]),
    }
    masks = token_masks(compile_schema({"type": "null"}), Spelled.of(tokenizer, "", 2))
    assert ids_of(masks[START]) == [0]


@cache
def order(prefix: str) -> ByteAutomaton:
    return compile_schema(ORDER, prefix)


@pytest.mark.parametrize("kind", ["llama3", "qwen", "llama2", "gemma", "mistral"])
@pytest.mark.parametrize("prefix", ["", " ", "\n"])
def test_the_tokenizers_own_ids_of_an_answer_are_allowed(kind: str, prefix: str, tmp_path: Path) -> None:
    """As they follow a prompt that ends with a letter."""
    automaton, pieces = order(prefix), Spelled.of(compiled(tmp_path, kind), prefix, 1)
    masks, library = token_masks(automaton, pieces), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    answer = {"code": "x-7", "count": -12, "items": [{"kind": 'süß "é"\n', "name": "漢😀"}], "paid": None, "price": 1.5}
    before = library.encode("a", add_special_tokens=False).ids
    ids = library.encode("a" + prefix + written(answer), add_special_tokens=False).ids
    assert ids[: len(before)] == before
    state = START
    for id in ids[len(before) :]:
        assert id in ids_of(masks[state])
        for byte in pieces.later[id]:
            state = int(automaton.next[state, byte])
    assert automaton.accepting[state]


def test_the_same_schema_gives_the_same_bytes(tmp_path: Path) -> None:
    tokenizer = compiled(tmp_path, "llama3")
    made = grammar_bytes(BOOKING, " ", 1, tokenizer)
    assert made == grammar_bytes(BOOKING, " ", 1, tokenizer)
    states, classes, tokens, masks, words = struct.unpack_from("<5I", made)
    assert len(made) == 20 + 256 + 8 * masks + 4 * (states + words) + -(-states * classes * 2 // 4) * 4
    assert tokens == len(Spelled.of(tokenizer, "", 1).later)
