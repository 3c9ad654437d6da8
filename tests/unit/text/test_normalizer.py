"""What tokenizer.json may say of a normalizer; that its steps do what the library does is for tests/build."""

from __future__ import annotations

import struct
import unicodedata

import pytest

from slmc.errors import CheckpointError, CompileError
from slmc.text.characters import every_character
from slmc.text.normalizer import Bytes, Form, Map, Prepend, Replace, Strip, compile_normalizer, form, steps_bytes

STRIP = {"type": "Strip", "strip_left": True, "strip_right": False}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}


def replace(**pattern: object) -> dict[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": "▁"}


def test_none_does_nothing() -> None:
    assert compile_normalizer(None) == ()
    assert steps_bytes(()) == bytes(4)


def test_sequences_are_taken_apart_in_order() -> None:
    inner = {"type": "Sequence", "normalizers": [replace(String=" "), STRIP]}
    node = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, inner, replace(String="a")]}
    steps = (Prepend("▁"), Replace(" ", "▁"), Strip(left=True, right=False), Replace("a", "▁"))
    assert compile_normalizer(node) == steps


def test_a_deep_sequence_is_taken_apart() -> None:
    node: dict[str, object] = STRIP
    for _ in range(2000):
        node = {"type": "Sequence", "normalizers": [node]}
    assert len(compile_normalizer(node)) == 1


REFUSED = {
    "Precompiled": {"type": "Precompiled", "precompiled_charsmap": ""},
    "Lowercas": {"type": "Lowercas"},
    "Replace' with a regular expression": replace(Regex="a+"),
    "Replace' of nothing": replace(String=""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_compiled_is_refused_by_name(name: str) -> None:
    with pytest.raises(CompileError, match=f"normalizer '{name}.* can't be compiled") as refused:
        compile_normalizer({"type": "Sequence", "normalizers": [STRIP, REFUSED[name]]})
    assert refused.value.where is not None
    assert refused.value.where.startswith("tokenizer.json: normalizer.normalizers.1.")


DAMAGED: dict[str, tuple[dict[str, object], str]] = {
    "no type": ({}, "normalizer.type is missing"),
    "type is no string": ({"type": 1}, "normalizer.type is 1"),
    "unknown key": ({"type": "NFC", "form": "NFD"}, "NFC has no key 'form'"),
    "missing key": ({"type": "Strip", "strip_left": True}, "normalizer.strip_right is missing"),
    "a number for a flag": ({**STRIP, "strip_right": 1}, "normalizer.strip_right is 1"),
    "a flag for a text": ({"type": "Prepend", "prepend": True}, "normalizer.prepend is True"),
    "half of a pair": ({"type": "Prepend", "prepend": "\ud83d"}, r"normalizer.prepend is '\\ud83d'"),
    "null for a flag": ({**BERT, "lowercase": None}, "normalizer.lowercase is missing or null"),
    "a text for accents": ({**BERT, "strip_accents": "no"}, "normalizer.strip_accents is 'no'"),
    "two patterns": (replace(String="a", Regex="a"), "normalizer.pattern is {"),
    "no pattern": (replace(), "normalizer.pattern is {}"),
    "another pattern": (replace(Glob="a"), "normalizer.pattern is {"),
    "pattern is no string": (replace(String=1), "normalizer.pattern.String is 1"),
    "sequence of none": ({"type": "Sequence", "normalizers": None}, "normalizer.normalizers is missing or null"),
    "null in a sequence": ({"type": "Sequence", "normalizers": [None]}, "normalizer.normalizers.0 is missing or null"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_normalizer_is_told_by_its_key(fault: str) -> None:
    node, wanted = DAMAGED[fault]
    with pytest.raises(CheckpointError, match=wanted) as told:
        compile_normalizer(node)
    assert "tokenizer.json: normalizer" in str(told.value)


def test_bert_strips_accents_as_it_lowers_unless_told() -> None:
    def kinds(**change: object) -> list[type]:
        return [type(step) for step in compile_normalizer({**BERT, **change})]

    assert kinds() == kinds(strip_accents=True) == kinds(strip_accents=True, lowercase=False) == [Map, Form, Map]
    assert kinds(strip_accents=False) == [Map, Map]
    assert kinds(lowercase=False) == kinds(strip_accents=None, lowercase=False) == [Map]
    assert kinds(clean_text=False, handle_chinese_chars=False, lowercase=False) == []


def test_forms_agree_with_another_reading_of_unicode() -> None:
    """Python's own, for the characters that both know; NFC fits in 60 KB."""
    found = form("NFC")
    for character, text in found.texts.items():
        assert unicodedata.normalize("NFD", character) in (text, character)
    pairs = [unicodedata.normalize("NFC", first + second) for first, second in found.pairs]
    assert pairs == list(found.pairs.values())
    marks = sorted((mark for mark in found.classes if unicodedata.combining(mark)), key=found.classes.__getitem__)
    assert len(marks) > 800
    assert marks == sorted(marks, key=unicodedata.combining)
    assert len(found.to_bytes()) < 60_000


def test_bytes_have_the_alphabet_of_byte_level_vocabularies() -> None:
    [step] = compile_normalizer({"type": "ByteLevel"})
    assert isinstance(step, Bytes)
    assert [step.alphabet[byte] for byte in b"\n !a~\xc3\xa9\xf4"] == list("ĊĠ!a~Ã©ô")
    assert len(set(step.alphabet)) > 240


def test_a_step_is_its_kind_its_size_and_its_payload() -> None:
    step = Replace(" ", "▁")
    assert step.to_bytes() == b"\1\0\0\0 \xe2\x96\x81"
    assert steps_bytes((step, Prepend("a"))) == struct.pack("<III8sIIs3x", 2, 4, 8, step.to_bytes(), 2, 1, b"a")


def test_a_map_names_no_character_that_stays() -> None:
    [lower] = compile_normalizer({"type": "Lowercase"})
    assert isinstance(lower, Map)
    assert "a" not in lower.texts
    assert lower.texts["A"] == "a"
    assert set(lower.texts) < set(every_character())
