"""How activations are held for the matmuls that take them, whatever the bits of their weights."""

from __future__ import annotations

from collections.abc import Sequence
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
from slmc.models.compiled import Kernels

Parts = Sequence[Buffer]
"""The tensors that hold activations, as `Format.parts` describes them."""

TILE_ROWS = 4
"""Activations of many rows are held with rows for whole tiles of the matmuls."""
_NEGLIGIBLE = 1e-30
"""A block whose largest activation is smaller counts as zeros; 127 / it would leave float32's range."""


@dataclass(frozen=True)
class Part:
    """A tensor [rows, *shape]."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Format(Protocol):
    def __hash__(self) -> int: ...

    def parts(self, columns: int) -> tuple[Part, ...]:
        """What holds rows of activations."""

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        """Write 32 floats from a scratch buffer as one block of a row."""


class Avx2Format:
    """8-bit integers in [-127, 127] with a scale for each 32 of them, found as the model runs.

    `offsets` are -8 times the sums of those that each of two lanes of 16 bits meets.
    """

    def parts(self, columns: int) -> tuple[Part, ...]:
        return _int8_parts(columns, Part("offsets", (columns // BLOCK, 2), "int16"))

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        whole = _hold_int8(values, parts, row, block)
        for lane in range(2):
            # A lane of 16 bits meets two of each four columns.
            met = sum((whole[k] for k in range(BLOCK) if k % 4 // 2 == lane), start=T.int32(0))
            store(parts[2], T.Cast("int16", met * T.int32(-8)), row, block, lane)


class VnniFormat:
    """As `Avx2Format`, with -8 times the sum of all 32 as `offsets`."""

    def parts(self, columns: int) -> tuple[Part, ...]:
        return _int8_parts(columns, Part("offsets", (columns // BLOCK,), "int32"))

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        whole = _hold_int8(values, parts, row, block)
        met = sum((whole[k] for k in range(BLOCK)), start=T.int32(0))
        store(parts[2], met * T.int32(-8), row, block)


class PortableFormat:
    """As they are, float32."""

    def parts(self, columns: int) -> tuple[Part, ...]:
        return (Part("values", (columns,), "float32"),)

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        for start in range(0, BLOCK, LANES):
            store(parts[0], values[lanes(start)], row, lanes(block * BLOCK + start))


FORMATS: dict[Kernels, Format] = {"avx2": Avx2Format(), "vnni": VnniFormat(), "portable": PortableFormat()}


def _int8_parts(columns: int, offsets: Part) -> tuple[Part, ...]:
    return Part("values", (columns,), "int8"), Part("scales", (columns // BLOCK,), "float32"), offsets


def _hold_int8(values: Buffer, parts: Parts, row: Expr, block: Expr) -> Buffer:
    """Write a block's activations and their scale; the integers, int32 [32], for the offsets."""
    largest, whole = scratch(LANES), scratch(BLOCK, "int32")
    vectors = [values[lanes(start)] for start in range(0, BLOCK, LANES)]
    one, two, three, four = (T.fabs(vector) for vector in vectors)
    store(largest, T.max(T.max(one, two), T.max(three, four)), lanes(0))
    top = let(reduce_lanes(largest, T.max))
    store(parts[1], top * T.float32(1 / 127), row, block)
    inverse = let(T.if_then_else(top > T.float32(_NEGLIGIBLE), T.float32(127) / top, T.float32(0)))
    for start, vector in zip(range(0, BLOCK, LANES), vectors, strict=True):
        store(whole, round_to_int(vector * splat(inverse)), lanes(start))
    store(parts[0], T.Cast("int8x32", whole[lanes(0, BLOCK)]), row, lanes(block * BLOCK, BLOCK))
    return whole
