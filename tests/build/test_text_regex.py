"""The regular expressions of real tokenizers: the pieces of any text are those of the library."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from slmc.text.automaton import Automaton, compile_regex

from ..cut import pieces

pytestmark = pytest.mark.build

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k, possessive": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s*[\r\n]|\s+(?!\S)|\s",
    "llama 3": ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen 2": ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen 3.5": ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+",
    "o200k, llama 4": rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{ENDINGS}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{ENDINGS}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek v3, numbers": r"\p{N}{1,3}",
    "deepseek v3, chinese": "[一-龥\u3040-ゟ゠-ヿ]+",
    "deepseek v3": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
    r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}&&[^\p{Han}]]+|\s+(?!\S)|\s+",
    "words": r" ?\p{L}+",
    "spaces": r"\s+(?!\S)|\s+",
    "lines": r"[^\n]+|\n+",
    "dot": r".+?(?=\s)|\n",
    "digits in threes": r"\d{1,2}(?=\d)|\d{3}+",
}

LETTERS = "aAzZéßẞſKkİıǅ'sSTtrevVlLmdDﬁﬅ漢字かナ한бЖअ\u0301\u094d\u0308ʰª"
OTHERS = "0123٣½Ⅷ²!/.-_'’\"#[]{}$€+😀\u200d\ufe0f👩\U00100000\u0378\u0000\u200b"
SPACES = " \t\n\r\u000b\u0085\u00a0\u2003\u2028\u3000"
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(LETTERS),
        st.sampled_from(OTHERS),
        st.sampled_from(SPACES),
        st.sampled_from(["\r\n", "  ", "'re", "'LL", "'ſ", "'ß", "'ﬅ", "\n \n", "12345", "Hello", "iPhone"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module")
def automata() -> dict[str, Automaton]:
    return {name: compile_regex(pattern) for name, pattern in PATTERNS.items()}


@pytest.mark.parametrize("name", PATTERNS)
def test_the_pieces_are_those_of_the_library(automata: dict[str, Automaton], name: str) -> None:
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), behavior="isolated")

    @settings(deadline=None, max_examples=300)
    @given(TEXTS)
    def check(text: str) -> None:
        assert pieces(automata[name], text) == [piece for piece, _ in split.pre_tokenize_str(text)]

    check()


def test_the_tables_are_small(automata: dict[str, Automaton]) -> None:
    assert max(len(automaton.next) for automaton in automata.values()) <= 32
    assert max(len(automaton.to_bytes()) for automaton in automata.values()) <= 50_000
