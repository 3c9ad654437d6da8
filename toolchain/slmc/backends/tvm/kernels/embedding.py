"""Rows of the quantized embedding, as floats."""

from __future__ import annotations

from functools import cache

from slmc.backends.tvm.kernels.matmul import Shape
from slmc.backends.tvm.kernels.tir import LANES, PrimFunc, T, argument, kernel, length, let, loop, store
from slmc.backends.tvm.layout import BLOCK, BLOCK_BYTES


@cache
def embedding(name: str, shape: Shape, many: bool) -> PrimFunc:
    """ids int32 [n], codes, scales, result float32 [n, columns]: row `ids[i]` of the matrix, dequantized."""

    def body() -> None:
        n = length() if many else T.int64(1)
        blocks, depth = shape.rows // LANES, shape.columns // BLOCK
        ids = argument("ids", (n,), "int32")
        codes = argument("codes", (blocks, depth, BLOCK_BYTES), "uint8")
        scales = argument("scales", (blocks, shape.columns // shape.group, LANES), "uint16")
        result = argument("result", (n, shape.columns), "float32")
        with loop(n) as row, loop(depth) as block:
            block_row, channel = let(ids[row] // LANES), let(ids[row] % LANES)
            bits = scales[block_row, block // (shape.group // BLOCK), channel]
            scale = let(T.reinterpret("float32", T.shift_left(T.Cast("uint32", bits), T.uint32(16))))
            with loop(4) as v, loop(4) as j:
                pair = let(T.Cast("int32", codes[block_row, block, v * BLOCK + channel * 4 + j]))
                for half, code in enumerate((pair & 15, T.shift_right(pair, T.int32(4)))):
                    column = block * BLOCK + half * 16 + v * 4 + j
                    store(result, T.Cast("float32", code - 8) * scale, row, column)

    return kernel(name, body)
