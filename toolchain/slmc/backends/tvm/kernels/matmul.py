"""Activations times a quantized matrix, for one row (decode) and for many (prefill)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from slmc.backends.tvm.kernels.dots import DOTS, Dot, Tile
from slmc.backends.tvm.kernels.formats import Parts
from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    PrimFunc,
    T,
    argument,
    kernel,
    lanes,
    length,
    let,
    loop,
    prefetch,
    scratch,
    splat,
    store,
    widen_bfloat16,
)
from slmc.backends.tvm.layout import BLOCK, VECTOR, Shape
from slmc.models.compiled import Kernels

Addend = Literal["none", "residual", "bias"]
"""What is added: nothing, a tensor of the result's shape, or one row to each row."""
_LINE = 64
"""Bytes that one prefetch brings."""


@cache
def matmul(name: str, shape: Shape, kernels: Kernels, addend: Addend, many: bool) -> PrimFunc:
    """codes, scales, activations, [addend,] result float32 [n, rows] = activations · weights' [+ addend].

    n is 1, or with `many` any. The activations of `many` have rows for whole tiles.
    """
    dot = DOTS[kernels, shape.bits]
    tile = dot.many_rows if many else dot.one_row

    def body() -> None:
        n, held = (length(), length()) if many else (T.int64(1), T.int64(1))
        blocks, depth = shape.rows // LANES, shape.columns // BLOCK
        codes = argument("codes", shape.codes, "uint8")
        scales = argument("scales", shape.scales, "uint16")
        parts = [argument(part.name, (held, *part.shape), part.dtype) for part in dot.activations.parts(shape.columns)]
        addends = {"residual": (n, shape.rows), "bias": (shape.rows,)}
        added = argument("addend", addends[addend], "float32") if addend in addends else None
        result = argument("result", (n, shape.rows), "float32")
        product = _Product(dot, tile, shape.group // BLOCK, codes, scales, parts)
        with loop(blocks // tile.blocks, parallel=True) as block, loop(T.ceildiv(n, tile.rows)) as row:
            sums = product.sums(let(block * tile.blocks), let(row * tile.rows), depth)
            for offset in range(tile.rows):
                at = row * tile.rows + offset
                with T.If(at < n), T.Then():
                    for other in range(tile.blocks):
                        columns = lanes((block * tile.blocks + other) * LANES)
                        total = sums[lanes(product.slot(offset, other))]
                        if added is not None:
                            total = total + (added[columns] if addend == "bias" else added[at, columns])
                        store(result, total, at, columns)

    return kernel(name, body)


@dataclass(frozen=True)
class _Product:
    """A tile of the product. `sums` holds it row by row, eight lanes a block."""

    dot: Dot
    tile: Tile
    blocks_per_scale: int
    codes: Buffer
    scales: Buffer
    parts: Parts

    def slot(self, row: int, block: int) -> int:
        return (row * self.tile.blocks + block) * LANES

    def sums(self, block: Expr, row: Expr, depth: int) -> Buffer:
        sums = scratch(self.tile.rows * self.tile.blocks * LANES)
        for start in range(0, self.tile.rows * self.tile.blocks * LANES, LANES):
            store(sums, splat(0.0), lanes(start))
        with loop(depth) as column:
            self._add_column(sums, block, row, column)
        return sums

    def _add_column(self, sums: Buffer, block: Expr, row: Expr, column: Expr) -> None:
        """Add the products of one block of columns."""
        tiles = [(i, j) for i in range(self.tile.rows) for j in range(self.tile.blocks)]
        for j in range(self.tile.blocks):
            for line in range(0, VECTOR * self.dot.bits, _LINE):
                prefetch(self.codes, block + j, column + self.tile.ahead, line)
        totals = {(i, j): self.dot.start(self.parts, row + i, column) for i, j in tiles}
        for v in range(self.dot.bits):
            vectors = [self.codes[block + j, column, lanes(v * VECTOR, VECTOR)] for j in range(self.tile.blocks)]
            weights = [self.dot.split(let(vector)) for vector in vectors]
            for i, j in tiles:
                total = totals[i, j]
                for half, four in enumerate(weights[j]):
                    first = column * BLOCK + half * 16 + v * 4
                    total = self.dot.multiply(total, four, self.parts, row + i, first)
                totals[i, j] = let(total)
        for j in range(self.tile.blocks):
            scale = let(widen_bfloat16(self.scales[block + j, column // self.blocks_per_scale, lanes(0)]))
            for i in range(self.tile.rows):
                slot = lanes(self.slot(i, j))
                product = self.dot.finish(totals[i, j], self.parts, row + i, column) * scale
                store(sums, sums[slot] + product, slot)
