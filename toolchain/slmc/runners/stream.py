"""An answer as it is written, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slmc.prompt import Codec
from slmc.runners.engine import Engine

_BROKEN = "\ufffd"
"""What the decoder writes for bytes that are no character yet."""


def written(engine: Engine, codec: Codec, prompt: Sequence[int], most: int) -> Iterator[str]:
    """The likeliest tokens after a prompt, as pieces of text of whole characters, until the end token, `most` tokens
    or a full context.
    """
    ids: list[int] = []
    told = ""
    logits = engine.extend(prompt)
    while len(ids) < most:
        token = int(logits.argmax())
        if token == codec.end_id:
            break
        ids.append(token)
        text = codec.decode(ids)
        if not text.endswith(_BROKEN):
            yield text[len(told) :]
            told = text
        if engine.position == engine.context:
            break
        logits = engine.extend([token])
    yield codec.decode(ids)[len(told) :]
