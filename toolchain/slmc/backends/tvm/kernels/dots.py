"""How weights meet activations: with `formats`, the one place where the kernels differ between CPUs.

A `Dot` gives the products of 32 activations of a row, or of two rows, with a block of 8 rows x 32 columns of
weights of 4 or 8 bits (see `layout`), or with two blocks, before their scales. On integers they are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from slmc.backends.tvm.kernels.formats import FLOAT, FOURS, PAIRS, TILE_ROWS, Format, Rows
from slmc.backends.tvm.kernels.tir import Expr, T, joined, lanes, let, splat, width
from slmc.backends.tvm.layout import VECTOR
from slmc.names import Bits

Weights = Sequence[Expr]
"""Some columns of a block's eight rows, in the form in which `Dot.multiply` takes them."""


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

    @property
    def activations(self) -> Format: ...

    @property
    def one_row(self) -> Tile: ...

    @property
    def many_rows(self) -> Tile: ...

    @property
    def bits(self) -> Bits:
        """Of a weight."""

    @property
    def rows(self) -> int:
        """Of activations that one total is for."""

    @property
    def blocks(self) -> int:
        """Of weights, one above the other, that one total is for."""

    @property
    def vectors(self) -> int:
        """Of a block that are multiplied at once; each has four columns, at 4 bits four in either nibble."""

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        """Vectors block by block, uint8x32: at 8 bits their columns, at 4 bits those of low and high nibbles."""

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        """What the products of the rows from `row` on with the blocks are added to."""

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        """Add the products with the columns; `firsts` are the places of the first in the values of each row."""

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        """The sums of each row, float32, eight a block."""


class _OneRow:
    """What most have in common."""

    rows, blocks, vectors = 1, 1, 1


class PairsInt4(_OneRow):
    """`vpmaddubsw` adds products of an unsigned code and a signed activation in pairs, 16 bits wide: the
    sums of a block stay within 16 * 15 * 127 = 30,480. Codes are stored plus 8, so the total begins at
    -8 times the activations that its lane will meet.
    """

    bits: Bits = 4
    activations = PAIRS
    one_row = Tile(rows=1, blocks=1, ahead=64)
    many_rows = Tile(rows=TILE_ROWS, blocks=1, ahead=8)

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        return _unsigned_codes(vectors[0], self.bits)

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        offsets = rows.offsets[lanes(rows.block(row, block) * 2, 2)]
        return T.reinterpret("int16x16", splat(T.reinterpret("int32", offsets)))

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        return total + _added_in_pairs(weights[0], _four_to_each_lane(rows, firsts[0]))

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [T.Cast("float32x8", _added_in_fours(total)) * _scale(rows, row, block)]


class PairsInt8(_OneRow):
    """`vpmaddubsw` again, of a code's magnitude and an activation with the code's sign: a pair stays within
    2 * 128 * 127 = 32,512, and is widened before it is added to others.
    """

    bits: Bits = 8
    activations = PAIRS
    one_row = Tile(rows=1, blocks=1, ahead=32)
    many_rows = Tile(rows=TILE_ROWS, blocks=1, ahead=8)

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        codes = let(vectors[0] ^ splat(T.uint8(128), VECTOR))
        return [[let(_signed_as(codes, codes)), codes]]

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        return splat(T.int32(0))

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        magnitudes, codes = weights
        activations = _signed_as(_four_to_each_lane(rows, firsts[0]), codes)
        return total + _added_in_fours(_added_in_pairs(magnitudes, activations))

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [T.Cast("float32x8", total) * _scale(rows, row, block)]


@dataclass(frozen=True)
class Vnni(_OneRow):
    """`vpdpbusd` adds four products of an unsigned code and a signed activation to a lane of 32 bits."""

    bits: Bits
    many_rows: Tile
    activations = FOURS
    one_row = Tile(rows=1, blocks=1, ahead=64)

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        return _unsigned_codes(vectors[0], self.bits)

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        return splat(_offset(rows, row, block, self.bits))

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        activations = _four_to_each_lane(rows, firsts[0])
        return _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", total, weights[0], activations)

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [T.Cast("float32x8", total) * _scale(rows, row, block)]


@dataclass(frozen=True)
class WideVnni(Vnni):
    """The same in vectors of 64 bytes, each of two blocks."""

    blocks = 2

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        return _unsigned_codes(let(joined(vectors)), self.bits)

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        return splat(_offset(rows, row, block, self.bits), 16)

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        activations = T.reinterpret("int8x64", splat(_four(rows, firsts[0]), 16))
        return _intrinsic("int32x16", "llvm.x86.avx512.vpdpbusd.512", total, weights[0], activations)

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [T.Cast("float32x16", total) * splat(rows.scales[rows.block(row, block)], 16)]


@dataclass(frozen=True)
class Neon(_OneRow):
    """`sdot` adds four products of signed bytes to a lane of 32 bits. It has four lanes: a vector is two of its.

    4-bit codes plus 8 are bytes of either kind; of 8-bit codes the stored 128 is taken away.
    """

    bits: Bits
    activations = FOURS
    one_row = Tile(rows=1, blocks=2, ahead=16)
    many_rows = Tile(rows=TILE_ROWS, blocks=2, ahead=8)

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        return [[codes] for codes in _signed_bytes(vectors[0], self.bits)]

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        return splat(_offset(rows, row, block, 4) if self.bits == 4 else T.int32(0))

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        activations = T.reinterpret("int8x16", splat(_four(rows, firsts[0]), 4))
        halves = [
            _intrinsic("int32x4", "llvm.aarch64.neon.sdot", sums, codes, activations)
            for sums, codes in zip(_halves(total, 4), _halves(weights[0], 16), strict=True)
        ]
        return T.Shuffle(halves, list(range(8)))

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [T.Cast("float32x8", total) * _scale(rows, row, block)]


