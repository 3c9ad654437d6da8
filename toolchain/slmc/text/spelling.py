"""From ids back to text: what each token writes, as the tokenizer's decoder has it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tokenizers import decoders

from slmc.errors import CompileError
from slmc.text import tokenizer_json as source
from slmc.text.byte_level import byte_level
from slmc.text.sections import Section
from slmc.text.tables import strings_bytes

_RAW, _BYTE_RUNS = 1, 2
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPECIAL, BYTE, NO_TOKEN = 1, 2, 4
"""Kinds of tokens."""


@dataclass
class Writer:
    """What a decoder does with the tokens of an answer, in the order in which it does it."""

    later: Callable[[str], str] = lambda token: token
    """A token after the first, as text."""
    first: Callable[[str], str] | None = None
    """The first, where that differs."""
    raw: bool = False
    """Tokens are bytes, that make text only together."""
    byte_runs: bool = False
    """Tokens such as <0xE5> are bytes; a run of them is text, or else U+FFFD for each."""
    fused: bool = False
    strip: tuple[str, int] = field(default=(" ", 0))
    """How many of a character are dropped where the text begins."""


def compile_spelling(
    decoder: source.Decoder | None, texts: Sequence[str | None], special: frozenset[int]
) -> dict[Section, bytes]:
    """uint32 flags, characters to strip, how many at most; a byte for each token: what kind it is. And the pieces;
    those of the first token where they differ."""
    writer = _writer(decoder)
    kinds, later, first = bytearray(len(texts)), [b""] * len(texts), [b""] * len(texts)
    for id, text in enumerate(texts):
        kinds[id] = NO_TOKEN if text is None else SPECIAL if id in special else 0
        if text is None:
            continue
        byte = _BYTE_TOKEN.fullmatch(writer.later(text)) if writer.byte_runs else None
        if byte:
            kinds[id] |= BYTE
            later[id] = first[id] = bytes([int(byte[1], 16)])
        elif writer.raw:
            later[id] = first[id] = byte_level(text)
        else:
            later[id], first[id] = writer.later(text).encode(), (writer.first or writer.later)(text).encode()
    flags = (_RAW if writer.raw else 0) | (_BYTE_RUNS if writer.byte_runs else 0)
    head = struct.pack("<III", flags, ord(writer.strip[0]), writer.strip[1])
    made = {Section.SPELLING: head + bytes(kinds), Section.PIECES: strings_bytes(later)}
    return made if first == later else made | {Section.FIRST_PIECES: strings_bytes(first)}


def _writer(decoder: source.Decoder | None) -> Writer:
    if decoder is None:
        return Writer(later=lambda token: " " + token, first=lambda token: token)
    parts = list(_flat(decoder))
    if len(parts) == 1:
        return _alone(parts[0])
    writer = Writer()
    for part in parts:
        _add(writer, part)
    return writer


def _flat(node: source.Decoder) -> Iterator[source.Decoder]:
    if isinstance(node, source.Decoders):
        for part in node.decoders:
            yield from _flat(part)
    else:
        yield node


def _alone(part: source.Decoder) -> Writer:
    if isinstance(part, source.ByteLevel):
        return Writer(raw=True)
    if isinstance(part, source.Metaspace):
        mark, dropped = part.replacement, "" if part.prepend_scheme != "never" else " "
        return Writer(later=lambda token: token.replace(mark, " "), first=lambda token: token.replace(mark, dropped))
    if isinstance(part, source.WordPieceDecoder):
        library = decoders.WordPiece(part.prefix, part.cleanup)
        return Writer(later=lambda token: _after(library, token), first=lambda token: library.decode([token]))
    writer = Writer()
    _add(writer, part)
    return writer


def _after(library: decoders.Decoder, token: str) -> str:
    """What a decoder that looks at one token at a time writes for one that is not the first."""
    return str(library.decode(["", token]))


def _add(writer: Writer, part: source.Decoder) -> None:
    if isinstance(part, source.Replace) and not writer.byte_runs and not writer.fused:
        old, new, before = part.pattern.String, part.content, writer.later
        if old:
            writer.later = lambda token: before(token).replace(old, new)
            return
    elif isinstance(part, source.ByteFallback) and not writer.fused:
        writer.byte_runs = True
        return
    elif isinstance(part, source.Fuse):
        writer.fused = True
        return
    elif isinstance(part, source.Strip) and writer.fused and part.stop == 0 and writer.strip[1] == 0:
        writer.strip = (part.content, part.start)
        return
    raise CompileError(
        f"decoder: {part.type} here",
        expected="ByteLevel, Metaspace or WordPiece alone, or Replace of a string, ByteFallback, Fuse and then Strip",
    )
