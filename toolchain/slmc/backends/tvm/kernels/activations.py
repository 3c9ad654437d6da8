"""What comes before a matmul: RMSNorm, silu · mul or nothing, then held as the matmul takes it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache

from slmc.backends.tvm.kernels.formats import Format
from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    PrimFunc,
    T,
    argument,
    exp,
    kernel,
    lanes,
    length,
    let,
    loop,
    reduce_lanes,
    scratch,
    splat,
    store,
)
from slmc.backends.tvm.layout import BLOCK

Vector = Callable[[Expr, Expr], Expr]
"""Eight activations, float32x8, from a row and the column of the first."""


@cache
def normalized(name: str, columns: int, epsilon: float, held_as: Format, many: bool, last: bool) -> PrimFunc:
    """x float32 [n, columns], weights float32 [columns], activations: RMSNorm(x) · weights, held.

    With `last` only the last row of x, as row 0.
    """

    def body() -> None:
        n = length() if many else T.int64(1)
        x = argument("x", (n, columns), "float32")
        weights = argument("weights", (columns,), "float32")
        parts = _held(held_as, columns, many and not last)
        with loop(1 if last else n, parallel=many) as held_row:
            row = n - 1 if last else held_row
            factor = rms_factor(lambda column: x[row, lanes(column)], columns, epsilon)
            _hold(lambda k: x[row, lanes(k)] * splat(factor) * weights[lanes(k)], columns, held_as, parts, held_row)

    return kernel(name, body)


@cache
def gated(name: str, columns: int, held_as: Format, many: bool) -> PrimFunc:
    """x float32 [n, 2 * columns], gate and up side by side; activations: silu(gate) · up, held."""

    def body() -> None:
        n = length() if many else T.int64(1)
        x = argument("x", (n, 2 * columns), "float32")
        parts = _held(held_as, columns, many)
        with loop(n, parallel=many) as row:

            def value(column: Expr) -> Expr:
                gate = let(x[row, lanes(column)])
                return gate / (splat(1.0) + exp(splat(0.0) - gate)) * x[row, lanes(column + columns)]

            _hold(value, columns, held_as, parts, row)

    return kernel(name, body)


@cache
def copied(name: str, columns: int, held_as: Format, many: bool) -> PrimFunc:
    """x float32 [n, columns]; activations: x, held."""

    def body() -> None:
        n = length() if many else T.int64(1)
        x = argument("x", (n, columns), "float32")
        parts = _held(held_as, columns, many)
        with loop(n, parallel=many) as row:
            _hold(lambda column: x[row, lanes(column)], columns, held_as, parts, row)

    return kernel(name, body)


def rms_factor(vector: Callable[[Expr], Expr], columns: int, epsilon: float) -> Expr:
    """1 / sqrt(mean of squares + epsilon) of the vectors that begin at columns 0, 8, ..."""
    squares = scratch(LANES)
    store(squares, splat(0.0), lanes(0))
    with loop(columns // LANES) as step:
        value = let(vector(step * LANES))
        store(squares, squares[lanes(0)] + value * value, lanes(0))
    mean = reduce_lanes(squares, operator.add) / T.float32(columns)
    return let(T.float32(1) / T.sqrt(mean + T.float32(epsilon)))


def _held(held_as: Format, columns: int, many: bool) -> list[Buffer]:
    rows = length() if many else T.int64(1)
    return [argument(part.name, (rows, *part.shape), part.dtype) for part in held_as.parts(columns)]


def _hold(vector: Callable[[Expr], Expr], columns: int, held_as: Format, parts: list[Buffer], row: Expr) -> None:
    """A row's vectors, 32 columns at a time, into the tensors that hold it."""
    with loop(columns // BLOCK) as block:
        values = scratch(BLOCK)
        for start in range(0, BLOCK, LANES):
            store(values, vector(let(block * BLOCK + start)), lanes(start))
        held_as.hold(values, parts, row, block)
