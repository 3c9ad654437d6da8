"""The normalizers of tokenizer.json, compiled into tables that native/normalize.c reads.

What becomes of a character (its lower case, its decomposition, its combining class) is for the `tokenizers` library
itself to say: it is asked with every character there is. So a compiled normalizer can't differ from it by another
version of Unicode.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import pairwise
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from tokenizers import normalizers

from slmc.errors import CheckpointError, CompileError, did_you_mean
from slmc.text.byte_level import alphabet
from slmc.text.characters import CODE_POINTS, every_character

PAGE = 128
MOST_PAGES = 256
MOST_TEXT = 254
NOT_ITSELF = 255

SYLLABLES = range(0xAC00, 0xD7A4)
VOWELS, FINALS = range(0x1161, 0x1176), range(0x11A8, 0x11C3)
"""Hangul: native/normalize.c takes it apart and together by arithmetic, as no table needs to hold."""


class Kind(IntEnum):
    """What native/normalize.c calls a step."""

    MAP = 0
    FORM = 1
    PREPEND = 2
    STRIP = 3
    REPLACE = 4
    BYTES = 5


class Step(Protocol):
    """A part of a normalizer: text in, text out."""

    @property
    def kind(self) -> Kind: ...

    def to_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Map:
    """Each character becomes a text of its own; those not named stay as they are."""

    texts: Mapping[str, str]

    kind: ClassVar[Kind] = Kind.MAP

    def to_bytes(self) -> bytes:
        return _table_bytes({character: _map_entry(character, text) for character, text in self.texts.items()})


@dataclass(frozen=True)
class Form:
    """A normalization form of Unicode: NFD and NFKD, which have no pairs, NFC and NFKC."""

    texts: Mapping[str, str]
    """Full decompositions, but for Hangul."""
    classes: Mapping[str, int]
    """Marks by the order they are put in; a character that is not here is 0."""
    pairs: Mapping[tuple[str, str], str]
    """What two characters compose to, but for Hangul."""

    kind: ClassVar[Kind] = Kind.FORM

    def to_bytes(self) -> bytes:
        """A character with an entry is one that decomposes, moves, or may be the second of a pair."""
        entries = {character: _entry(0, text) for character, text in self.texts.items()}
        entries |= {second: _entry(0, "") for _, second in self.pairs}
        if self.pairs:
            entries |= {chr(code): _entry(0, "") for code in (*VOWELS, *FINALS)}
        entries |= {mark: _entry(order, "") for mark, order in self.classes.items()}
        triples = sorted((ord(first), ord(second), ord(whole)) for (first, second), whole in self.pairs.items())
        return _table_bytes(entries) + np.array(triples, "<u4").tobytes()


@dataclass(frozen=True)
class Prepend:
    """A text before any that is not empty."""

    text: str

    kind: ClassVar[Kind] = Kind.PREPEND

    def to_bytes(self) -> bytes:
        return self.text.encode()


@dataclass(frozen=True)
class Strip:
    """White space is taken from the ends."""

    left: bool
    right: bool

    kind: ClassVar[Kind] = Kind.STRIP

    def to_bytes(self) -> bytes:
        return struct.pack("<I", self.left | self.right << 1) + white_space().encode("utf-32-le")


@dataclass(frozen=True)
class Replace:
    """Every place of a pattern, from the left and not overlapping, becomes the content."""

    pattern: str
    content: str

    kind: ClassVar[Kind] = Kind.REPLACE

    def to_bytes(self) -> bytes:
        pattern = self.pattern.encode()
        return struct.pack("<I", len(pattern)) + pattern + self.content.encode()


@dataclass(frozen=True)
class Bytes:
    """Every byte becomes a character, one of 256."""

    alphabet: str

    kind: ClassVar[Kind] = Kind.BYTES

    def to_bytes(self) -> bytes:
        return self.alphabet.encode("utf-16-le")


def steps_bytes(steps: Sequence[Step]) -> bytes:
    """What slm_normalizer_open in native/normalize.h reads."""
    parts = [struct.pack("<I", len(steps))]
    for step in steps:
        payload = step.to_bytes()
        parts += [struct.pack("<II", step.kind, len(payload)), _padded(payload)]
    return b"".join(parts)


# ---- tokenizer.json ----------------------------------------------------------------------------------------------

Types: TypeAlias = tuple[type, ...]

KEYS: Mapping[str, Mapping[str, Types]] = {
    "BertNormalizer": {
        "clean_text": (bool,),
        "handle_chinese_chars": (bool,),
        "strip_accents": (bool, type(None)),
        "lowercase": (bool,),
    },
    "ByteLevel": {},
    "Lowercase": {},
    "NFC": {},
    "NFD": {},
    "NFKC": {},
    "NFKD": {},
    "Nmt": {},
    "Prepend": {"prepend": (str,)},
    "Replace": {"pattern": (dict,), "content": (str,)},
    "Sequence": {"normalizers": (list,)},
    "Strip": {"strip_left": (bool,), "strip_right": (bool,)},
    "StripAccents": {},
}
"""The normalizers that can be compiled: each key that it has, and the types of its value."""

NAMES = {bool: "true or false", str: "a string", dict: "an object", list: "a list", type(None): "null"}


def compile_normalizer(node: Mapping[str, object] | None) -> tuple[Step, ...]:
    """The steps of tokenizer.json's "normalizer". Raises CheckpointError where it is none, and CompileError where it
    is one that can't be compiled."""
    steps: list[Step] = []
    waiting: list[tuple[str, object]] = [] if node is None else [("normalizer", node)]
    while waiting:
        place, inner = waiting.pop()
        found = _checked(inner, place)
        match found:
            case {"type": "Sequence", "normalizers": list(parts)}:
                waiting += reversed([(f"{place}.normalizers.{i}", part) for i, part in enumerate(parts)])
            case _:
                steps += _steps(found, place)
    return tuple(steps)


