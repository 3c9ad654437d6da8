"""Spend a size limit: 8 bits for the matrices where they save most a byte, 4 for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """Tensors that must share their bits."""

    names: tuple[str, ...]
    weights: int
    bits: float
    """A weight takes so many as the recipe has it, scales included; summed up over the tensors and divided."""
    wide: float
    """The same with 8-bit codes."""
    gain: float
    """Nats a token that the wider codes save."""

    @property
    def cost(self) -> float:
        """Bits that the wider codes take more."""
        return (self.wide - self.bits) * self.weights


def widened(matrices: Sequence[Matrix], budget: float) -> list[Matrix]:
    """Those to widen, so that the mean stays at or below `budget` bits a weight; the greatest gain a bit first.

    Taking by gain a bit leaves less than one matrix of the limit unspent, and is the best choice for what it
    spends (Dantzig's bound for the knapsack problem, 1957). What does not fit is passed over for what does.
    """
    left = sum((budget - matrix.bits) * matrix.weights for matrix in matrices)
    found = []
    for matrix in sorted(matrices, key=lambda one: -one.gain / max(one.cost, 1e-9)):
        if 0 < matrix.cost <= left and matrix.gain > 0:
            found.append(matrix)
            left -= matrix.cost
    return found
