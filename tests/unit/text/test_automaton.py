"""Small patterns over few letters against the library and Python's re; the tables; what can't be compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from slmc.errors import CompileError
from slmc.text import automaton
from slmc.text.automaton import Automaton, ByteAutomaton, compile_bytes, compile_literal, compile_regex, one_of

from ...cut import pieces

LETTERS = "abcd"
Compiled = TypeVar("Compiled", Automaton, ByteAutomaton)
QUANTIFIERS = ("*", "+", "?", "{2}", "{1,2}", "{2,}", "{,2}")


def library_pieces(pattern: str, text: str) -> list[str]:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


def python_pieces(pattern: str, text: str) -> list[str]:
    found, since = [], 0
    for match in re.finditer(pattern, text):
        found += [text[since : match.start()], match[0]]
        since = match.end()
    return [piece for piece in [*found, text[since:]] if piece]


def can_be_empty(pattern: str) -> bool:
    return any(re.match(f"(?:{pattern})(?<!.)", text) for text in ("", *LETTERS))


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map("(?:{})".format)
    quantified = st.tuples(group, st.sampled_from(QUANTIFIERS), st.sampled_from(["", "?"]))
    return st.one_of(
        st.lists(group, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        quantified.filter(lambda parts: parts[1:] != ("{2}", "?")).map("".join),
    )


LEAVES = st.sampled_from([*LETTERS, "a(?=b)", "a(?!b)", "(?!c)b", "(?=b)", "b(?!d)"])
PATTERNS = st.recursive(LEAVES, grown, max_leaves=8)


def compiled_or_told(compiler: Callable[[str], Compiled], pattern: str) -> Compiled | str:
    try:
        return compiler(pattern)
    except CompileError as refusal:
        return refusal.what.removeprefix("a regular expression can't be compiled: ")


@settings(deadline=None, max_examples=150)
@given(PATTERNS, st.lists(st.text(LETTERS, max_size=12), min_size=4, max_size=4))
def test_small_patterns_match_as_in_two_engines(pattern: str, texts: list[str]) -> None:
    matcher = compiled_or_told(compile_regex, pattern)
    if isinstance(matcher, Automaton):
        assert not can_be_empty(pattern)
        for text in texts:
            assert pieces(matcher, text) == library_pieces(pattern, text) == python_pieces(pattern, text)
    elif matcher == "it can match nothing":
        assert not any(re.search(pattern, text) for text in texts)
    elif not matcher.startswith("a repeat of what can be empty"):
        assert matcher == "it can match the empty string"
        assert can_be_empty(pattern)


@pytest.mark.parametrize(
    "pattern", ["a{2}+", "a{1,2}+b", "a++b", "a?+b*+c", "(?>a+)(?:b|c)", "(?>a{1,2})b", "(?:a++b)+c", "a++"]
)
def test_repeats_of_rubys_syntax(pattern: str) -> None:
    matcher = compile_regex(pattern)
    for text in ("aaaaa", "aab", "aabaabc", "abbc", "aaac", "cab", "ababc", "aaabaaac"):
        assert pieces(matcher, text) == library_pieces(pattern, text)


compiled = cache(compile_regex)
FOLDED = "x(?i:s)|(?i:s)x"


@settings(deadline=None)
@given(st.text("sSſßxX", max_size=20))
def test_letters_in_any_case(text: str) -> None:
    assert pieces(compiled(FOLDED), text) == library_pieces(FOLDED, text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "it can match the empty string"),
        ("a*", "it can match the empty string"),
        ("a??", "it can match the empty string"),
        ("(?=a)", "it can match the empty string"),
        ("a(?=b)c", "it can match nothing"),
        ("a++a", "a possessive repeat that differs from the greedy one: 'a' at 0"),
        ("b(?>a+)(?!b)", "a possessive repeat that differs from the greedy one: 'a' at 4"),
        ("(?:a++b?)+c", "a possessive repeat that differs from the greedy one: 'a' at 3"),
        ("(?i:ss)", "'ss' of (?i: ) at 5 can match 'ß'"),
        ("(?i:s)s", "'ss' of (?i: ) at 4 can match 'ß'"),
        ("x(?i:s)+", "'ss' of (?i: ) at 5 can match 'ß'"),
        ("(?:x|s)x?(?i:s)", "'ss' of (?i: ) at 5 can match 'ß'"),
        ("(?i:ß)", "'ß' of (?i: ) at 4 can match 'ss'"),
        (r"\p{None}", r"'\\p{None}' at 0: Oniguruma error: invalid character property name {None}"),
        ("a{5000}", "more than 4096 states"),
        ("a{1000}{1000}", "more than 100000 characters once its repeats are written out"),
        ("|".join(map(chr, range(0x4E00, 0x4F00))), "more than 255 classes of characters"),
    ],
)
def test_what_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(CompileError) as refusal:
        compile_regex(pattern)
    assert refusal.value.what == f"a regular expression can't be compiled: {said}"
    assert refusal.value.where == repr(pattern)


def test_a_literal_is_matched_as_it_is() -> None:
    matcher = compile_literal("a.b")
    assert [matcher.match(text, 1) for text in ("xa.b", "xaab", "xa.", "x")] == [4, None, None, None]


def test_one_of_a_set() -> None:
    inside = np.zeros(0x110000, bool)
    inside[[ord("é"), ord("𝄞")]] = True
    assert pieces(one_of(inside), "éé-𝄞") == ["é", "é", "-", "𝄞"]


@pytest.mark.parametrize(
    ("pattern", "other"), [("abc|abd|xbc|xbd", "(?:a|x)b(?:c|d)"), ("a|ab", "b|a"), ("a(?:b|c(?=b)a)", "ab")]
)
def test_no_state_is_there_twice_or_of_no_use(pattern: str, other: str) -> None:
    assert len(compile_regex(pattern).next) == len(compile_regex(other).next)


def test_the_bytes_of_an_automaton() -> None:
    matcher = compile_regex("ab|a(?!b)")
    content = matcher.to_bytes()
    states, classes = np.frombuffer(content[:8], "<u4")
    assert matcher.next.shape == (states, classes + 1)
    assert len(content) % 4 == 0
    head = 8 + 8 + 2 * 4352 + 256 * int(np.frombuffer(content[8:12], "<u4")[0])
    assert content[head : head + 2 * matcher.next.size] == matcher.next.tobytes()


STRING = r'[^"\\\x00-\x1F\x7F-\x9F]'
SCHEMA = rf'\{{ ?"n\.é" ?: ?(?:"({STRING}|\\(?:"|\\)){{1,3}}"|(-)?(0|(?:1|2)(?:1|0)*)(\.(?:0|1)+)?) ?\}}'


def test_whole_texts_over_bytes() -> None:
    matcher = compile_bytes(SCHEMA)
    texts = ['{"n.é":0}', '{"n.é": -120.01}', '{ "n.é": "é\\"𝄞"}', '{"n.é":"漢\N{NO-BREAK SPACE}"}', '{"n.é":"\x80"}']
    texts += [
        '{"n.é":01}',
        '{"n.é":""}',
        '{"n.é":"\x7f"}',
        '{"n.é":"aaaa"}',
        '{"n.é":"a"} ',
        '{"nxé":0}',
        '{"n.é":"\\n"}',
    ]
    for text in texts:
        assert matcher.accepts(text.encode()) == bool(re.fullmatch(SCHEMA, text)), text
    for invalid in (b"\xc0\xaf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xff"):
        assert not matcher.accepts('{"n.é":"'.encode() + invalid + b'"}')


def test_every_character_over_bytes() -> None:
    matcher = compile_bytes(f"(?:{STRING})?")
    assert matcher.accepts(b"")
    assert all(matcher.accepts(chr(c).encode()) for c in range(0xA0, 0x110000, 61) if not 0xD800 <= c < 0xE000)
    assert not any(matcher.accepts(chr(c).encode()) for c in (*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA0)))


WHOLE = PATTERNS.filter(lambda pattern: "(?=" not in pattern and "(?!" not in pattern)


@settings(deadline=None, max_examples=15)
@given(WHOLE, st.lists(st.text(LETTERS, max_size=6), min_size=8, max_size=8))
def test_whole_texts_of_small_patterns(pattern: str, texts: list[str]) -> None:
    matcher = compiled_or_told(compile_bytes, pattern)
    if isinstance(matcher, str):
        assert matcher.startswith("a repeat of what can be empty")
        return
    for text in texts:
        assert matcher.accepts(text.encode()) == bool(re.fullmatch(pattern, text))


def test_states_that_are_never_accepted_are_dead() -> None:
    matcher = compile_bytes("ab?")
    assert matcher.next.shape == (4, 256)
    assert not matcher.next[automaton.DEAD].any()
    assert list(matcher.accepting) == [False, False, True, True]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a(?=b)", "a lookahead, where whole texts are matched, at 1"),
        ("(?:b|a++)", "a possessive repeat, where whole texts are matched, at 5"),
        (r"a\b", r"an escape that is not supported: '\\b' at 1"),
    ],
)
def test_what_is_refused_over_bytes(pattern: str, said: str) -> None:
    with pytest.raises(CompileError, match=re.escape(said)):
        compile_bytes(pattern)
