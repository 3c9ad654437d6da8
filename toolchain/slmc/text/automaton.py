"""Regular expressions as deterministic automata: the library's backtracking, done ahead of time.

A pattern's tree becomes a program whose branches are in order of preference, the order in which a backtracking engine
tries them. A state of the automaton is the ordered list of places where that engine could be; what stands behind a
match in the list is never tried, so it is cut. https://swtch.com/~rsc/regexp/regexp2.html tells of this; the
lookaheads are resolved once the next character is known.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slmc.text.characters import CODE_POINTS, Members, table_bytes
from slmc.text.regex import (
    Alternation,
    Concatenation,
    Leaf,
    Lookahead,
    Repeat,
    Tree,
    literal,
    members,
    parse,
    refused,
    walk,
)

DEAD, START = 0, 1
MATCHED, TARGET = 0x8000, 0x7FFF
MOST_STATES, MOST_CLASSES, MOST_NODES = 4096, 255, 100_000
MOST_WHOLE_STATES, MOST_BYTE_STATES = TARGET + 1, 0x10000
Row = TypeVar("Row", bound=np.generic)
_SHORT_HEX = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)
BLOCK = 64
"""Characters that differ in nothing but the last byte of their UTF-8."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """What native/automaton.h reads.

    classes: uint8 [CODE_POINTS], the class of every character.
    next: uint16 [states, classes + 1]; the last column is for the end of the text.
    """

    classes: NDArray[np.uint8]
    next: NDArray[np.uint16]

    def match(self, text: str, start: int) -> int | None:
        """Where the match ends that begins at `start`."""
        state, last, end = START, None, self.next.shape[1] - 1
        for at in range(start, len(text) + 1):
            column = self.classes[ord(text[at])] if at < len(text) else end
            entry = int(self.next[state, column])
            if entry & MATCHED:
                last = at
            state = entry & TARGET
            if state == DEAD:
                break
        return last

    def to_bytes(self) -> bytes:
        states, columns = self.next.shape
        entries = self.next.astype("<u2").tobytes()
        padding = bytes(-len(entries) % 4)
        return struct.pack("<II", states, columns - 1) + table_bytes(self.classes) + entries + padding


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """Whole texts as UTF-8: from START through `next` to an accepting state.

    next: uint16 [states, 256]; DEAD where no text goes on to be accepted.
    accepting: bool [states].
    """

    next: NDArray[np.uint16]
    accepting: NDArray[np.bool_]

    def accepts(self, text: bytes) -> bool:
        state = START
        for byte in text:
            state = int(self.next[state, byte])
        return bool(self.accepting[state])


def compile_regex(pattern: str) -> Automaton:
    """An automaton that matches what the library's engine matches; CompileError where that can't be promised."""
    return _compiled(parse(pattern), pattern)


def compile_literal(text: str) -> Automaton:
    """An automaton that matches a text as it is."""
    return _compiled(literal(text), text)


def one_of(characters: Members) -> Automaton:
    """An automaton that matches one character of a set."""
    table = [[DEAD, DEAD, DEAD], [DEAD, START + 1, DEAD], [MATCHED, MATCHED, MATCHED]]
    return Automaton(characters.astype(np.uint8), np.array(table, np.uint16))


def compile_bytes(pattern: str) -> ByteAutomaton:
    """An automaton that accepts the whole texts of a pattern, in which \\x80 to \\xff are characters, not bytes."""
    tree = parse(_SHORT_HEX.sub(lambda found: f"\\x{{{found[1]}}}" if found[1] else found[0], pattern))
    for node in walk(tree):
        if isinstance(node, Lookahead):
            raise refused(pattern, f"a lookahead, where whole texts are matched, at {node.at}")
        if isinstance(node, Repeat) and node.possessive:
            raise refused(pattern, f"a possessive repeat, where whole texts are matched, at {node.at}")
    program, alphabet = _prepared(tree, pattern)
    table = _determinized(program, alphabet, pattern, MOST_WHOLE_STATES, ordered=False)
    return _over_bytes(table, alphabet.classes, pattern)


def _compiled(tree: Tree, pattern: str) -> Automaton:
    program, alphabet = _prepared(tree, pattern)
    table = _determinized(program, alphabet, pattern, MOST_STATES, ordered=True)
    if (table[START] & MATCHED).any():
        raise refused(pattern, "it can match the empty string", expected="a pattern whose matches have a character")
    return Automaton(alphabet.classes, table)


def _prepared(tree: Tree, pattern: str) -> tuple[_Program, _Alphabet]:
    program = _Program(tree, pattern)
    alphabet = _alphabet(program, pattern)
    _check_folds(program, alphabet, pattern)
    _check_possessive(program, alphabet, pattern)
    return program, alphabet


@dataclass(frozen=True)
class _Read:
    """One character, of leaf number `leaf`."""

    leaf: int
    after: int


@dataclass(frozen=True)
class _Look:
    """Nothing, where the next character is of that leaf, or where it is not."""

    leaf: int
    negative: bool
    after: int


@dataclass(frozen=True)
class _Branch:
    """The ways on, the preferred one first."""

    ways: tuple[int, ...]

    @classmethod
    def of(cls, repeat: Repeat, more: int, after: int) -> _Branch:
        return cls((after, more) if repeat.lazy else (more, after))


@dataclass(frozen=True)
class _Match:
    """A match ends here."""


_Node = _Read | _Look | _Branch | _Match


class _Program:
    """A tree as numbered nodes; node MATCH is where a match ends."""

    MATCH = 0

    def __init__(self, tree: Tree, pattern: str) -> None:
        self.pattern = pattern
        self.nodes: list[_Node] = [_Match()]
        self.leaves: dict[Leaf, int] = {}
        self.possessive: list[tuple[Repeat, int]] = []
        """Possessive repeats, each with the node after it."""
        self.start = self.built(tree, self.MATCH)
        self.looks = frozenset(at for at, node in enumerate(self.nodes) if isinstance(node, _Look))

    def add(self, node: _Node) -> int:
        if len(self.nodes) == MOST_NODES:
            raise refused(self.pattern, f"more than {MOST_NODES} characters once its repeats are written out")
        self.nodes.append(node)
        return len(self.nodes) - 1

    def number(self, leaf: Leaf) -> int:
        return self.leaves.setdefault(leaf, len(self.leaves))

    def built(self, tree: Tree, after: int) -> int:
        """Where a tree begins that goes on to node `after`."""
        match tree:
            case Leaf():
                return self.add(_Read(self.number(tree), after))
            case Lookahead(leaf, negative):
                return self.add(_Look(self.number(leaf), negative, after))
            case Concatenation(parts):
                for part in reversed(parts):
                    after = self.built(part, after)
                return after
            case Alternation(options):
                return self.add(_Branch(tuple(self.built(option, after) for option in options)))
            case Repeat():
                if tree.possessive:
                    self.possessive.append((tree, after))
                return self.repeated(tree, after)

    def repeated(self, repeat: Repeat, after: int) -> int:
        """Its body written out: those that must be, after them those that may be, or a loop."""
        entry, copies = after, repeat.low
        if repeat.high is None:
            loop = self.add(_Branch(()))
            body = self.built(repeat.body, loop)
            self.nodes[loop] = _Branch.of(repeat, body, after)
            entry, copies = (body, copies - 1) if copies else (loop, 0)
        else:
            for _ in range(repeat.high - repeat.low):
                entry = self.add(_Branch.of(repeat, self.built(repeat.body, entry), after))
        for _ in range(copies):
            entry = self.built(repeat.body, entry)
        return entry

    def reached(self, kernel: Iterable[int], passing: frozenset[int]) -> list[int]:
        """The nodes that read, and MATCH, that are reached through branches and `passing` lookaheads, in order."""
        found, seen, waiting = [], set(), list(kernel)[::-1]
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            match self.nodes[at]:
                case _Branch(ways):
                    waiting.extend(reversed(ways))
                case _Look(after=after):
                    if at in passing:
                        waiting.append(after)
                case _:
                    found.append(at)
        return found

    def reads(self, kernel: Iterable[int]) -> list[_Read]:
        """All that could be read next, whatever the lookaheads say."""
        nodes = (self.nodes[at] for at in self.reached(kernel, self.looks))
        return [node for node in nodes if isinstance(node, _Read)]


@dataclass(frozen=True, eq=False)
class _Alphabet:
    """The coarsest classes of characters that a program's leaves tell apart.

    classes: uint8 [CODE_POINTS].
    inside: bool [leaves, classes + 1]; the last column is the end of the text, which is in no leaf.
    """

    classes: NDArray[np.uint8]
    inside: NDArray[np.bool_]

    def reads(self, leaf: int, character: str) -> bool:
        return bool(self.inside[leaf, self.classes[ord(character)]])


def _alphabet(program: _Program, pattern: str) -> _Alphabet:
    classes, sizes = np.zeros(CODE_POINTS, np.int64), np.array([CODE_POINTS])
    sets = []
    for leaf in program.leaves:
        where = np.flatnonzero(_members(leaf, pattern))
        sets.append(where)
        taken = np.bincount(classes[where], minlength=len(sizes))
        split = np.flatnonzero((taken > 0) & (taken < sizes))
        renamed = np.arange(len(sizes))
        renamed[split] = len(sizes) + np.arange(len(split))
        classes[where] = renamed[classes[where]]
        sizes[split] -= taken[split]
        sizes = np.append(sizes, taken[split])
        if len(sizes) > MOST_CLASSES:
            raise refused(pattern, f"more than {MOST_CLASSES} classes of characters")
    inside = np.zeros((len(sets), len(sizes) + 1), bool)
    for row, where in zip(inside, sets, strict=True):
        row[classes[where]] = True
    return _Alphabet(classes.astype(np.uint8), inside)


def _members(leaf: Leaf, pattern: str) -> NDArray[np.bool_]:
    try:
        inside = members(leaf)
    except ValueError as error:
        raise refused(pattern, f"{leaf.expression!r} at {leaf.at}: {error}") from error
    if not inside.any():
        raise refused(pattern, f"{leaf.expression!r} at {leaf.at} matches no character")
    return inside


@cache
def _folds() -> tuple[tuple[str, str], ...]:
    """Each character that folds to several, and those: ß and ss."""
    every = map(chr, range(CODE_POINTS))
    return tuple((c, folded) for c in every if len(folded := c.casefold()) > 1)


def _check_folds(program: _Program, alphabet: _Alphabet, pattern: str) -> None:
    """In `(?i: )` the library takes ß for ss and ss for ß, also where only one of both letters is in there."""
    leaves = list(program.leaves)
    if not any(leaf.folded for leaf in leaves):
        return
    for number, leaf in enumerate(leaves):
        for character, text in _folds():
            if leaf.folded and alphabet.reads(number, character):
                raise refused(pattern, f"{leaf.expression!r} of (?i: ) at {leaf.at} can match {text!r}")

    def spelled(node: _Read, text: str, folded: bool) -> bool:
        variants = {c for c in text[0] + text[0].upper() if alphabet.reads(node.leaf, c)}
        folded = folded or leaves[node.leaf].folded
        if not variants or len(text) == 1:
            return bool(variants) and folded
        return any(spelled(after, text[1:], folded) for after in program.reads([node.after]))

    for node in program.nodes:
        for character, text in _folds():
            if isinstance(node, _Read) and spelled(node, text, False):
                at = leaves[node.leaf].at
                raise refused(pattern, f"{text!r} of (?i: ) at {at} can match {character!r}")


def _check_possessive(program: _Program, alphabet: _Alphabet, pattern: str) -> None:
    """A possessive repeat is the greedy one if what follows always matches, or never where the repeat stops early."""
    for repeat, after in program.possessive:
        assert isinstance(repeat.body, Leaf), "the parser refuses others"
        if program.MATCH in program.reached([after], frozenset()):
            continue
        own = alphabet.inside[program.leaves[repeat.body]]
        overlap = any((own & alphabet.inside[node.leaf]).any() for node in program.reads([after]))
        if overlap or program.MATCH in program.reached([after], program.looks):
            what = f"a possessive repeat that differs from the greedy one: {repeat.body.expression!r} at {repeat.at}"
            raise refused(pattern, what)


def _determinized(
    program: _Program, alphabet: _Alphabet, pattern: str, most: int, *, ordered: bool
) -> NDArray[np.uint16]:
    """uint16 [states, classes + 1], the smallest; without an order of preference nothing is cut, a state is a set."""
    inside = alphabet.inside.tolist()
    columns = range(alphabet.inside.shape[1])
    passing = [_passing(program, alphabet.inside[:, column]) for column in columns]
    states: dict[tuple[int, ...], int] = {(): DEAD, (program.start,): START}
    rows = []
    for kernel in (waiting := list(states)):
        row = []
        reached = {looks: program.reached(kernel, looks) for looks in set(passing)}
        for column in columns:
            ways = reached[passing[column]]
            matched = program.MATCH in ways
            if matched and ordered:
                ways = ways[: ways.index(program.MATCH)]
            reads = (node for way in ways if isinstance(node := program.nodes[way], _Read))
            after = tuple(dict.fromkeys(node.after for node in reads if inside[node.leaf][column]))
            after = after if ordered else tuple(sorted(after))
            if after not in states:
                states[after] = len(states)
                waiting.append(after)
                if len(states) > most:
                    raise refused(pattern, f"more than {most} states")
            row.append(states[after] | (MATCHED if matched else 0))
        rows.append(row)
    table = _minimized(np.array(rows, np.uint16))
    if len(table) == START:
        raise refused(pattern, "it can match nothing", expected="a pattern that some text has")
    return table


def _passing(program: _Program, inside: NDArray[np.bool_]) -> frozenset[int]:
    """The lookaheads that a next character allows which is in these leaves (bool [leaves])."""
    nodes = ((at, program.nodes[at]) for at in program.looks)
    return frozenset(at for at, node in nodes if isinstance(node, _Look) and inside[node.leaf] != node.negative)


def _minimized(table: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The smallest table of the same matches (Moore's refinement); states that lead to no match become DEAD."""
    matched, target = table & np.uint16(MATCHED), table & np.uint16(TARGET)
    rows, kinds = matched, 0
    while len((found := _distinct(rows))[0]) > kinds:
        kinds, rows = len(found[0]), matched | found[1][target]
    return found[0]


