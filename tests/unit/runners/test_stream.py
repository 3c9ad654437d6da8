from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from slmc.prompt import Codec
from slmc.runners.stream import written

END = 256


class Bytes:
    """A codec whose tokens are bytes."""

    end_id = END

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class Speaker:
    """An engine that says a text, then the end token."""

    def __init__(self, text: str, context: int = 100) -> None:
        self.vocab_size, self.context, self.position = END + 1, context, 0
        self._left = [*text.encode(), END]

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.position += len(ids)
        logits = np.zeros(self.vocab_size, np.float32)
        logits[self._left.pop(0)] = 1
        return logits

    def rewind(self, position: int) -> None:
        raise AssertionError("nothing is taken back")


def pieces(speaker: Speaker, most: int) -> list[str]:
    codec: Codec = Bytes()  # type: ignore[assignment]
    return list(written(speaker, codec, [1, 2, 3], most))


@pytest.mark.parametrize("text", ["", "plain", "Grüße, 世界 🙂", "é"])
def test_pieces_are_whole_characters_and_make_the_text(text: str) -> None:
    found = pieces(Speaker(text), 60)
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_it_ends_where_it_must() -> None:
    assert "".join(pieces(Speaker("abcdef"), most=3)) == "abc"
    assert "".join(pieces(Speaker("abcdef", context=5), most=60)) == "abc"