def _checked(node: object, place: str) -> dict[str, object]:
    """An object of a type that can be compiled, with its keys and no others."""
    if not isinstance(node, dict):
        raise _bad(place, node, "an object")
    kind = node.get("type")
    if not isinstance(kind, str):
        raise _bad(f"{place}.type", kind, "a string")
    if kind not in KEYS:
        expected = f"one of {', '.join(KEYS)}"
        raise CompileError(f"normalizer {kind!r} can't be compiled", where=_where(f"{place}.type"), expected=expected)
    for key in node.keys() - KEYS[kind].keys() - {"type"}:
        raise CheckpointError(
            f"{kind} has no key {key!r}", where=_where(f"{place}.{key}"), todo=did_you_mean(key, KEYS[kind])
        )
    for key, types in KEYS[kind].items():
        _check_value(node.get(key), f"{place}.{key}", types)
    return node


def _check_value(value: object, place: str, types: Types) -> None:
    if type(value) not in types:
        raise _bad(place, value, " or ".join(NAMES[known] for known in types))
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise _bad(place, value, "a string without halves of surrogate pairs")


def _bad(place: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{place} is {'missing or null' if value is None else repr(value)}", where=_where(place), expected=expected
    )


def _where(place: str) -> str:
    return f"tokenizer.json: {place}"


def _steps(node: Mapping[str, object], place: str) -> Iterator[Step]:
    """Of any normalizer but a sequence; its keys have been checked."""
    match node:
        case {"type": "NFC" | "NFD" | "NFKC" | "NFKD" as name}:
            yield form(str(name))
        case {"type": "Lowercase" | "Nmt" | "StripAccents" as name}:
            yield Map(_changed(str(name)))
        case {"type": "ByteLevel"}:
            yield Bytes(alphabet())
        case {"type": "Prepend", "prepend": str(text)}:
            yield Prepend(text)
        case {"type": "Strip"}:
            yield Strip(left=node["strip_left"] is True, right=node["strip_right"] is True)
        case {"type": "Replace", "pattern": dict(pattern), "content": str(content)}:
            yield Replace(_literal(pattern, f"{place}.pattern"), content)
        case {"type": "BertNormalizer"}:
            yield from _bert(node)


def _literal(pattern: Mapping[str, object], place: str) -> str:
    if pattern.keys() == {"Regex"}:
        raise CompileError(
            "normalizer 'Replace' with a regular expression can't be compiled", where=_where(f"{place}.Regex")
        )
    if pattern.keys() != {"String"}:
        raise _bad(place, pattern, "an object with a single key, String or Regex")
    text = pattern["String"]
    _check_value(text, f"{place}.String", (str,))
    if not text:
        # The library would put the content between any two characters, which nobody means.
        raise CompileError("normalizer 'Replace' of nothing can't be compiled", where=_where(f"{place}.String"))
    return str(text)


def _bert(node: Mapping[str, object]) -> Iterator[Step]:
    clean, spaced = node["clean_text"] is True, node["handle_chinese_chars"] is True
    lowercase, accents = node["lowercase"] is True, node.get("strip_accents")
    if clean or spaced:
        yield Map(_changed("BertNormalizer", clean, spaced, False, False))
    if lowercase if accents is None else accents:
        yield form("NFD")
        changed = _changed("BertNormalizer", False, False, True, lowercase)
        # The library decomposes first; what is left for a map are characters that don't.
        yield Map({character: text for character, text in changed.items() if not _decomposes(character)})
    elif lowercase:
        yield Map(_changed("Lowercase"))


