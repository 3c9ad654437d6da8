"""How weights meet activations: the one place where the kernels differ between CPUs.

A `Dot` says how activations [rows, columns] are held for a matmul, and gives the products of 32 of
them with a block of 8 rows x 32 columns of weights (see `layout`), before the block's scales.
"""

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
"""The tensors that hold activations, as `Dot.parts` describes them."""

_NEGLIGIBLE = 1e-30
"""A block whose largest activation is smaller counts as zeros; 127 / it would leave float32's range."""


@dataclass(frozen=True)
class Part:
    """A tensor [rows, *shape]."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Tile:
    """What a matmul computes at once."""

    rows: int
    """Rows of activations."""
    blocks: int
    """Blocks, 8 rows of weights each."""
    ahead: int
    """How many blocks ahead, along the columns, memory is asked for."""


class Dot(Protocol):
    def __hash__(self) -> int: ...

    one_row: Tile
    many_rows: Tile

    def parts(self, columns: int) -> tuple[Part, ...]:
        """What holds rows of activations."""

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        """Write 32 floats from a scratch buffer as one block of a row."""

    def split(self, weights: Expr) -> list[Expr]:
        """Vector v of a block, uint8x32, in the form in which `multiply` takes it."""

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        """What the products of a row with a block are added to."""

    def multiply(self, total: Expr, weights: list[Expr], v: int, parts: Parts, row: Expr, block: Expr) -> Expr:
        """Add the products with vector v of a block."""

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        """The eight sums, float32x8."""


class Avx2Dot:
    """Activations as 8-bit integers with a scale for each 32 of them, found as the model runs.

    `vpmaddubsw` adds products of an unsigned code and a signed activation in pairs, 16 bits wide: the
    sums of a block stay within 16 * 15 * 127 = 30,480. Codes are stored plus 8, so the total begins at
    -8 times the activations that its lane will meet.
    """

    one_row = Tile(rows=1, blocks=1, ahead=64)
    many_rows = Tile(rows=4, blocks=1, ahead=8)

    def parts(self, columns: int) -> tuple[Part, ...]:
        return _int8_parts(columns, Part("offsets", (columns // BLOCK, 2), "int16"))

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        whole = _hold_int8(values, parts, row, block)
        for lane in range(2):
            # A lane of 16 bits meets two of each four columns.
            met = sum((whole[k] for k in range(BLOCK) if k % 4 // 2 == lane), start=T.int32(0))
            store(parts[2], T.Cast("int16", met * T.int32(-8)), row, block, lane)

    def split(self, weights: Expr) -> list[Expr]:
        return _nibbles(weights)

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        offsets = parts[2][row, block, lanes(0, 2)]
        return T.reinterpret("int16x16", splat(T.reinterpret("int32", offsets)))

    def multiply(self, total: Expr, weights: list[Expr], v: int, parts: Parts, row: Expr, block: Expr) -> Expr:
        for half, codes in enumerate(weights):
            activations = _four_to_each_lane(parts, row, block, half, v)
            total = total + _intrinsic("int16x16", "llvm.x86.avx2.pmadd.ub.sw", codes, activations)
        return total

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        sums = _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", total, splat(T.int16(1), 16))
        return T.Cast("float32x8", sums) * splat(parts[1][row, block])


class VnniDot:
    """As `Avx2Dot`, where `vpdpbusd` adds four products to a lane of 32 bits at once, and there are 32 registers."""

    one_row = Tile(rows=1, blocks=1, ahead=64)
    many_rows = Tile(rows=4, blocks=4, ahead=8)

    def parts(self, columns: int) -> tuple[Part, ...]:
        return _int8_parts(columns, Part("offsets", (columns // BLOCK,), "int32"))

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        whole = _hold_int8(values, parts, row, block)
        met = sum((whole[k] for k in range(BLOCK)), start=T.int32(0))
        store(parts[2], met * T.int32(-8), row, block)

    def split(self, weights: Expr) -> list[Expr]:
        return _nibbles(weights)

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        return splat(parts[2][row, block])

    def multiply(self, total: Expr, weights: list[Expr], v: int, parts: Parts, row: Expr, block: Expr) -> Expr:
        for half, codes in enumerate(weights):
            activations = _four_to_each_lane(parts, row, block, half, v)
            total = _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", total, codes, activations)
        return total

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return T.Cast("float32x8", total) * splat(parts[1][row, block])


class PortableDot:
    """Activations as they are, float32: any CPU, exact but for the order of the sums."""

    # Blocks side by side are sums that don't wait for each other.
    one_row = Tile(rows=1, blocks=4, ahead=8)
    many_rows = Tile(rows=4, blocks=2, ahead=8)

    def parts(self, columns: int) -> tuple[Part, ...]:
        return (Part("values", (columns,), "float32"),)

    def hold(self, values: Buffer, parts: Parts, row: Expr, block: Expr) -> None:
        for start in range(0, BLOCK, LANES):
            store(parts[0], values[lanes(start)], row, lanes(block * BLOCK + start))

    def split(self, weights: Expr) -> list[Expr]:
        words = let(T.reinterpret("int32x8", weights))
        shifted = [T.shift_right(words, splat(T.int32(shift))) for shift in (0, 8, 16, 24, 4, 12, 20, 28)]
        codes = [(word & splat(T.int32(15))) - splat(T.int32(8)) for word in shifted]
        return [let(T.Cast("float32x8", code)) for code in codes]

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        return splat(0.0)

    def multiply(self, total: Expr, weights: list[Expr], v: int, parts: Parts, row: Expr, block: Expr) -> Expr:
        columns = [half * 16 + v * 4 + j for half in range(2) for j in range(4)]
        for column, codes in zip(columns, weights, strict=True):
            total = total + codes * splat(parts[0][row, block * BLOCK + column])
        return total

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return total


DOTS: dict[Kernels, Dot] = {"avx2": Avx2Dot(), "vnni": VnniDot(), "portable": PortableDot()}


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


def _nibbles(weights: Expr) -> list[Expr]:
    low = weights & splat(T.uint8(15), 32)
    high = T.shift_right(weights, splat(T.uint8(4), 32))
    return [let(low), let(high)]


def _four_to_each_lane(parts: Parts, row: Expr, block: Expr, half: int, v: int) -> Expr:
    """The four activations that vector v of a block meets, int8x32, the same for each of its eight rows."""
    four = parts[0][row, lanes(block * BLOCK + half * 16 + v * 4, 4)]
    return T.reinterpret("int8x32", splat(T.reinterpret("int32", four)))


def _intrinsic(dtype: str, name: str, *arguments: Expr) -> Expr:
    return T.call_llvm_pure_intrin(dtype, name, *arguments)
