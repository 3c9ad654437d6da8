"""Golden items of a task file: what a phone holds its own prompts and decisions against."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slmc.text.tables import NONE, strings_bytes


@dataclass(frozen=True)
class Golden:
    name: str
    fields: Mapping[str, str]
    ids: Sequence[int]
    """Of the whole prompt."""
    choice: int | None = None
    """What the compiled model chose where it was built; None where it was not asked."""
    probability: float = 0.0


def golden_bytes(items: Sequence[Golden], fields: Sequence[str]) -> bytes:
    """As native/golden.h reads it; `fields` are the prompt's, in its order."""
    begins = np.cumsum([0, *(len(item.ids) for item in items)])
    head = struct.pack("<3I", len(items), len(fields), begins[-1])
    table = b"".join(
        struct.pack("<3If", begin, len(item.ids), NONE if item.choice is None else item.choice, item.probability)
        for begin, item in zip(begins[:-1].tolist(), items, strict=True)
    )
    ids = np.array([id for item in items for id in item.ids], "<i4").tobytes()
    texts = [item.fields[name].encode() for item in items for name in fields]
    return head + table + ids + strings_bytes(texts + [item.name.encode() for item in items])
