"""Sets of characters, as the `tokenizers` library itself knows them, and a small number for every character.

Which characters `\\p{L}` or `(?i:k)` are is for the library's own regex engine to say: it is asked with a string of
every character there is. So a compiled tokenizer can't differ from it by another version of Unicode.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
PAGE = 256

Members = NDArray[np.bool_]
"""Whether each character is in a set: bool [CODE_POINTS]; surrogates are in none."""


@cache
def every_character() -> str:
    """All characters in order: 0x110000 less the surrogates."""
    return "".join(map(chr, range(SURROGATES.start))) + "".join(map(chr, range(SURROGATES.stop, CODE_POINTS)))


@cache
def members(expression: str) -> Members:
    """The characters that a regular expression for one character matches."""
    left = normalizers.Replace(Regex(expression), "").normalize_str(every_character())
    inside = np.ones(CODE_POINTS, bool)
    inside[SURROGATES.start : SURROGATES.stop] = False
    inside[np.frombuffer(left.encode("utf-32-le"), "<u4")] = False
    inside.setflags(write=False)
    return inside


def removed_by(splitter: pre_tokenizers.PreTokenizer) -> Members:
    """The characters that a pre-tokenizer removes, wherever they stand."""
    found = np.ones(len(every_character()), bool)
    for _, (start, stop) in splitter.pre_tokenize_str(every_character()):
        found[start:stop] = False
    return _placed(found)


def apart_by(splitter: pre_tokenizers.PreTokenizer) -> Members:
    """The characters that a pre-tokenizer keeps apart, in runs, from all others; U+0000 is none of them."""
    found = np.zeros(len(every_character()), bool)
    for _, (start, stop) in splitter.pre_tokenize_str(every_character())[1::2]:
        found[start:stop] = True
    return _placed(found)


def _placed(found: NDArray[np.bool_]) -> Members:
    inside = np.zeros(CODE_POINTS, bool)
    inside[: SURROGATES.start] = found[: SURROGATES.start]
    inside[SURROGATES.stop :] = found[SURROGATES.start :]
    inside.setflags(write=False)
    return inside


def table_bytes(values: NDArray[np.uint8]) -> bytes:
    """What native/characters.h reads: a small number for every character, uint8 [CODE_POINTS], equal pages once."""
    pages, page_of = np.unique(values.reshape(-1, PAGE), axis=0, return_inverse=True)
    return struct.pack("<II", len(pages), 0) + page_of.ravel().astype("<u2").tobytes() + pages.tobytes()
