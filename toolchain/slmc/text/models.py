"""The models that make tokens of pieces of text: BPE, Unigram and WordPiece, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from slmc.errors import CompileError
from slmc.text import tokenizer_json as source
from slmc.text.byte_level import alphabet, byte_of
from slmc.text.sections import Section
from slmc.text.tables import NONE, pairs_table, trie_bytes, words_table

_BPE, _UNIGRAM, _WORD_PIECE = 0, 1, 2
_BYTES, _FUSE_UNKNOWN, _BYTE_FALLBACK = 1, 2, 4


@dataclass(frozen=True)
class CompiledModel:
    kind: int
    sections: Mapping[Section, bytes]
    flags: int = 0
    unknown: int = NONE
    longest_word: int = 0
    """Characters that WordPiece still looks into."""
    continuing_prefix: int = 0
    """Bytes that its tokens within a word begin with."""
    byte_ids: Sequence[int] = (NONE,) * 256
    """Of each byte's own token."""


def compile_model(
    model: source.Bpe | source.Unigram | source.WordPiece, library: Tokenizer, *, bytes_only: bool
) -> CompiledModel:
    """Raises CompileError for an option without a compiled form."""
    if isinstance(model, source.Bpe):
        return _bpe(model, library, bytes_only=bytes_only)
    if bytes_only:
        raise CompileError(f"model: {model.type} over bytes", expected="BPE after the pre-tokenizer ByteLevel")
    return _unigram(model) if isinstance(model, source.Unigram) else _word_piece(model)


def _bpe(model: source.Bpe, library: Tokenizer, *, bytes_only: bool) -> CompiledModel:
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if getattr(model, name):
            raise CompileError(f"model: {name} is {getattr(model, name)!r}", expected="none, for a model of type BPE")
    ranks = {pair: rank for rank, pair in enumerate(model.merges)}
    vocab = model.vocab
    merges = {(vocab[left], vocab[right]): (rank, vocab[left + right]) for (left, right), rank in ranks.items()}
    whole = {text: id for text, id in vocab.items() if model.ignore_merges or _is_whole(library, text, id)}
    return CompiledModel(
        kind=_BPE,
        sections={Section.WORDS: words_table(_spelled(whole, bytes_only)), Section.MERGES: pairs_table(merges)},
        flags=(_BYTES if bytes_only else 0)
        | (_FUSE_UNKNOWN if model.fuse_unk else 0)
        | (_BYTE_FALLBACK if model.byte_fallback else 0),
        unknown=_id_of(vocab, model.unk_token),
        byte_ids=_symbols(vocab) if bytes_only else _fallback(vocab) if model.byte_fallback else (NONE,) * 256,
    )


def _is_whole(library: Tokenizer, text: str, id: int) -> bool:
    """A piece that reads so becomes this one token; found by the library's own model."""
    return [token.id for token in library.model.tokenize(text)] == [id]


def _spelled(words: Mapping[str, int], bytes_only: bool) -> dict[bytes, int]:
    """Those that a piece can read as."""
    if not bytes_only:
        return {text.encode(): id for text, id in words.items() if text}
    bytes_of = byte_of()
    return {
        bytes(bytes_of[letter] for letter in text): id
        for text, id in words.items()
        if text and all(letter in bytes_of for letter in text)
    }


def _symbols(vocab: Mapping[str, int]) -> list[int]:
    return [vocab.get(letter, NONE) for letter in alphabet()]


def _fallback(vocab: Mapping[str, int]) -> list[int]:
    found = [vocab.get(f"<0x{byte:02X}>", NONE) for byte in range(256)]
    if NONE in found:
        raise CompileError(
            f"model: byte_fallback, but no token <0x{found.index(NONE):02X}>", expected="all 256 of them"
        )
    return found


def _id_of(vocab: Mapping[str, int], unknown: str | None) -> int:
    if unknown is None:
        return NONE
    if unknown not in vocab:
        raise CompileError(f"model: unk_token {unknown!r} is not in the vocabulary")
    return vocab[unknown]


def _unigram(model: source.Unigram) -> CompiledModel:
    if model.unk_id is None:
        raise CompileError(
            "model: no unk_id, so a text may have no tokens", expected="unk_id, for a model of type Unigram"
        )
    ids = {text: id for id, (text, _) in enumerate(model.vocab)}  # of equal ones the last, as the library has it
    scores = np.array([score for _, score in model.vocab], "<f8")
    if "" in ids or not np.isfinite(scores).all():
        raise CompileError("model: an empty token, or a score that is no number")
    return CompiledModel(
        kind=_UNIGRAM,
        sections={
            Section.SCORES: scores.tobytes(),
            Section.TRIE: trie_bytes((text.encode(), id) for text, id in ids.items()),
        },
        flags=_BYTE_FALLBACK if model.byte_fallback else 0,
        unknown=model.unk_id,
        byte_ids=_fallback(ids) if model.byte_fallback else (NONE,) * 256,
    )


def _word_piece(model: source.WordPiece) -> CompiledModel:
    prefix = model.continuing_subword_prefix
    continuing = {text[len(prefix) :]: id for text, id in model.vocab.items() if text.startswith(prefix)}
    return CompiledModel(
        kind=_WORD_PIECE,
        sections={
            Section.WORDS: words_table(_spelled(model.vocab, bytes_only=False)),
            Section.CONTINUING: words_table(_spelled(continuing, bytes_only=False)),
        },
        unknown=_id_of(model.vocab, model.unk_token),
        continuing_prefix=len(prefix.encode()),
        longest_word=model.max_input_chars_per_word,
    )