def _distinct(rows: NDArray[Row]) -> tuple[NDArray[Row], NDArray[np.uint16]]:
    """The rows that differ, in order of appearance, and which of them each row is: uint16 [rows]."""
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], np.uint16)
    return rows[np.unique(number, return_index=True)[1]], number


def _over_bytes(table: NDArray[np.uint16], classes: NDArray[np.uint8], pattern: str) -> ByteAutomaton:
    """A table over classes as one over the bytes of UTF-8.

    The states between the bytes of a character are told by where each of the 64 next bytes leads; they are made from
    the last byte to the first, and equal ones once.
    """
    shapes = _Shapes.of(classes)
    rows = [np.zeros(256, np.uint16) for _ in table]
    between: dict[bytes, int] = {}

    def state(targets: NDArray[np.uint16]) -> int:
        if not targets.any():
            return DEAD
        key = targets.tobytes()
        if key not in between:
            if len(rows) == MOST_BYTE_STATES:
                raise refused(pattern, f"more than {MOST_BYTE_STATES} states")
            between[key] = len(rows)
            rows.append(np.concatenate([np.zeros(0x80, np.uint16), targets, np.zeros(0x40, np.uint16)]))
        return between[key]

    for row, entries in zip(rows[: len(table)], table & TARGET, strict=True):
        row[:0x80] = entries[classes[:0x80]]
        blocks = np.array([*(state(entries[block]) for block in shapes.blocks), DEAD], np.uint16)
        pages = np.array([*(state(blocks[page]) for page in shapes.pages), DEAD], np.uint16)
        row[0xC2:0xE0] = blocks[shapes.two]
        row[0xE0:0xF0] = pages[shapes.three]
        row[0xF0:0xF5] = [state(pages[plane]) for plane in shapes.four]
    accepting = np.zeros(len(rows), bool)
    accepting[: len(table)] = table[:, -1] & MATCHED
    return ByteAutomaton(np.array(rows), accepting)


