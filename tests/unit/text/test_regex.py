"""The parser: what it reads, and everything that it refuses, by name."""

from __future__ import annotations

import pytest

from slmc.errors import CompileError
from slmc.text import regex
from slmc.text.regex import Alternation, Concatenation, Leaf, Lookahead, Repeat, parse

A, B = Leaf("a"), Leaf("b")


@pytest.mark.parametrize(
    ("pattern", "tree"),
    [
        ("", Concatenation(())),
        ("a|", Alternation((A, Concatenation(())))),
        ("a|(b)a", Alternation((A, Concatenation((B, A))))),
        ("(?i:a)b", Concatenation((Leaf("a", folded=True), B))),
        ("(?i:(a))", Leaf("a", folded=True)),
        ("a*", Repeat(A, 0, None)),
        ("a+?", Repeat(A, 1, None, lazy=True)),
        ("a??", Repeat(A, 0, 1, lazy=True)),
        ("a?+", Repeat(A, 0, 1, possessive=True)),
        ("(?>a{2,})", Repeat(A, 2, None, possessive=True)),
        ("a{3}", Repeat(A, 3, 3)),
        ("a{,3}", Repeat(A, 0, 3)),
        ("a{1,3}?", Repeat(A, 1, 3, lazy=True)),
        ("a{2}+", Repeat(Repeat(A, 2, 2), 1, None)),
        ("a(?!b)", Concatenation((A, Lookahead(B, negative=True)))),
        ("(?=[ab])", Lookahead(Leaf("[ab]"), negative=False)),
        (r"\p{L}", Leaf(r"\p{L}")),
        (r"[a[^b]&&\]\\]", Leaf(r"[a[^b]&&\]\\]")),
        (r"[^\x00-\x{1F600}\u00e9\-[:alpha:]]", Leaf(r"[^\x00-\x{1F600}\u00e9\-[:alpha:]]")),
        (r"\.", Leaf(r"\.")),
    ],
)
def test_the_tree_of_a_pattern(pattern: str, tree: regex.Tree) -> None:
    assert parse(pattern) == tree


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("x^", "an anchor: '^' at 1"),
        ("x$", "an anchor: '$' at 1"),
        (r"\bx", r"an escape that is not supported: '\\bx' at 0"),
        (r"\A", r"an escape that is not supported: '\\A' at 0"),
        (r"\z", r"an escape that is not supported: '\\z' at 0"),
        (r"\R", r"an escape that is not supported: '\\R' at 0"),
        (r"\X", r"an escape that is not supported: '\\X' at 0"),
        (r"(x)\1", r"an escape that is not supported: '\\1' at 3"),
        (r"\k<x>", r"an escape that is not supported: '\\k<x' at 0"),
        (r"[\xe9]", r"an escape that is not supported: '\\xe9' at 1"),
        ("x\\", r"an escape that is not supported: '\\' at 1"),
        ("(?<=x)y", "a group that is not supported: '(?<=' at 0"),
        ("(?<!x)y", "a group that is not supported: '(?<!' at 0"),
        ("(?<n>x)", "a group that is not supported: '(?<n' at 0"),
        ("(?#x)", "a group that is not supported: '(?#x' at 0"),
        ("(?i)x", "a group that is not supported: '(?i)' at 0"),
        ("(?m:x)", "a group that is not supported: '(?m:' at 0"),
        ("(?-i:x)", "a group that is not supported: '(?-i' at 0"),
        ("(?(1)x|y)", "a group that is not supported: '(?(1' at 0"),
        ("(?~x)", "a group that is not supported: '(?~x' at 0"),
        ("x(?!xy)", "a lookahead of more than one character class: '(?!xy)' at 1"),
        ("x(?=y|z)", "a lookahead of more than one character class: '(?=y|z)' at 1"),
        ("(?>ab)", "an atomic group of more than a repeated character class: '(?>ab)' at 0"),
        ("(?>a+?)", "an atomic group of more than a repeated character class: '(?>a+?)' at 0"),
        ("(?:ab)++", "a possessive repeat of more than a character class: '(?:ab)++' at 0"),
        ("x{2}?", "an exact repeat that is optional here and lazy in other engines: '{2}?' at 1"),
        ("x{3,2}", "a repeat whose bounds are in the wrong order: '{3,2}' at 1"),
        ("(x*|y)*", "a repeat of what can be empty: '(x*|y)*' at 0"),
        ("(?:(?!x)){2}", "a repeat of what can be empty: '(?:(?!x)){2}' at 0"),
        ("x{1}{1}{1}", "more than 2 repeats of each other: 'x{1}{1}{1}' at 0"),
        ("*x", "a quantifier after nothing: '*' at 0"),
        ("x{,}", "a quantifier after nothing: '{' at 1"),
        ("x{123456}", "a quantifier after nothing: '{' at 1"),
        ("x]", "a ] that closes nothing: ']' at 1"),
        ("x}", "a } that closes nothing: '}' at 1"),
        ("x)", "a ) that closes nothing: ')' at 1"),
        ("(x", "a group without its end: '(x' at 0"),
        ("[x", "a bracket expression without its end: '[x' at 0"),
        ("[[x]", "a bracket expression without its end: '[[x]' at 0"),
        ("[^]x]", "an empty bracket expression: '[^]' at 0"),
        ("(" * 60 + ")" * 60, "more than 50 groups inside each other: '(' at 51"),
    ],
)
def test_what_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(CompileError) as refusal:
        parse(pattern)
    assert refusal.value.what == f"a regular expression can't be compiled: {said}"
    assert refusal.value.where == repr(pattern)
    assert refusal.value.expected == regex.SUPPORTED


def test_a_text_as_it_is() -> None:
    assert regex.literal("a.▁\n") == Concatenation((A, Leaf(r"\."), Leaf("\\▁"), Leaf("\\\n")))


@pytest.mark.parametrize("expression", ["x", r"\.", "\\\n", "é", "\\▁"])
def test_a_literal_is_one_character(expression: str) -> None:
    assert list(map(chr, regex.members(Leaf(expression)).nonzero()[0])) == [expression[-1]]


def test_the_library_says_what_a_class_has() -> None:
    assert list(map(chr, regex.members(Leaf("k", folded=True)).nonzero()[0])) == ["K", "k", "\N{KELVIN SIGN}"]
    with pytest.raises(ValueError, match="invalid character property name"):
        regex.members(Leaf(r"\p{None}"))
