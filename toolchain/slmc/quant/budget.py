"""Spend a size limit: 8 bits for the matrices where they save most, 4 for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """Tensors that must share their bits."""

    names: tuple[str, ...]
    weights: int
    bits: float
    """Mean of the tensors' bits a weight as the recipe has them, scales included."""
    wide: float
    """The same with 8-bit codes."""
    gain: float
    """Nats a token that the wider codes save."""

    @property
    def cost(self) -> float:
        """Bits that the wider codes take more."""
        return (self.wide - self.bits) * self.weights


def widened(matrices: Sequence[Matrix], budget: float) -> list[Matrix]:
    """Those to widen, so that the mean stays at or below `budget` bits a weight.

    A knapsack filled by gain a bit, what does not fit passed over for what does; and again with each of the
    matrices put in first, since a large one that is passed over can be worth more (Sahni 1975). The best is taken.
    """
    left = sum((budget - matrix.bits) * matrix.weights for matrix in matrices)
    useful = [matrix for matrix in matrices if matrix.gain > 0 and matrix.cost > 0]
    by_rate = sorted(useful, key=lambda one: -one.gain / one.cost)
    filled = [_filled(by_rate, left), *(_filled([first, *by_rate], left) for first in by_rate)]
    return max(filled, key=lambda found: sum(matrix.gain for matrix in found))


def _filled(matrices: Iterable[Matrix], left: float) -> list[Matrix]:
    """One after the other, as far as what is left goes; none twice."""
    found: list[Matrix] = []
    for matrix in matrices:
        if matrix not in found and matrix.cost <= left:
            found.append(matrix)
            left -= matrix.cost
    return found
