"""Activations times a quantized matrix, for one row (decode) and for many (prefill)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmc.backends.tvm.kernels.dots import Dot, Tile
from slmc.backends.tvm.kernels.formats import Rows, row_arguments
from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    PrimFunc,
    T,
    arguments,
    joined,
    kernel,
    lanes,
    let,
    loop,
    prefetch,
    scratch,
    splat,
    store,
    when,
    widen_bfloat16,
)
from slmc.backends.tvm.layout import BLOCK, VECTOR

_LINE = 64
"""Bytes that one prefetch brings."""


def matmul(name: str, dot: Dot, many: bool) -> PrimFunc:
    """codes, scales, the activations' arrays, columns / 32, scale shift, result float32 [n, stride], stride, add,
    n, first, last: result (+)= activations · weights'.

    A scale is shared by 2 ** (scale shift) blocks of columns. With `add` not 0 the product is added to what the
    result holds. Rows of weights `first` to `last` - 1, counted in tiles of `tile.blocks` blocks of 8, are
    computed. n is 1, or with `many` any, the activations having rows for whole tiles.
    """
    tile = dot.many_rows if many else dot.one_row

    def body() -> None:
        codes, scales, *held, shift, result, stride, add, n, first, last = arguments(
            codes="uint8*",
            scales="uint16*",
            **row_arguments(dot.activations),
            scale_shift="int64",
            result="float32*",
            **dict.fromkeys(("stride", "add", "n", "first", "last"), "int64"),
        )
        product = _Product(dot, tile, shift, codes, scales, Rows(*held))
        with (
            loop(last, start=first) as block,
            loop(T.ceildiv(n, tile.rows) if many else 1) as row,
        ):
            sums = product.sums(let(block * tile.blocks), let(row * tile.rows))
            for offset in range(tile.rows):
                at = let(row * tile.rows + offset)
                with when(at < n):
                    for other in product.firsts:
                        columns = lanes(at * stride + (block * tile.blocks + other) * LANES, product.width)
                        total = sums[product.slot(offset, other)]
                        with T.If(add == T.int64(0)):
                            with T.Then():
                                store(result, total, columns)
                            with T.Else():
                                store(result, result[columns] + total, columns)

    return kernel(name, body)


@dataclass(frozen=True)
class _Product:
    """A tile of the product. `sums` holds it row by row, eight lanes a block; `dot.blocks` are computed as one."""

    dot: Dot
    tile: Tile
    scale_shift: Expr
    codes: Buffer
    scales: Buffer
    rows: Rows

    @property
    def width(self) -> int:
        """Lanes that are computed as one."""
        return self.dot.blocks * LANES

    @property
    def firsts(self) -> range:
        """Of the blocks that are computed as one, the first."""
        return range(0, self.tile.blocks, self.dot.blocks)

    def slot(self, row: int, block: int) -> Expr:
        return lanes((row * self.tile.blocks + block) * LANES, self.width)

    def sums(self, block: Expr, row: Expr) -> Buffer:
        sums = scratch(self.tile.rows * self.tile.blocks * LANES)
        for i in range(self.tile.rows):
            for j in self.firsts:
                store(sums, splat(0.0, self.width), self.slot(i, j))
        with loop(self.rows.depth) as column:
            self._add_column(sums, block, row, column)
        return sums

    def _add_column(self, sums: Buffer, block: Expr, row: Expr, column: Expr) -> None:
        """Add the products of one block of columns."""
        dot = self.dot
        tiles = [(i, j) for i in range(0, self.tile.rows, dot.rows) for j in self.firsts]
        size = VECTOR * self.dot.bits
        starts = [let(((block + j) * self.rows.depth + column) * size) for j in range(self.tile.blocks)]
        for start in starts:
            for line in range(0, size, _LINE):
                prefetch(self.codes, start + self.tile.ahead * size + line)
        totals = {(i, j): let(dot.start(self.rows, row + i, column)) for i, j in tiles}
        for v in range(0, dot.bits, dot.vectors):
            weights = {j: dot.split(self._vectors(starts[j : j + dot.blocks], v)) for j in self.firsts}
            for i, j in tiles:
                total = totals[i, j]
                for half, some in enumerate(weights[j]):
                    place = column * BLOCK + half * 16 + v * 4
                    firsts = [self.rows.value(row + i + k, place) for k in range(dot.rows)]
                    total = dot.multiply(total, some, self.rows, firsts)
                totals[i, j] = let(total)
        groups = let(T.shift_right(self.rows.depth, self.scale_shift))
        group = let(T.shift_right(column, self.scale_shift))
        for j in self.firsts:
            scale = let(self._scales([((block + j + k) * groups + group) * LANES for k in range(dot.blocks)]))
            for i in range(0, self.tile.rows, dot.rows):
                for k, product in enumerate(dot.finish(totals[i, j], self.rows, row + i, column)):
                    slot = self.slot(i + k, j)
                    store(sums, sums[slot] + product * scale, slot)

    def _vectors(self, starts: Sequence[Expr], v: int) -> list[Expr]:
        """From `v` on those that are multiplied at once, of the blocks that begin there."""
        return [
            let(self.codes[lanes(start + (v + k) * VECTOR, VECTOR)])
            for start in starts
            for k in range(self.dot.vectors)
        ]

    def _scales(self, starts: Sequence[Expr]) -> Expr:
        return widen_bfloat16(joined([self.scales[lanes(start)] for start in starts]))
