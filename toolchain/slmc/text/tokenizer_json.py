"""`tokenizer.json` as types: what can be compiled has one here, everything else is refused by its name.

The file is read by the `tokenizers` library and written by it again, so that older ways to say the same are one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tokenizers import Tokenizer

from slmc.errors import CompileError
from slmc.strict import Strict, parse

Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


class AddedToken(Strict):
    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


# ---- Pre-tokenizers --------------------------------------------------------------------------------------------------


class Pattern(Strict):
    Regex: str | None = None
    String: str | None = None


class ByteLevel(Strict):
    type: Literal["ByteLevel"]
    add_prefix_space: bool
    trim_offsets: bool
    use_regex: bool


class Metaspace(Strict):
    type: Literal["Metaspace"]
    replacement: str
    prepend_scheme: Literal["always", "first", "never"]
    split: bool


class Split(Strict):
    type: Literal["Split"]
    pattern: Pattern
    behavior: Behavior
    invert: bool


class Digits(Strict):
    type: Literal["Digits"]
    individual_digits: bool


class Punctuation(Strict):
    type: Literal["Punctuation"]
    behavior: Behavior


class CharDelimiterSplit(Strict):
    type: Literal["CharDelimiterSplit"]
    delimiter: str


class Simple(Strict):
    type: Literal["Whitespace", "WhitespaceSplit", "BertPreTokenizer"]


class PreTokenizers(Strict):
    type: Literal["Sequence"]
    pretokenizers: tuple[PreTokenizer, ...]


PreTokenizer = Annotated[
    ByteLevel | Metaspace | Split | Digits | Punctuation | CharDelimiterSplit | Simple | PreTokenizers,
    Field(discriminator="type"),
]


# ---- Models ----------------------------------------------------------------------------------------------------------


class Bpe(Strict):
    type: Literal["BPE"]
    dropout: float | None
    unk_token: str | None
    continuing_subword_prefix: str | None
    end_of_word_suffix: str | None
    fuse_unk: bool
    byte_fallback: bool
    ignore_merges: bool
    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]


class Unigram(Strict):
    type: Literal["Unigram"]
    unk_id: int | None
    vocab: tuple[tuple[str, float], ...]
    byte_fallback: bool


class WordPiece(Strict):
    type: Literal["WordPiece"]
    unk_token: str
    continuing_subword_prefix: str
    max_input_chars_per_word: int
    vocab: dict[str, int]


# ---- Post-processors -------------------------------------------------------------------------------------------------


class Placed(Strict):
    id: str
    type_id: int


class TemplatePart(Strict):
    SpecialToken: Placed | None = None
    Sequence: Placed | None = None


class TemplateToken(Strict):
    id: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]


class Template(Strict):
    type: Literal["TemplateProcessing"]
    single: tuple[TemplatePart, ...]
    pair: tuple[TemplatePart, ...]
    special_tokens: dict[str, TemplateToken]


class Bert(Strict):
    type: Literal["BertProcessing"]
    sep: tuple[str, int]
    cls: tuple[str, int]


class Roberta(Strict):
    type: Literal["RobertaProcessing"]
    sep: tuple[str, int]
    cls: tuple[str, int]
    trim_offsets: bool
    add_prefix_space: bool


class PostProcessors(Strict):
    type: Literal["Sequence"]
    processors: tuple[PostProcessor, ...]


PostProcessor = Annotated[ByteLevel | Template | Bert | Roberta | PostProcessors, Field(discriminator="type")]


# ---- Decoders --------------------------------------------------------------------------------------------------------


class Replace(Strict):
    type: Literal["Replace"]
    pattern: Pattern
    content: str


class ByteFallback(Strict):
    type: Literal["ByteFallback"]


class Fuse(Strict):
    type: Literal["Fuse"]


class Strip(Strict):
    type: Literal["Strip"]
    content: str
    start: int
    stop: int


class WordPieceDecoder(Strict):
    type: Literal["WordPiece"]
    prefix: str
    cleanup: bool


class Decoders(Strict):
    type: Literal["Sequence"]
    decoders: tuple[Decoder, ...]


Decoder = Annotated[
    ByteLevel | Metaspace | Replace | ByteFallback | Fuse | Strip | WordPieceDecoder | Decoders,
    Field(discriminator="type"),
]


class TokenizerJson(Strict):
    version: str
    truncation: object | None
    padding: object | None
    added_tokens: tuple[AddedToken, ...]
    normalizer: dict[str, object] | None
    pre_tokenizer: PreTokenizer | None
    post_processor: PostProcessor | None
    decoder: Decoder | None
    model: Annotated[Bpe | Unigram | WordPiece, Field(discriminator="type")]


def read_tokenizer(path: Path) -> tuple[TokenizerJson, Tokenizer]:
    """A tokenizer's file and what the library makes of it.

    Raises CompileError naming the part that has no compiled form, or where the library can't read the file.
    """
    try:
        library = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for any malformed file
        raise CompileError(f"the tokenizer can't be read: {error}", where=path) from None
    library.no_truncation()
    library.no_padding()
    return parse(TokenizerJson, json.loads(library.to_str()), path, CompileError), library
