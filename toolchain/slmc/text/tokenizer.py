"""Compile a tokenizer into the sections of a task file: tables that native/encode.c and native/spell.c work on.

They give the same ids and the same text as the `tokenizers` library for every string; what has no such form is
refused by its name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from slmc.errors import CompileError
from slmc.text import models
from slmc.text import tokenizer_json as source
from slmc.text.normalizer import compile_normalizer, steps_bytes
from slmc.text.pre_tokenizer import compile_pre_tokenizer
from slmc.text.sections import Section
from slmc.text.spelling import compile_spelling
from slmc.text.tables import strings_bytes, trie_bytes

_LSTRIP, _RSTRIP = 1 << 29, 1 << 30  # of an added token, above its id
_MOST_TOKENS = 1 << 24


@dataclass(frozen=True)
class Vocabulary:
    """Every token by its id; None where an id has none."""

    texts: Sequence[str | None]
    special: frozenset[int]


def compile_tokenizer(path: Path) -> dict[Section, bytes]:
    """A tokenizer.json's sections. Raises CompileError naming what can't be compiled."""
    described, library = source.read_tokenizer(path)
    try:
        return _compile(described, library)
    except CompileError as error:
        raise CompileError(error.what, where=path, expected=error.expected, todo=error.todo) from None


def _compile(described: source.TokenizerJson, library: Tokenizer) -> dict[Section, bytes]:
    pieces = compile_pre_tokenizer(described.pre_tokenizer)
    vocabulary = _vocabulary(described, library)
    model = models.compile_model(described.model, library, bytes_only=pieces.bytes_only)
    before, after = _special(described.post_processor)
    replaced = None
    if pieces.replaced is not None:
        pattern, content = pieces.replaced
        replaced = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    tokens = strings_bytes([b"" if text is None else pieces.alphabet(text) for text in vocabulary.texts])
    spelling = compile_spelling(described.decoder, vocabulary.texts, vocabulary.special)
    if spelling[Section.PIECES] == tokens:
        del spelling[Section.PIECES]
    return {
        Section.TOKENIZER: _header(model, len(vocabulary.texts), before, after),
        Section.NORMALIZER: steps_bytes(compile_normalizer(described.normalizer)),
        Section.PREPARE: steps_bytes(compile_normalizer(replaced)),
        Section.PREFIX: pieces.prefix.to_bytes(),
        Section.SPLITS: pieces.cuts_bytes(),
        Section.TOKENS: tokens,
        **model.sections,
        **_added(described, library),
        **spelling,
    }


def _vocabulary(described: source.TokenizerJson, library: Tokenizer) -> Vocabulary:
    model = described.model
    known = range(len(model.vocab)) if isinstance(model, source.Unigram) else model.vocab.values()
    ids = {*known, *(token.id for token in described.added_tokens)}
    if not ids or max(ids) >= _MOST_TOKENS:
        raise CompileError("no tokens, or one whose id is 2^24 or more")
    special = frozenset(token.id for token in described.added_tokens if token.special)
    # Of added tokens the library knows the normalized text, not what its file says.
    return Vocabulary([library.id_to_token(id) for id in range(max(ids) + 1)], special)


def _header(model: models.CompiledModel, count: int, before: Sequence[int], after: Sequence[int]) -> bytes:
    """uint32: model, tokens, flags, unknown, longest word, how many ids before and after a text, bytes of WordPiece's
    prefix; the id of each byte; the ids before and after.
    """
    numbers = (model.kind, count, model.flags, model.unknown, model.longest_word, len(before), len(after))
    ids = np.array([*model.byte_ids, *before, *after], "<u4").tobytes()
    return struct.pack("<8I", *numbers, model.continuing_prefix) + ids


def _special(node: source.PostProcessor | None) -> tuple[list[int], list[int]]:
    """Ids that are put before and after one text."""
    if isinstance(node, source.PostProcessors):
        sides = [_special(part) for part in node.processors]
        # Each wraps what the ones before it made.
        return [id for before, _ in reversed(sides) for id in before], [id for _, after in sides for id in after]
    if isinstance(node, source.Bert | source.Roberta):
        return [node.cls[1]], [node.sep[1]]
    if isinstance(node, source.Template):
        return _template(node)
    return [], []


def _template(node: source.Template) -> tuple[list[int], list[int]]:
    sides: tuple[list[int], list[int]] = ([], [])
    seen = 0
    for part in node.single:
        if part.Sequence is not None:
            seen += 1
        elif part.SpecialToken is not None:
            sides[min(seen, 1)].extend(node.special_tokens[part.SpecialToken.id].ids)
    if seen != 1:
        raise CompileError(f"post_processor: a template with the text {seen} times", expected="once")
    return sides


def _added(described: source.TokenizerJson, library: Tokenizer) -> Mapping[Section, bytes]:
    """Tries of the tokens that are looked for in the text, before and after it is normalized."""
    found: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    # Of two that normalize to the same, the library takes the special one, then the earlier.
    for token in sorted(described.added_tokens, key=lambda token: not token.special):
        if token.single_word:
            raise CompileError(f"added token {token.content!r} is for single words only", expected="single_word: false")
        text = token.content
        if token.normalized and library.normalizer is not None:
            text = library.normalizer.normalize_str(text)
        if not text:
            raise CompileError(f"added token {token.content!r} is empty once it is normalized")
        flags = (_LSTRIP if token.lstrip else 0) | (_RSTRIP if token.rstrip else 0)
        found[token.normalized].setdefault(text.encode(), token.id | flags)
    return {
        Section.ADDED: trie_bytes(found[False].items()),
        Section.ADDED_NORMALIZED: trie_bytes(found[True].items()),
    }
