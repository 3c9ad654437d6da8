"""The prompt's section of a task file: what stands around a message, and what every prompt begins with."""

from __future__ import annotations

import itertools
import string
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from slmc.prompt import Codec
from slmc.text.tables import NONE, strings_bytes

_TRIM, _SPECIAL = 1, 2
_UNLIKE = ("a", "7", " ", "\n", "é", "<", "'s", "▁", "一", "A b", "\u0301")
"""Messages with little in common, nor with what may stand before them."""


def prompt_bytes(codec: Codec, known: Sequence[int]) -> bytes:
    """As native/prompt.h reads it:

    uint32 flags, end id, parts, fields, known; for each part NONE or its field; the known ids; then strings: what comes
    before, what after, the answer's prefix, the parts' texts, the fields' names.
    """
    form = codec.format
    parts = [
        (text, field)
        for literal, name, _, _ in string.Formatter().parse(form.message)
        for text, field in ((literal, NONE), ("", NONE if name is None else form.fields.index(name)))
        if text or field != NONE
    ]
    flags = (_TRIM if form.trim else 0) | (_SPECIAL if form.special_tokens else 0)
    numbers = struct.pack("<5I", flags, form.end_id, len(parts), len(form.fields), len(known))
    texts = [form.prefix, form.suffix, form.answer_prefix, *(text for text, _ in parts), *form.fields]
    places = np.array([field for _, field in parts], "<u4").tobytes() + np.array(known, "<i4").tobytes()
    return numbers + places + strings_bytes([text.encode() for text in texts])


def known_ids(codec: Codec, examples: Iterable[Mapping[str, str]]) -> list[int]:
    """What prompts begin with: these and those of unlike messages. One that doesn't is read from where it differs."""
    messages = [*(dict.fromkeys(codec.format.fields, text) for text in _UNLIKE), *examples]
    prompts = [codec.prompt(fields)[1] for fields in messages]
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return [column[0] for column in alike]
