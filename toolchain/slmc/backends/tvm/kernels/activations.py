"""What comes before a matmul: RMSNorm, a gate or nothing, then held as the matmul takes it.

All take rows `first` to `last` - 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from slmc.backends.tvm.kernels.formats import Format, Rows, row_arguments
from slmc.backends.tvm.kernels.tir import (
    LANES,
    Expr,
    PrimFunc,
    T,
    arguments,
    exp,
    kernel,
    lanes,
    let,
    loop,
    reduce_lanes,
    scratch,
    splat,
    store,
)
from slmc.backends.tvm.layout import BLOCK

Gate = Callable[[Expr], Expr]
Vector = Callable[[Expr, Expr], Expr]
"""Eight activations, float32x8, from a row and the column of the first."""


def normalized(name: str, held_as: Format) -> PrimFunc:
    """x float32 [rows, columns], weights float32 [columns], the rows' arrays, columns / 32, epsilon, first, last:
    RMSNorm(x) · weights, held.
    """

    def body() -> None:
        x, weights, *held, epsilon, first, last = arguments(
            x="float32*", weights="float32*", **row_arguments(held_as), epsilon="float32", first="int64", last="int64"
        )
        rows = Rows(*held)
        columns = let(rows.depth * BLOCK)
        with loop(last, start=first) as row:
            squares = scratch(LANES)
            store(squares, splat(0.0), lanes(0))
            with loop(columns // LANES) as step:
                value = let(x[lanes(row * columns + step * LANES)])
                store(squares, squares[lanes(0)] + value * value, lanes(0))
            mean = reduce_lanes(squares, operator.add) / T.Cast("float32", columns)
            factor = let(T.float32(1) / T.sqrt(mean + epsilon))
            _hold(lambda k: x[lanes(row * columns + k)] * splat(factor) * weights[lanes(k)], held_as, rows, row)

    return kernel(name, body)


def gated(name: str, held_as: Format, gate: Gate) -> PrimFunc:
    """x float32 [rows, 2 * columns], gate and up side by side, stride, the rows' arrays, columns / 32, first, last:
    gate(gate) · up, held. A row of x begins `stride` after the one before.
    """

    def body() -> None:
        x, stride, *held, first, last = arguments(
            x="float32*", stride="int64", **row_arguments(held_as), first="int64", last="int64"
        )
        rows = Rows(*held)
        columns = let(rows.depth * BLOCK)

        def value(row: Expr, column: Expr) -> Expr:
            return gate(let(x[lanes(row * stride + column)])) * x[lanes(row * stride + columns + column)]

        with loop(last, start=first) as row:
            _hold(lambda column: value(row, column), held_as, rows, row)

    return kernel(name, body)


def copied(name: str, held_as: Format) -> PrimFunc:
    """x float32 [rows, columns], the rows' arrays, columns / 32, first, last: x, held."""

    def body() -> None:
        x, *held, first, last = arguments(x="float32*", **row_arguments(held_as), first="int64", last="int64")
        rows = Rows(*held)
        with loop(last, start=first) as row:
            _hold(lambda column: x[lanes(rows.value(row, column))], held_as, rows, row)

    return kernel(name, body)


def silu(x: Expr) -> Expr:
    return x / (splat(1.0) + exp(splat(0.0) - x))


def gelu_tanh(x: Expr) -> Expr:
    """x / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 x³))), which is its tanh written with exp."""
    inner = let((x + x * x * x * splat(0.044715)) * splat(-1.5957691216057308))
    return x / (splat(1.0) + exp(inner))


def _hold(vector: Callable[[Expr], Expr], held_as: Format, rows: Rows, row: Expr) -> None:
    """A row's vectors, 32 columns at a time, into the arrays that hold it."""
    with loop(rows.depth) as block:
        floats = scratch(BLOCK)
        for start in range(0, BLOCK, LANES):
            store(floats, vector(let(block * BLOCK + start)), lanes(start))
        held_as.hold(floats, rows, row, block)
