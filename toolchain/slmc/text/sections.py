"""The task file, `task.slm`: everything but the weights that a decision needs, in sections that are read in place.

Little-endian, version 1:

    byte 0    8 bytes   53 4C 4D 54 0D 0A 1A 0A ("SLMT", then bytes that a transfer as text would change)
    8         uint32    version
    12        uint32    number of sections
    16        uint64    bytes of the whole file
    24        8 bytes   zero
    32        32 bytes  SHA-256 of all bytes from 64 to the end
    64        24 bytes for each section: uint32 kind, uint32 zero, uint64 where it begins, uint64 bytes
    each at a multiple of 64, their data

What each kind holds is told where it is written; native/task.c reads all of them, and checks every number in them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

MAGIC = b"SLMT\r\n\x1a\n"
VERSION = 1
_HEADER, _ENTRY, _ALIGNMENT = struct.Struct("<8sIIQ8x32s"), struct.Struct("<IIQQ"), 64


class Section(IntEnum):
    """`enum section` of native/task.h."""

    TOKENIZER = 1
    NORMALIZER = 2
    PREPARE = 3
    PREFIX = 4
    SPLITS = 5
    TOKENS = 6
    WORDS = 7
    CONTINUING = 8
    MERGES = 9
    SCORES = 10
    TRIE = 11
    ADDED = 12
    ADDED_NORMALIZED = 13
    SPELLING = 14
    PIECES = 15
    FIRST_PIECES = 16
    PROMPT = 17
    CHOICES = 18
    GRAMMAR = 19
    GOLDEN = 20


def write_sections(sections: Mapping[Section, bytes], path: Path) -> None:
    """The same sections, the same bytes."""
    table, data = [], bytearray()
    start = _aligned(_HEADER.size + len(sections) * _ENTRY.size)
    for kind, content in sorted(sections.items()):
        table.append(_ENTRY.pack(kind, 0, start + len(data), len(content)))
        data += content + bytes(_aligned(len(content)) - len(content))
    body = b"".join(table)
    body += bytes(start - _HEADER.size - len(body)) + data
    header = _HEADER.pack(MAGIC, VERSION, len(sections), _HEADER.size + len(body), hashlib.sha256(body).digest())
    path.write_bytes(header + body)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
