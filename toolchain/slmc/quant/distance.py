"""How far a quantized tensor is from the merged one: squared error over squared weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slmc.checkpoint.dtypes import Float32


@dataclass
class Distance:
    """Added up by blocks of rows."""

    error: float = 0.0
    power: float = 0.0

    def add(self, wanted: Float32, found: Float32) -> None:
        """A block of the merged tensor, and what became of it."""
        self.error += _sum_of_squares(wanted - found)
        self.power += _sum_of_squares(wanted)

    @property
    def relative(self) -> float:
        """0 for a tensor of zeros that stayed so."""
        return self.error / self.power if self.power else self.error


def column_scales(before: Float32, after: Float32) -> Float32:
    """What a norm's division `after = before / s` multiplied the columns of the matrices behind it by: s.

    1 where the norm is zero, and its columns mean nothing.
    """
    return np.divide(before, after, out=np.ones_like(before), where=after != 0)


def _sum_of_squares(values: Float32) -> float:
    """Of a block's elements; numpy adds up pairwise, so float32 serves."""
    return float(np.square(values).sum())
