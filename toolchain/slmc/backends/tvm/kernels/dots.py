"""How weights meet activations: with `formats`, the one place where the kernels differ between CPUs.

A `Dot` gives the products of 32 activations of a row with a block of 8 rows x 32 columns of weights of
4 or 8 bits (see `layout`), before the block's scales. On integers they are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from slmc.backends.tvm.kernels.formats import FORMATS, TILE_ROWS, Format, Parts
from slmc.backends.tvm.kernels.tir import Expr, T, lanes, let, splat
from slmc.backends.tvm.layout import VECTOR
from slmc.models.compiled import Kernels
from slmc.names import Bits

Weights = Sequence[Expr]
"""Four columns of a block's eight rows, in the form in which `Dot.multiply` takes them."""


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

    activations: Format
    one_row: Tile
    many_rows: Tile

    @property
    def bits(self) -> Bits:
        """Of a weight."""

    def split(self, vector: Expr) -> list[Weights]:
        """A vector of a block, uint8x32: at 8 bits four columns, at 4 bits those of low and high nibbles."""

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        """What the products of a row with a block are added to."""

    def multiply(self, total: Expr, weights: Weights, parts: Parts, row: Expr, column: Expr) -> Expr:
        """Add the products with the four columns from `column` on."""

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        """The eight sums, float32x8."""


class Avx2Int4:
    """`vpmaddubsw` adds products of an unsigned code and a signed activation in pairs, 16 bits wide: the
    sums of a block stay within 16 * 15 * 127 = 30,480. Codes are stored plus 8, so the total begins at
    -8 times the activations that its lane will meet.
    """

    bits: Bits = 4
    activations = FORMATS["avx2"]
    one_row = Tile(rows=1, blocks=1, ahead=64)
    many_rows = Tile(rows=TILE_ROWS, blocks=1, ahead=8)

    def split(self, vector: Expr) -> list[Weights]:
        return _unsigned_codes(vector, self.bits)

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        offsets = parts[2][row, block, lanes(0, 2)]
        return T.reinterpret("int16x16", splat(T.reinterpret("int32", offsets)))

    def multiply(self, total: Expr, weights: Weights, parts: Parts, row: Expr, column: Expr) -> Expr:
        return total + _added_in_pairs(weights[0], _four_to_each_lane(parts, row, column))

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return T.Cast("float32x8", _added_in_fours(total)) * splat(parts[1][row, block])


class Avx2Int8:
    """`vpmaddubsw` again, of a code's magnitude and an activation with the code's sign: a pair stays within
    2 * 128 * 127 = 32,512, and is widened before it is added to others.
    """

    bits: Bits = 8
    activations = FORMATS["avx2"]
    one_row = Tile(rows=1, blocks=1, ahead=32)
    many_rows = Tile(rows=TILE_ROWS, blocks=1, ahead=8)

    def split(self, vector: Expr) -> list[Weights]:
        codes = let(vector ^ splat(T.uint8(128), VECTOR))
        return [[let(_signed_as(codes, codes)), codes]]

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        return splat(T.int32(0))

    def multiply(self, total: Expr, weights: Weights, parts: Parts, row: Expr, column: Expr) -> Expr:
        magnitudes, codes = weights
        activations = _signed_as(_four_to_each_lane(parts, row, column), codes)
        return total + _added_in_fours(_added_in_pairs(magnitudes, activations))

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return T.Cast("float32x8", total) * splat(parts[1][row, block])


@dataclass(frozen=True)
class Vnni:
    """`vpdpbusd` adds four products of an unsigned code and a signed activation to a lane of 32 bits; there
    are 32 registers.
    """

    bits: Bits
    activations = FORMATS["vnni"]
    one_row = Tile(rows=1, blocks=1, ahead=64)
    many_rows = Tile(rows=TILE_ROWS, blocks=4, ahead=8)

    def split(self, vector: Expr) -> list[Weights]:
        return _unsigned_codes(vector, self.bits)

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        # The offsets are for codes plus 8; those of 8 bits are stored plus 128.
        scale = 2 ** (self.bits - 4)
        return splat(parts[2][row, block] * T.int32(scale))

    def multiply(self, total: Expr, weights: Weights, parts: Parts, row: Expr, column: Expr) -> Expr:
        activations = _four_to_each_lane(parts, row, column)
        return _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", total, weights[0], activations)

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return T.Cast("float32x8", total) * splat(parts[1][row, block])


@dataclass(frozen=True)
class Portable:
    """Activations as they are, float32: any CPU, exact but for the order of the sums."""

    bits: Bits
    activations = FORMATS["portable"]
    # Blocks side by side are sums that don't wait for each other.
    one_row = Tile(rows=1, blocks=4, ahead=8)
    many_rows = Tile(rows=TILE_ROWS, blocks=2, ahead=8)

    def split(self, vector: Expr) -> list[Weights]:
        words = let(T.reinterpret("int32x8", vector))
        return [[self._column(words, start + 8 * j) for j in range(4)] for start in range(0, 8, self.bits)]

    def _column(self, words: Expr, shift: int) -> Expr:
        unsigned = T.shift_right(words, splat(T.int32(shift))) & splat(T.int32((1 << self.bits) - 1))
        return let(T.Cast("float32x8", unsigned - splat(T.int32(1 << self.bits - 1))))

    def start(self, parts: Parts, row: Expr, block: Expr) -> Expr:
        return splat(0.0)

    def multiply(self, total: Expr, weights: Weights, parts: Parts, row: Expr, column: Expr) -> Expr:
        for j, codes in enumerate(weights):
            total = total + codes * splat(parts[0][row, column + j])
        return total

    def finish(self, total: Expr, parts: Parts, row: Expr, block: Expr) -> Expr:
        return total


DOTS: dict[tuple[Kernels, Bits], Dot] = {
    ("avx2", 4): Avx2Int4(),
    ("avx2", 8): Avx2Int8(),
    ("vnni", 4): Vnni(4),
    ("vnni", 8): Vnni(8),
    ("portable", 4): Portable(4),
    ("portable", 8): Portable(8),
}
"""By the bits of a weight."""


def _unsigned_codes(vector: Expr, bits: Bits) -> list[Weights]:
    if bits == 8:
        return [[vector]]
    low = vector & splat(T.uint8(15), VECTOR)
    high = T.shift_right(vector, splat(T.uint8(4), VECTOR))
    return [[let(low)], [let(high)]]


def _four_to_each_lane(parts: Parts, row: Expr, column: Expr) -> Expr:
    """Four activations from a column on, int8x32, the same for each of a block's eight rows."""
    four = parts[0][row, lanes(column, 4)]
    return T.reinterpret("int8x32", splat(T.reinterpret("int32", four)))


def _signed_as(values: Expr, signs: Expr) -> Expr:
    """Bytes negated, or made zero, where those of `signs` are negative or zero."""
    return _intrinsic("int8x32", "llvm.x86.avx2.psign.b", values, signs)


def _added_in_pairs(unsigned: Expr, signed: Expr) -> Expr:
    """Products of bytes, each added to its neighbour's."""
    return _intrinsic("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)


def _added_in_fours(pairs: Expr) -> Expr:
    """Sums of pairs, each added to its neighbour."""
    return _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, splat(T.int16(1), 16))


def _intrinsic(dtype: str, name: str, *arguments: Expr) -> Expr:
    return T.call_llvm_pure_intrin(dtype, name, *arguments)
