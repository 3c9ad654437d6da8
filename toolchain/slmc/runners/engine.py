"""What a runner asks of a model that it steps through one item at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
