"""What an answer may be, token by token: an automaton over bytes, and for each of its states the tokens that lead on.

The bytes are those of the answer's prefix and the answer, as the tokens write them: see slmc.text.token_masks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slmc.errors import CompileError
from slmc.text.automaton import ByteAutomaton, compile_bytes
from slmc.text.schema import Schema, schema_regex
from slmc.text.sections import Section
from slmc.text.token_masks import Spelled, token_masks

_ESCAPED = frozenset("\\.^$*+?{}[]()|")


def compile_schema(schema: Schema, prefix: str = "") -> ByteAutomaton:
    """The texts that fit a schema, after a prefix, as a recipe's answers are written: see slmc.text.schema.

    Raises CompileError naming what can't be compiled.
    """
    escaped = "".join(f"\\{c}" if c in _ESCAPED else c for c in prefix)
    expression = schema_regex(schema)
    try:
        return compile_bytes(f"{escaped}(?:{expression})")
    except CompileError as error:
        raise CompileError(f"the JSON Schema can't be compiled: {error.what}", expected=error.expected) from None


def grammar_bytes(schema: Schema, prefix: str, end_id: int, tokenizer: Mapping[Section, bytes]) -> bytes:
    """The section, as native/grammar.h reads it:

    uint32 states, classes, tokens, masks, words; uint8 class[256] of each byte; for each mask uint32 where its words
    begin and how many tokens it has; uint32 state[states]: its mask * 2, plus 1 where an answer may end; the words;
    uint16 next[states, classes], 0 where no answer goes on; zeros up to a multiple of 4 bytes.

    A mask is a bit for each token, the first in the lowest, or the ids in order where those are fewer than such words.
    Mask 0 is empty; a state that is never between two tokens has it.

    `tokenizer` holds the sections of slmc.text.tokenizer. Raises CompileError naming what can't be compiled.
    """
    automaton = compile_schema(schema, prefix)
    spelled = Spelled.of(tokenizer, prefix, end_id)
    found = token_masks(automaton, spelled)
    distinct = {mask: number for number, mask in enumerate(dict.fromkeys((b"", *found.values())))}
    words, counts = zip(*(_words(mask, len(spelled.later)) for mask in distinct), strict=True)
    begins = np.cumsum([0, *map(len, words)])
    states = automaton.accepting.astype("<u4")
    for state, mask in found.items():
        states[state] |= distinct[mask] << 1
    table, classes = np.unique(automaton.next, axis=1, return_inverse=True)
    entries = table.astype("<u2").tobytes()
    head = struct.pack("<5I", *table.shape, len(spelled.later), len(distinct), begins[-1])
    masks = np.stack([begins[:-1], counts], axis=1).astype("<u4")
    arrays = (classes.astype(np.uint8), masks, states, *words)
    return head + b"".join(array.tobytes() for array in arrays) + entries + bytes(-len(entries) % 4)


def _words(mask: bytes, tokens: int) -> tuple[NDArray[np.uint32], int]:
    """A mask in whichever form is smaller, and how many tokens it has."""
    ids = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
    bits = np.frombuffer(mask, "<u4")
    return (ids.astype("<u4") if len(ids) < -(-tokens // 32) else bits), len(ids)
