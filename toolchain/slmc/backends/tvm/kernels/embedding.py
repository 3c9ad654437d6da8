"""Rows of the quantized embedding, as floats."""

from __future__ import annotations

from functools import cache

from slmc.backends.tvm.kernels.tir import LANES, PrimFunc, T, argument, kernel, length, let, loop, store
from slmc.backends.tvm.layout import BLOCK, VECTOR, Shape


@cache
def embedding(name: str, shape: Shape, many: bool) -> PrimFunc:
    """ids int32 [n], codes, scales, result float32 [n, columns]: row `ids[i]` of the matrix, dequantized."""

    def body() -> None:
        n = length() if many else T.int64(1)
        ids = argument("ids", (n,), "int32")
        codes = argument("codes", shape.codes, "uint8")
        scales = argument("scales", shape.scales, "uint16")
        result = argument("result", (n, shape.columns), "float32")
        with loop(n) as row, loop(shape.columns // BLOCK) as block:
            block_row, channel = let(ids[row] // LANES), let(ids[row] % LANES)
            bits = scales[block_row, block // (shape.group // BLOCK), channel]
            scale = let(T.reinterpret("float32", T.shift_left(T.Cast("uint32", bits), T.uint32(16))))
            with loop(shape.bits) as v, loop(4) as j:
                byte = let(T.Cast("int32", codes[block_row, block, v * VECTOR + channel * 4 + j]))
                for half in range(8 // shape.bits):
                    unsigned = T.shift_right(byte, T.int32(half * 4)) & ((1 << shape.bits) - 1)
                    column = block * BLOCK + half * 16 + v * 4 + j
                    store(result, T.Cast("float32", unsigned - (1 << shape.bits - 1)) * scale, row, column)

    return kernel(name, body)
