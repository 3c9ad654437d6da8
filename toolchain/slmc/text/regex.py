"""Regular expressions of pre-tokenizers, parsed: the part of Oniguruma's Ruby syntax that real tokenizers use.

What one character may be (`\\p{L}`, `[^\\r\\n]`, `.`) is kept as it is written: `members` asks the library's own engine
which characters it matches. Anything that an automaton can't hold exactly is refused by name, never read as something
else. Oniguruma's manual of the syntax: https://github.com/kkos/oniguruma/blob/master/doc/RE
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from slmc.errors import CompileError
from slmc.text import characters

DEEPEST, MOST_STACKED = 50, 2
"""Groups inside each other, and repeats of one atom: Python's stack is what bounds them."""

SUPPORTED = (
    "single characters, . and classes, ( ) (?: ) and (?i: ) groups, alternatives, repeats, "
    "a lookahead of one character class"
)


@dataclass(frozen=True)
class Leaf:
    """One character: a literal, an escape, a dot or a bracket expression, as written."""

    expression: str
    folded: bool = False
    """Whether it stands in `(?i: )`."""
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Concatenation:
    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Alternation:
    options: tuple[Tree, ...]


@dataclass(frozen=True)
class Repeat:
    """At least `low` times, at most `high` where that isn't None; a possessive one repeats a leaf."""

    body: Tree
    low: int
    high: int | None
    lazy: bool = False
    possessive: bool = False
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Lookahead:
    leaf: Leaf
    negative: bool
    at: int = field(default=0, compare=False)


Tree = Leaf | Concatenation | Alternation | Repeat | Lookahead


def refused(pattern: str, what: str, *, expected: str = SUPPORTED) -> CompileError:
    return CompileError(f"a regular expression can't be compiled: {what}", where=repr(pattern), expected=expected)


def parse(pattern: str) -> Tree:
    """The tree of a pattern; CompileError names what is not supported, and its offset in the pattern."""
    parser = _Parser(pattern)
    tree = parser.alternation(folded=False, depth=0)
    if parser.at < len(pattern):
        raise parser.refused("a ) that closes nothing", parser.at)
    return tree


def literal(text: str) -> Tree:
    """The tree of a text that is matched as it is."""
    leaves = (Leaf(c if c.isalnum() else f"\\{c}", at=at) for at, c in enumerate(text))
    return Concatenation(tuple(leaves))


def walk(tree: Tree) -> Iterator[Tree]:
    """A tree's nodes, each before those below it; a lookahead's leaf is part of the lookahead."""
    yield tree
    match tree:
        case Concatenation(parts) | Alternation(parts):
            for part in parts:
                yield from walk(part)
        case Repeat(body=body):
            yield from walk(body)


def members(leaf: Leaf) -> characters.Members:
    """The characters that a leaf matches; ValueError where the library doesn't know the expression."""
    itself = _itself(leaf.expression)
    if itself is not None and not leaf.folded:
        inside = np.zeros(characters.CODE_POINTS, bool)
        inside[ord(itself)] = True
        return inside
    expression = f"(?i:{leaf.expression})" if leaf.folded else leaf.expression
    try:
        return characters.members(expression)
    except Exception as error:  # the library raises no narrower type
        raise ValueError(str(error)) from error


def _itself(expression: str) -> str | None:
    """The character that an expression stands for where it is plainly that one."""
    if len(expression) == 1 and expression != ".":
        return expression
    return expression[1] if len(expression) == 2 and not expression[1].isalnum() else None


def _can_be_empty(tree: Tree) -> bool:
    match tree:
        case Leaf():
            return False
        case Lookahead():
            return True
        case Concatenation(parts):
            return all(map(_can_be_empty, parts))
        case Alternation(options):
            return any(map(_can_be_empty, options))
        case Repeat(body=body, low=low):
            return low == 0 or _can_be_empty(body)


