"""The few words the kernels are written in: pointers, vectors of floats, loops, scratch.

Kernels are plain Python that builds TIR: a Python loop unrolls, `loop` makes a loop of the kernel.
They are complete schedules, which TVM only lowers, into functions that C calls as its own: pointers and
numbers in, no descriptor, no allocation, no call of any runtime. TVM has no types for mypy: an
expression or a variable of TIR is `Expr` here, a buffer `Buffer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as builder_ir

T = builder_ir
"""The names that TVM's own script has for what kernels are made of."""
Expr: TypeAlias = ir.Expr
Buffer: TypeAlias = tirx.Buffer
PrimFunc: TypeAlias = tirx.PrimFunc

LANES = 8
"""Floats in a vector: AVX2's width; a narrower CPU takes two instructions for it."""

_ENDLESS = 1 << 48
"""Elements: more than any memory has, and few enough to count their bytes in 64 bits."""
_ROUNDING = 12582912.0
"""1.5 * 2^23: added to a float32 of magnitude up to 2^22 it leaves the nearest integer in the low bits."""
_ROUNDING_BITS = 0x4B400000


def kernel(name: str, body: Callable[[], None]) -> PrimFunc:
    """A C function `void name(...)`; `body` declares its arguments in order, then its statements."""
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name, "tirx.is_scheduled": True, "tirx.noalias": True})
            body()
        return builder.get()


def arguments(**types: str) -> list[Any]:
    """The kernel's arguments in order: "int64", "float32", or "float32*" and its like, which becomes a buffer of as
    many elements as the caller knows there are.
    """
    found = {name: T.arg(name, _variable(name, kind)) for name, kind in types.items()}
    pointers = {name: kind.removesuffix("*") for name, kind in types.items() if kind.endswith("*")}
    buffers = {name: T.decl_buffer((_ENDLESS,), dtype, data=found[name]) for name, dtype in pointers.items()}
    return list((found | buffers).values())


def _variable(name: str, kind: str) -> Expr:
    return T.handle(kind.removesuffix("*")) if kind.endswith("*") else tirx.Var(name, kind)


@contextmanager
def loop(stop: int | Expr, start: int | Expr = 0) -> Iterator[Expr]:
    """Rounds start, start + 1, ... stop - 1."""
    with T.serial(_int64(start), _int64(stop)) as index:
        yield index


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    with T.If(condition), T.Then():
        yield


def _int64(value: int | Expr) -> Expr:
    return T.int64(value) if isinstance(value, int) else value


def scratch(size: int, dtype: str = "float32") -> Buffer:
    """A few values of the round that it is declared in: registers, or the stack."""
    return T.alloc_buffer((size,), dtype)


def let(value: Expr) -> Expr:
    """Compute a value once, here."""
    return T.Bind(value)


def lanes(start: int | Expr, count: int = LANES) -> Expr:
    """The index of a vector: `count` elements from `start`."""
    return T.Ramp(start, 1, count)


def store(buffer: Buffer, value: Expr, *index: int | Expr) -> None:
    T.buffer_store(buffer, value, list(index))


def splat(value: float | Expr, count: int = LANES) -> Expr:
    """A vector with the same value in each lane; a Python number is a float32."""
    return T.Broadcast(T.float32(value) if isinstance(value, int | float) else value, count)


def prefetch(buffer: Buffer, *index: int | Expr) -> None:
    """Ask for a line of memory that will be read soon. An address past the end is harmless.

    Into the second cache: into the first, decoding was a tenth slower, past both, by half (Intel, AVX-512).
    """
    read, second_cache, data = T.int32(0), T.int32(2), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(buffer[index]), read, second_cache, data))


def reduce_lanes(vector: Buffer, combine: Callable[[Expr, Expr], Expr], count: int = LANES) -> Expr:
    """The lanes at a buffer's start combined into one value, pairwise; `count` is a power of two."""
    values = [vector[lane] for lane in range(count)]
    while len(values) > 1:
        values = [combine(left, right) for left, right in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def joined(vectors: Sequence[Expr]) -> Expr:
    """Vectors one after the other as one."""
    return T.Shuffle(list(vectors), list(range(sum(map(width, vectors))))) if len(vectors) > 1 else vectors[0]


def width(values: Expr) -> int:
    """Lanes of a vector."""
    return int(values.ty.dtype.lanes)


def round_to_int(values: Expr) -> Expr:
    """The nearest integers, int32, of a vector of floats of magnitude up to 2^22: no library call on any CPU."""
    count = width(values)
    bits = T.reinterpret(f"int32x{count}", values + splat(_ROUNDING, count))
    return bits - splat(T.int32(_ROUNDING_BITS), count)


def exp(values: Expr) -> Expr:
    """e to the power of each lane, to 2e-7 of its value; beyond ±87 it stays at the value there."""
    count = width(values)
    scaled = let(T.max(T.min(values * splat(1.4426950408889634, count), splat(126, count)), splat(-126, count)))
    whole = let(round_to_int(scaled))
    rest = let(scaled - T.Cast(f"float32x{count}", whole))
    exponent = T.shift_left(whole + splat(T.int32(127), count), splat(T.int32(23), count))
    power = T.reinterpret(f"float32x{count}", exponent)
    # 2^rest for rest in [-0.5, 0.5] by its series, whose terms are ln(2)^k / k!
    series = splat(1.5403530e-4, count)
    for coefficient in (1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0):
        series = series * rest + splat(coefficient, count)
    return power * series


def widen_bfloat16(bits: Expr) -> Expr:
    """bfloat16, as a vector of uint16, to float32."""
    count = width(bits)
    return T.reinterpret(f"float32x{count}", T.shift_left(T.Cast(f"int32x{count}", bits), splat(T.int32(16), count)))
