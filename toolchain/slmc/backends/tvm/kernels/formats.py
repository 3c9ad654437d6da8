"""How activations are held for the matmuls that take them, whatever the bits of their weights.

Rows follow each other in three arrays; the C side knows them as `struct rows`:

    values    int8 or float32 [rows, columns]
    scales    float32 [rows, columns / 32], where values are int8
    offsets   4 bytes [rows, columns / 32], where values are int8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    T,
    lanes,
    let,
    reduce_lanes,
    round_to_int,
    scratch,
    splat,
    store,
)
from slmc.backends.tvm.layout import BLOCK
from slmc.names import Activations

TILE_ROWS = 4
"""Rows that a matmul of many computes at once: activations are held with room for whole tiles."""
_NEGLIGIBLE = 1e-30
"""A block whose largest activation is smaller counts as zeros; 127 / it would leave float32's range."""


@dataclass(frozen=True)
class Rows:
    """The three arrays as arguments of a kernel, each row `depth` blocks of 32 columns."""

    values: Buffer
    scales: Buffer
    offsets: Buffer
    depth: Expr

    def value(self, row: Expr, column: Expr) -> Expr:
        """Where it lies in `values`."""
        return row * self.depth * BLOCK + column

    def block(self, row: Expr, block: Expr) -> Expr:
        """Where it lies in `scales`, and `offsets` of 32 bits."""
        return row * self.depth + block


class Format(Protocol):
    def __hash__(self) -> int: ...

    activations: Activations
    values: str
    """dtype."""
    offsets: str
    """dtype."""

    def hold(self, floats: Buffer, rows: Rows, row: Expr, block: Expr) -> None:
        """Write 32 floats from a scratch buffer as one block of a row."""


def row_arguments(held_as: Format) -> dict[str, str]:
    """The arrays, then the depth: what `Rows` is made of."""
    return {
        "values": held_as.values + "*",
        "row_scales": "float32*",
        "offsets": held_as.offsets + "*",
        "depth": "int64",
    }


class PairsFormat:
    """8-bit integers in [-127, 127] with a scale for each 32 of them, found as the model runs.

    `offsets` are -8 times the sums of those that each of two lanes of 16 bits meets.
    """

    activations: Activations = "int8"
    values, offsets = "int8", "int16"

    def hold(self, floats: Buffer, rows: Rows, row: Expr, block: Expr) -> None:
        whole = _hold_int8(floats, rows, row, block)
        for lane in range(2):
            # A lane of 16 bits meets two of each four columns.
            met = sum((whole[k] for k in range(BLOCK) if k % 4 // 2 == lane), start=T.int32(0))
            store(rows.offsets, T.Cast("int16", met * T.int32(-8)), rows.block(row, block) * 2 + lane)


class FoursFormat:
    """As `PairsFormat`, with -8 times the sum of all 32 as `offsets`."""

    activations: Activations = "int8"
    values, offsets = "int8", "int32"

    def hold(self, floats: Buffer, rows: Rows, row: Expr, block: Expr) -> None:
        whole = _hold_int8(floats, rows, row, block)
        met = sum((whole[k] for k in range(BLOCK)), start=T.int32(0))
        store(rows.offsets, met * T.int32(-8), rows.block(row, block))


class FloatFormat:
    """As they are; scales and offsets are not touched."""

    activations: Activations = "float32"
    values, offsets = "float32", "int32"

    def hold(self, floats: Buffer, rows: Rows, row: Expr, block: Expr) -> None:
        for start in range(0, BLOCK, LANES):
            store(rows.values, floats[lanes(start)], lanes(rows.value(row, block * BLOCK + start)))


PAIRS, FOURS, FLOAT = PairsFormat(), FoursFormat(), FloatFormat()


def _hold_int8(floats: Buffer, rows: Rows, row: Expr, block: Expr) -> Buffer:
    """Write a block's activations and their scale; the integers, int32 [32], for the offsets."""
    largest, whole = scratch(LANES), scratch(BLOCK, "int32")
    vectors = [floats[lanes(start)] for start in range(0, BLOCK, LANES)]
    one, two, three, four = (T.fabs(vector) for vector in vectors)
    store(largest, T.max(T.max(one, two), T.max(three, four)), lanes(0))
    top = let(reduce_lanes(largest, T.max))
    store(rows.scales, top * T.float32(1 / 127), rows.block(row, block))
    inverse = let(T.if_then_else(top > T.float32(_NEGLIGIBLE), T.float32(127) / top, T.float32(0)))
    for start, vector in zip(range(0, BLOCK, LANES), vectors, strict=True):
        store(whole, round_to_int(vector * splat(inverse)), lanes(start))
    store(rows.values, T.Cast("int8x32", whole[lanes(0, BLOCK)]), lanes(rows.value(row, block * BLOCK), BLOCK))
    return whole
