"""The tokens that lead an automaton over bytes on, from each of its states between tokens."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slmc.errors import CompileError
from slmc.text.automaton import DEAD, START, ByteAutomaton
from slmc.text.sections import Section
from slmc.text.spelling import NO_TOKEN, SPECIAL
from slmc.text.tables import read_strings

States = NDArray[np.uint16]
Masks = dict[int, bytes]
"""By state, a bit for each token, the first in the lowest, filled up to uint32; for states between two tokens."""


@dataclass(frozen=True)
class Spelled:
    """The bytes that each token of an answer writes; none for those that an answer must not have.

    The decoder may write a first token otherwise: "▁{" as "{". Where a prefix stands before every answer, a space, it
    is the same answer with and without what is left out, so tokens count as they stand in the text: " {". Where that is
    no beginning of an answer, a first token counts as the decoder writes it.
    """

    later: list[bytes]
    first: list[bytes]
    """Of the first token, as the decoder writes it."""
    prefix: bytes

    @classmethod
    def of(cls, tokenizer: Mapping[Section, bytes], prefix: str, end_id: int) -> Spelled:
        """From the sections of slmc.text.tokenizer."""
        _, strip, most = struct.unpack_from("<III", tokenizer[Section.SPELLING])
        kinds = np.frombuffer(tokenizer[Section.SPELLING], np.uint8, offset=12)
        unused = kinds & (SPECIAL | NO_TOKEN) != 0
        unused[end_id] = True
        later = read_strings(tokenizer.get(Section.PIECES, tokenizer[Section.TOKENS]))
        first = read_strings(tokenizer[Section.FIRST_PIECES]) if Section.FIRST_PIECES in tokenizer else later
        for id in np.flatnonzero(unused):
            later[id] = b""
        pairs = zip(first, later, strict=True)
        first = [_stripped(piece, chr(strip).encode(), most) if written else b"" for piece, written in pairs]
        return cls(later, first, prefix.encode())

    def same_answer(self, id: int) -> bool:
        """As a first token it leaves out nothing but some of the prefix."""
        later, first = self.later[id], self.first[id]
        return later.endswith(first) and self.prefix.startswith(later[: len(later) - len(first)])


def _stripped(piece: bytes, character: bytes, most: int) -> bytes:
    for _ in range(most):
        piece = piece.removeprefix(character)
    return piece


def token_masks(automaton: ByteAutomaton, spelled: Spelled) -> Masks:
    """Only tokens after which an answer can come to its end. Raises CompileError where no tokens spell one."""
    walker = _Walker(automaton.next, spelled)
    masks: Masks = {}
    after: dict[int, States] = {}
    waiting = [START]
    while waiting:
        state = waiting.pop()
        ends = walker.ends(state)
        masks[state], after[state] = _bits(ends != DEAD), np.unique(ends[ends != DEAD])
        waiting += [new for new in after[state].tolist() if new not in after and new not in waiting]
    if any(START in targets for targets in after.values()):
        raise CompileError("the grammar comes back to its start, where a first token is another one")
    live = _live(after, automaton)
    if not live[START]:
        raise CompileError("no tokens of the tokenizer spell an answer that fits the JSON Schema")
    for state, targets in after.items():
        if not live[targets].all():
            masks[state] = _bits(live[walker.ends(state)])
    return {state: mask for state, mask in masks.items() if live[state]}


def _live(after: dict[int, States], automaton: ByteAutomaton) -> NDArray[np.bool_]:
    """bool [states]: those that tokens lead on from to where an answer may end."""
    live, known = automaton.accepting & np.isin(np.arange(len(automaton.next)), list(after)), -1
    while (count := int(np.count_nonzero(live))) > known:
        known = count
        for state in reversed(after):  # what was come to late is near the end
            live[state] |= live[after[state]].any()
    return live


def _bits(allowed: NDArray[np.bool_]) -> bytes:
    bits = np.packbits(allowed, bitorder="little").tobytes()
    return bits + bytes(-len(bits) % 4)


class _Walker:
    """Walks all tokens at once from a state."""

    def __init__(self, table: States, spelled: Spelled) -> None:
        self._table = table.ravel()
        self._later, self._first = _Flat.of(spelled.later), _Flat.of(spelled.first)
        self._same = np.array([spelled.same_answer(id) for id in range(len(spelled.later))])

    def ends(self, state: int) -> States:
        """The state after each token, DEAD where it can't be: uint16 [tokens]."""
        later = self._walk(state, self._later)
        if state != START:
            return later
        first = self._walk(state, self._first)
        return np.where(later == DEAD, first, np.where(self._same, later, DEAD))

    def _walk(self, state: int, tokens: _Flat) -> States:
        found = np.zeros(len(tokens.begins), np.uint16)
        alive = np.flatnonzero(tokens.lengths)
        at, left = tokens.begins[alive], tokens.lengths[alive]
        states = np.full(len(alive), state, np.uint16)
        while len(alive):
            states = self._table[states.astype(np.int64) << 8 | tokens.content[at]]
            done = (left == 1) & (states != DEAD)
            found[alive[done]] = states[done]
            on = (left > 1) & (states != DEAD)
            alive, at, left, states = alive[on], at[on] + 1, left[on] - 1, states[on]
        return found


@dataclass(frozen=True)
class _Flat:
    """Pieces as arrays: uint8 content, int64 [pieces] begins and lengths."""

    content: NDArray[np.uint8]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, pieces: list[bytes]) -> _Flat:
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        return cls(np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(lengths) - lengths, lengths)