@dataclass(frozen=True, eq=False)
class _Shapes:
    """Characters by their bytes (Unicode 16, table 3-6); the number after the last block or page stands for no text.

    blocks: uint8 [kinds of block, 64], the classes below a character's last byte.
    pages: uint16 [kinds of page, 64], the kinds of block below its last but one.
    two, three, four: what is below the first bytes 0xC2.., 0xE0.. and 0xF0..: a block [30], a page [16], pages [5, 64].
    """

    blocks: NDArray[np.uint8]
    pages: NDArray[np.uint16]
    two: NDArray[np.uint16]
    three: NDArray[np.uint16]
    four: NDArray[np.uint16]

    @classmethod
    def of(cls, classes: NDArray[np.uint8]) -> _Shapes:
        blocks, block_of = _distinct(classes[0x80:].reshape(-1, BLOCK))
        two, more = np.split(block_of, [0xE0 - 0xC2])
        below = np.full(CODE_POINTS // BLOCK, len(blocks), np.uint16)  # three bytes of what has two are no text
        below[-len(more) :] = more
        pages, page_of = _distinct(below.reshape(-1, BLOCK))
        planes = np.full(5 * BLOCK, len(pages), np.uint16)  # so are four bytes of what has three, or of 0x110000
        planes[0x10 : len(page_of)] = page_of[0x10:]
        return cls(blocks, pages, two, page_of[:0x10], planes.reshape(5, BLOCK))