# Without \b, anchors, \R, \X, \K and back-references, which are no characters, and \x80 to \xff, which are bytes.
ESCAPE = re.compile(
    r"""\\ (?: [aefnrtvdDhHsSwW] | [pP]\{\^?[\w\ =-]+\} | x\{[0-9A-Fa-f]{1,6}\} | x[0-7][0-9A-Fa-f] | u[0-9A-Fa-f]{4}
             | [^0-9A-Za-z] )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
INTERVAL = re.compile(r"\{(?:(?P<exact>\d{1,5})|(?P<low>\d{0,5}),(?P<high>\d{0,5}))\}", re.ASCII)
GROUPS = ("(?:", "(?i:", "(?=", "(?!", "(?>", "(")
SIMPLE = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class _Parser:
    """Recursive descent over a pattern; `at` is where the next construct begins."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def refused(self, what: str, start: int, stop: int | None = None) -> CompileError:
        construct = self.pattern[start : max(self.at, start + 1) if stop is None else stop]
        return refused(self.pattern, f"{what}: {construct!r} at {start}")

    def ahead(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def takes(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def alternation(self, *, folded: bool, depth: int) -> Tree:
        if depth > DEEPEST:
            raise self.refused(f"more than {DEEPEST} groups inside each other", self.at)
        options = [self.concatenation(folded=folded, depth=depth)]
        while self.takes("|"):
            options.append(self.concatenation(folded=folded, depth=depth))
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def concatenation(self, *, folded: bool, depth: int) -> Tree:
        parts = []
        while self.ahead() not in ("", "|", ")"):
            parts.append(self.repeated(folded=folded, depth=depth))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def repeated(self, *, folded: bool, depth: int) -> Tree:
        """An atom with what follows it: a+? is lazy, a++ possessive; a{2}+ is (?:a{2})+, as in Ruby's syntax."""
        start = self.at
        tree = self.atom(folded=folded, depth=depth)
        stacked = 0
        while (bounds := self.quantifier()) is not None:
            stacked += 1
            if stacked > MOST_STACKED:
                raise self.refused(f"more than {MOST_STACKED} repeats of each other", start)
            tree = self.repeat(tree, *bounds, start)
        return tree

    def quantifier(self) -> tuple[int, int | None, str] | None:
        """Bounds and "?" of a lazy repeat, "+" of a possessive one; None where no quantifier follows."""
        start = self.at
        if self.ahead() in SIMPLE:
            low, high = SIMPLE[self.ahead()]
            self.at += 1
            mode = self.ahead() if self.ahead() in ("?", "+") else ""
            self.at += len(mode)
            return low, high, mode
        found = INTERVAL.match(self.pattern, self.at)
        if found is None or found[0] == "{,}":
            return None
        self.at = found.end()
        exact = found["exact"]
        if exact is not None:
            if self.takes("?"):
                raise self.refused("an exact repeat that is optional here and lazy in other engines", start)
            return int(exact), int(exact), ""
        low, high = int(found["low"] or 0), int(found["high"]) if found["high"] else None
        if high is not None and high < low:
            raise self.refused("a repeat whose bounds are in the wrong order", start)
        return low, high, "?" if self.takes("?") else ""

    def repeat(self, body: Tree, low: int, high: int | None, mode: str, start: int) -> Repeat:
        if _can_be_empty(body) and (high is None or high > 1):
            raise self.refused("a repeat of what can be empty", start)
        if mode == "+" and not isinstance(body, Leaf):
            raise self.refused("a possessive repeat of more than a character class", start)
        return Repeat(body, low, high, lazy=mode == "?", possessive=mode == "+", at=start)

    def atom(self, *, folded: bool, depth: int) -> Tree:
        start, first = self.at, self.ahead()
        if first == "(":
            return self.group(folded=folded, depth=depth)
        if first == "[":
            self.skip_bracket()
        elif first == "\\":
            self.skip_escape()
        elif first in "^$":
            raise self.refused("an anchor", start)
        elif first in "*+?{":
            raise self.refused("a quantifier after nothing", start)
        elif first in "]}":
            raise self.refused(f"a {first} that closes nothing", start)
        else:
            self.at += 1
        return Leaf(self.pattern[start : self.at], folded, at=start)

    def skip_escape(self) -> None:
        start = self.at
        found = ESCAPE.match(self.pattern, start)
        if found is None:
            raise self.refused("an escape that is not supported", start, start + 4)
        self.at = found.end()

    def skip_bracket(self) -> None:
        """Past a bracket expression: brackets nest, as in [a-z&&[^aeiou]] and [[:alpha:]]."""
        start, depth = self.at, 0
        while self.at == start or depth:
            if self.takes("["):
                depth += 1
                self.takes("^")
                if self.ahead() == "]":
                    raise self.refused("an empty bracket expression", start, self.at + 1)
            elif self.takes("]"):
                depth -= 1
            elif self.ahead() == "\\":
                self.skip_escape()
            elif self.ahead():
                self.at += 1
            else:
                raise self.refused("a bracket expression without its end", start)

    def group(self, *, folded: bool, depth: int) -> Tree:
        start = self.at
        kind = next(kind for kind in GROUPS if self.takes(kind))
        if kind == "(" and self.ahead() == "?":
            raise self.refused("a group that is not supported", start, start + 4)
        inner = self.alternation(folded=folded or kind == "(?i:", depth=depth + 1)
        if not self.takes(")"):
            raise self.refused("a group without its end", start)
        if kind in ("(?=", "(?!"):
            if not isinstance(inner, Leaf):
                raise self.refused("a lookahead of more than one character class", start)
            return Lookahead(inner, negative=kind == "(?!", at=start)
        return self.atomic(inner, start) if kind == "(?>" else inner

    def atomic(self, inner: Tree, start: int) -> Tree:
        if isinstance(inner, Repeat) and isinstance(inner.body, Leaf) and not inner.lazy:
            return replace(inner, possessive=True)
        raise self.refused("an atomic group of more than a repeated character class", start)
