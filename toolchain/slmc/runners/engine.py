"""What a runner asks of a model that it steps through one item at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError


class Engine(Protocol):
    """A loaded model with the keys and values of the tokens it has read.

    Raises RunnerError where a call would go beyond the context or the tokens read.
    """

    @property
    def kernels(self) -> str:
        """What multiplies matrices: a CPU level's kernels, or a delegate."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int:
        """How many tokens it can hold."""

    @property
    def position(self) -> int:
        """How many tokens it holds now."""

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""


def check_tokens(engine: Engine, ids: Sequence[int]) -> None:
    """Raises RunnerError for tokens that an engine can't read now."""
    if not 0 < len(ids) <= engine.context - engine.position:
        raise RunnerError(
            f"{len(ids)} tokens after {engine.position}", expected=f"at least one, and {engine.context} in all"
        )
    if not all(0 <= token < engine.vocab_size for token in ids):
        raise RunnerError("a token outside the vocabulary", expected=f"0 to {engine.vocab_size - 1}")


def check_rewind(engine: Engine, position: int) -> None:
    """Raises RunnerError for a position that an engine has not read to."""
    if not 0 <= position <= engine.position:
        raise RunnerError(f"can't rewind to {position}", expected=f"a position from 0 to {engine.position}")


def check_finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same. Raises RunnerError where they are no numbers."""
    if not np.isfinite(logits).all():
        raise RunnerError("the model answered with values that are no numbers")
    return logits