@dataclass(frozen=True)
class NeonMatrix:
    """`smmla` multiplies two rows of eight weights by two rows of eight activations. A total is four of its results,
    each of two rows of weights; activations of the two rows alternate in it.
    """

    bits: Bits
    activations = FOURS
    one_row = Tile(rows=2, blocks=2, ahead=8)  # not used: there is no second row
    many_rows = Tile(rows=TILE_ROWS, blocks=2, ahead=8)
    rows, blocks, vectors = 2, 1, 2

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        halves = zip(*(_signed_bytes(vector, self.bits) for vector in vectors), strict=True)
        return [self._paired(left, right) for left, right in halves]

    def _paired(self, left: Expr, right: Expr) -> Weights:
        """Two rows' eight columns in a vector, int8x16 each, of two vectors that have four columns of every row."""
        words = [T.reinterpret("int32x8", left), T.reinterpret("int32x8", right)]
        orders = ([row, 8 + row, row + 1, 9 + row] for row in range(0, 8, 2))
        return [let(T.reinterpret("int8x16", T.Shuffle(words, order))) for order in orders]

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        if self.bits == 8:
            return splat(T.int32(0), 16)
        offsets = [splat(_offset(rows, row + i, block, 4)) for i in range(self.rows)]
        return T.Shuffle(offsets, [lane for pair in range(8) for lane in (pair, 8 + pair)])

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        activations = let(T.Shuffle([rows.values[lanes(first)] for first in firsts], list(range(16))))
        parts = [
            _intrinsic("int32x4", "llvm.aarch64.neon.smmla", _part(total, start, 4), pair, activations)
            for start, pair in zip(range(0, 16, 4), weights, strict=True)
        ]
        return T.Shuffle(parts, list(range(16)))

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        sums = [T.Shuffle([total], list(range(i, 16, 2))) for i in range(self.rows)]
        return [T.Cast("float32x8", one) * _scale(rows, row + i, block) for i, one in enumerate(sums)]


@dataclass(frozen=True)
class Float(_OneRow):
    """Activations as they are, float32: any CPU, exact but for the order of the sums."""

    bits: Bits
    activations = FLOAT
    # Blocks side by side are sums that don't wait for each other.
    one_row = Tile(rows=1, blocks=4, ahead=8)
    many_rows = Tile(rows=TILE_ROWS, blocks=2, ahead=8)

    def split(self, vectors: Sequence[Expr]) -> list[Weights]:
        words = let(T.reinterpret("int32x8", vectors[0]))
        return [[self._column(words, start + 8 * j) for j in range(4)] for start in range(0, 8, self.bits)]

    def _column(self, words: Expr, shift: int) -> Expr:
        unsigned = T.shift_right(words, splat(T.int32(shift))) & splat(T.int32((1 << self.bits) - 1))
        return let(T.Cast("float32x8", unsigned - splat(T.int32(1 << self.bits - 1))))

    def start(self, rows: Rows, row: Expr, block: Expr) -> Expr:
        return splat(0.0)

    def multiply(self, total: Expr, weights: Weights, rows: Rows, firsts: Sequence[Expr]) -> Expr:
        for j, codes in enumerate(weights):
            total = total + codes * splat(rows.values[firsts[0] + j])
        return total

    def finish(self, total: Expr, rows: Rows, row: Expr, block: Expr) -> list[Expr]:
        return [total]


def _unsigned_codes(vector: Expr, bits: Bits) -> list[Weights]:
    if bits == 8:
        return [[vector]]
    count = width(vector)
    low = vector & splat(T.uint8(15), count)
    high = T.shift_right(vector, splat(T.uint8(4), count))
    return [[let(low)], [let(high)]]


def _offset(rows: Rows, row: Expr, block: Expr, bits: Bits) -> Expr:
    """The block's offset is for codes plus 8; those of 8 bits are stored plus 128."""
    return rows.offsets[rows.block(row, block)] * T.int32(2 ** (bits - 4))


def _scale(rows: Rows, row: Expr, block: Expr) -> Expr:
    return splat(rows.scales[rows.block(row, block)])


def _four(rows: Rows, first: Expr) -> Expr:
    """Four activations as one int32."""
    return T.reinterpret("int32", rows.values[lanes(first, 4)])


def _four_to_each_lane(rows: Rows, first: Expr) -> Expr:
    """Four activations, int8x32, the same for each of a block's eight rows."""
    return T.reinterpret("int8x32", splat(_four(rows, first)))


def _signed_bytes(vector: Expr, bits: Bits) -> list[Expr]:
    """Codes as int8x32: at 8 bits as they are, at 4 bits plus 8, which are bytes of either kind."""
    if bits == 8:
        return [let(T.reinterpret("int8x32", vector ^ splat(T.uint8(128), VECTOR)))]
    return [let(T.reinterpret("int8x32", codes)) for [codes] in _unsigned_codes(vector, bits)]


def _halves(vector: Expr, count: int) -> list[Expr]:
    """Of a vector with twice `count` lanes."""
    return [_part(vector, start, count) for start in (0, count)]


def _part(vector: Expr, start: int, count: int) -> Expr:
    return T.Shuffle([vector], list(range(start, start + count)))


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
