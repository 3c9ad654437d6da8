"""Pre-tokenizers as what they do to a text: characters replaced, something put before it, then cut in pieces."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import pre_tokenizers

from slmc.errors import CompileError
from slmc.text import tokenizer_json as source
from slmc.text.automaton import Automaton, compile_literal, compile_regex, one_of
from slmc.text.byte_level import byte_level
from slmc.text.characters import apart_by, members, removed_by

# The one of GPT-2, which the library's ByteLevel has built in.
_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PUNCTUATION = pre_tokenizers.Punctuation(behavior="removed")
_BEHAVIORS: tuple[source.Behavior, ...] = (
    "Removed",
    "Isolated",
    "MergedWithPrevious",
    "MergedWithNext",
    "Contiguous",
)
"""Numbered as `enum behavior` of native/split.c."""
_PREFIX_WHEN = ("never", "always", "first")


@dataclass(frozen=True)
class Cut:
    """Where the text is cut: at what an automaton matches, or at all else."""

    automaton: Automaton
    behavior: source.Behavior
    invert: bool = False

    def to_bytes(self) -> bytes:
        content = self.automaton.to_bytes()
        return struct.pack("<III", _BEHAVIORS.index(self.behavior), self.invert, len(content)) + content


@dataclass(frozen=True)
class Prefix:
    """Put before a text that doesn't begin with it already."""

    text: str = ""
    when: Literal["never", "always", "first"] = "never"
    """Of the texts between added tokens: all, or that one which begins the whole."""

    def to_bytes(self) -> bytes:
        content = self.text.encode()
        return struct.pack("<II", _PREFIX_WHEN.index(self.when), len(content)) + content


@dataclass(frozen=True)
class PreTokenizer:
    replaced: tuple[str, str] | None = None
    """A character, and what stands for it."""
    prefix: Prefix = Prefix()
    cuts: tuple[Cut, ...] = ()
    bytes_only: bool = False
    """The model's symbols are bytes, which its file spells in 256 characters of their own."""

    def alphabet(self, token: str) -> bytes:
        """How a text has the symbols that the model's file spells so."""
        return byte_level(token) if self.bytes_only else token.encode()

    def cuts_bytes(self) -> bytes:
        return struct.pack("<I", len(self.cuts)) + b"".join(cut.to_bytes() for cut in self.cuts)


def compile_pre_tokenizer(node: source.PreTokenizer | None) -> PreTokenizer:
    """Raises CompileError for a sequence that changes the text after it was cut, or a pattern without an automaton."""
    made = PreTokenizer()
    for part in _flat(node):
        if made.bytes_only:
            raise CompileError(f"pre_tokenizer: {part.type} after ByteLevel", expected="ByteLevel as the last one")
        made = _with(made, part)
    return made


def _flat(node: source.PreTokenizer | None) -> Iterator[source.PreTokenizer]:
    if isinstance(node, source.PreTokenizers):
        for part in node.pretokenizers:
            yield from _flat(part)
    elif node is not None:
        yield node


def _with(made: PreTokenizer, part: source.PreTokenizer) -> PreTokenizer:
    if isinstance(part, source.ByteLevel):
        cuts = (Cut(compile_regex(_BYTE_LEVEL), "Isolated"),) if part.use_regex else ()
        prefix = _prefixed(made, part.type, Prefix(" ", "always")) if part.add_prefix_space else made.prefix
        return PreTokenizer(made.replaced, prefix, made.cuts + cuts, bytes_only=True)
    if isinstance(part, source.Metaspace):
        prefix = _prefixed(made, part.type, Prefix(part.replacement, part.prepend_scheme))
        cuts = (Cut(compile_literal(part.replacement), "MergedWithNext"),) if part.split else ()
        return PreTokenizer((" ", part.replacement), prefix, cuts)
    return PreTokenizer(made.replaced, made.prefix, (*made.cuts, *_cuts(part)))


def _prefixed(made: PreTokenizer, kind: str, prefix: Prefix) -> Prefix:
    if made.cuts or made.replaced:
        raise CompileError(f"pre_tokenizer: {kind} puts {prefix.text!r} before what others made", expected="it first")
    return prefix


def _cuts(part: source.PreTokenizer) -> Sequence[Cut]:
    if isinstance(part, source.Split):
        return (Cut(_automaton(part.pattern), part.behavior, part.invert),)
    if isinstance(part, source.Digits):
        digits = apart_by(pre_tokenizers.Digits(individual_digits=False))
        return (Cut(one_of(digits), "Isolated" if part.individual_digits else "Contiguous"),)
    if isinstance(part, source.Punctuation):
        return (Cut(one_of(removed_by(_PUNCTUATION)), part.behavior),)
    if isinstance(part, source.CharDelimiterSplit):
        return (Cut(compile_literal(part.delimiter), "Removed"),)
    assert isinstance(part, source.Simple)
    spaces = Cut(one_of(members(r"\s")), "Removed")
    return (spaces,) if part.type == "WhitespaceSplit" else (spaces, Cut(one_of(removed_by(_PUNCTUATION)), "Isolated"))


def _automaton(pattern: source.Pattern) -> Automaton:
    return compile_regex(pattern.Regex) if pattern.Regex is not None else compile_literal(str(pattern.String))