# ---- What the library says ---------------------------------------------------------------------------------------

SEPARATOR = "!#"
"""Between texts that are asked about at once: no normalizer changes, makes or combines these characters, and they
differ, so that the first place after a text is where the text ends."""

AT_ONCE = 1 << 14


def _ask(normalizer: normalizers.Normalizer, texts: Sequence[str]) -> Iterator[str]:
    """What each text becomes."""
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        joined = SEPARATOR.join(["", *some, ""])
        yield from normalizer.normalize_str(joined).split(SEPARATOR)[1:-1]


@cache
def _changed(name: str, *arguments: bool) -> Mapping[str, str]:
    """The characters that a normalizer changes, each with what it becomes when alone."""
    normalizer = getattr(normalizers, name)(*arguments)
    characters = every_character()
    return {c: text for c, text in zip(characters, _ask(normalizer, characters), strict=True) if c != text}


def _decomposes(character: str) -> bool:
    return character in _changed("NFD")


def _no_syllables(texts: Mapping[str, str]) -> dict[str, str]:
    return {character: text for character, text in texts.items() if ord(character) not in SYLLABLES}


@cache
def form(name: str) -> Form:
    """The tables of NFC, NFD, NFKC or NFKD."""
    decomposed = {"NFC": "NFD", "NFKC": "NFKD"}.get(name, name)
    return Form(_no_syllables(_changed(decomposed)), _classes(), {} if name == decomposed else _pairs())


@cache
def _classes() -> Mapping[str, int]:
    """Characters of a combining class other than 0, each with its class's place among all classes, from 1."""
    lower, higher = "\u0334", "\u0345"  # two marks that change places, where only marks are between them
    texts = [higher + character + lower for character in every_character()]
    swapped = zip(every_character(), texts, _ask(normalizers.NFD(), texts), strict=True)
    marks = [mark for mark, text, found in swapped if text != found and not _decomposes(mark)]
    ordered = normalizers.NFD().normalize_str("".join(marks))
    back = [second + first for first, second in pairwise(ordered)]
    steps = [text != found for text, found in zip(back, _ask(normalizers.NFD(), back), strict=True)]
    return dict(zip(ordered, np.cumsum([1, *steps]).tolist(), strict=True))


@cache
def _pairs() -> Mapping[tuple[str, str], str]:
    decomposed = _no_syllables(_changed("NFD"))
    composed = zip(decomposed.items(), _ask(normalizers.NFC(), list(decomposed)), strict=True)
    wholes = {whole: text for (whole, text), found in composed if whole == found}
    firsts = _ask(normalizers.NFC(), [text[:-1] for text in wholes.values()])
    return {(first, text[-1]): whole for (whole, text), first in zip(wholes.items(), firsts, strict=True)}


@cache
def white_space() -> str:
    """The characters that Strip takes."""
    strip = normalizers.Strip().normalize_str
    return "".join(character for character in every_character() if not strip(character))


# ---- Bytes -------------------------------------------------------------------------------------------------------


def _entry(note: int, text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) <= MOST_TEXT
    return bytes([len(encoded), note]) + encoded


def _map_entry(character: str, text: str) -> bytes:
    """With the place of the character within its own text: so all that get spaces around them share an entry."""
    before, itself, after = text.partition(character)
    return _entry(len(before.encode()) if itself else NOT_ITSELF, before + after)


def _table_bytes(entries: Mapping[str, bytes]) -> bytes:
    """A table of native/normalize.c: for every character the place of its entry, equal pages and entries once.

    A character without an entry has place 0, where no entry is.
    """
    places, end = dict.fromkeys(entries.values(), 0), 1
    for entry in places:
        places[entry], end = end, end + len(entry)
    values = np.zeros(CODE_POINTS, "<u2")
    assert end <= 1 << 16
    values[_code_points(entries)] = [places[entry] for entry in entries.values()]
    pages: dict[bytes, int] = {}
    page_of = [pages.setdefault(page.tobytes(), len(pages)) for page in values.reshape(-1, PAGE)]
    assert len(pages) <= MOST_PAGES
    head = struct.pack("<II", len(pages), end) + bytes(page_of)
    return head + b"".join(pages) + _padded(b"\0" + b"".join(places))


def _code_points(characters: Iterable[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(map(ord, characters), np.int64)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
