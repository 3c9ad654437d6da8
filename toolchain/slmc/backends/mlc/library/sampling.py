"""What MLC's engine changes logits with, in place, before it samples: `cpp/serve/logit_processor.cc` of mlc-llm.

    apply_logit_bias_inplace(logits, rows int32 [t], tokens int32 [t], bias float32 [t])
    apply_penalty_inplace(logits, sequences int32 [s], of int32 [t], tokens int32 [t], counts int32 [t],
                          penalties float32 [s, 3])
    apply_bitmask_inplace(logits, sequences int32 [s], mask int32 [b, ceil(vocab / 32)])

with logits float32 [b, vocab]. Penalties are presence, frequency and repetition; `of` says whose, as a place in
`sequences`. A set bit of the mask lets a token be. The engine calls them by name, with tensors and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812 - as everywhere

Expr: TypeAlias = Any
_THREADS = 256
_LOWEST = -3.402823466e38


def sampling_functions(on_gpu: bool) -> dict[str, tirx.PrimFunc]:
    """By name."""
    bodies = {
        "apply_logit_bias_inplace": _logit_bias,
        "apply_penalty_inplace": _penalty,
        "apply_bitmask_inplace": _bitmask,
    }
    return {name: _function(name, body, on_gpu) for name, body in bodies.items()}


def _function(name: str, body: Callable[[bool], None], on_gpu: bool) -> tirx.PrimFunc:
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name, "tirx.is_scheduled": True, "tirx.noalias": True})
            body(on_gpu)
        return builder.get()


def _logit_bias(on_gpu: bool) -> None:
    batch, vocabulary, count = (tirx.Var(name, "int32") for name in ("batch", "vocabulary", "count"))
    logits = _argument("logits", (batch, vocabulary), "float32")
    rows, tokens = _argument("rows", (count,), "int32"), _argument("tokens", (count,), "int32")
    bias = _argument("bias", (count,), "float32")
    with _each(count, on_gpu) as i:
        T.buffer_store(logits, logits[rows[i], tokens[i]] + bias[i], [rows[i], tokens[i]])


def _penalty(on_gpu: bool) -> None:
    batch, vocabulary, count, some = (tirx.Var(name, "int32") for name in ("batch", "vocabulary", "count", "some"))
    logits = _argument("logits", (batch, vocabulary), "float32")
    sequences, of = _argument("sequences", (some,), "int32"), _argument("of", (count,), "int32")
    tokens, counts = _argument("tokens", (count,), "int32"), _argument("counts", (count,), "int32")
    penalties = _argument("penalties", (some, 3), "float32")
    with _each(count, on_gpu) as i:
        presence, frequency, repetition = (penalties[of[i], which] for which in range(3))
        at = [sequences[of[i]], tokens[i]]
        lowered = logits[at[0], at[1]] - (presence + T.Cast("float32", counts[i]) * frequency)
        T.buffer_store(logits, T.if_then_else(lowered < T.float32(0), lowered * repetition, lowered / repetition), at)


def _bitmask(on_gpu: bool) -> None:
    batch, vocabulary, some = (tirx.Var(name, "int32") for name in ("batch", "vocabulary", "some"))
    logits = _argument("logits", (batch, vocabulary), "float32")
    sequences = _argument("sequences", (some,), "int32")
    mask = _argument("mask", (batch, (vocabulary + 31) // 32), "int32")
    with _each(some * vocabulary, on_gpu) as i:
        row, token = sequences[i // vocabulary], i % vocabulary
        bit = T.bitwise_and(T.shift_right(mask[row, token // 32], token % 32), T.int32(1))
        T.buffer_store(logits, T.if_then_else(bit == T.int32(1), logits[row, token], T.float32(_LOWEST)), [row, token])


def _argument(name: str, shape: tuple[Any, ...], dtype: str) -> Any:
    return T.match_buffer(T.arg(name, T.handle()), shape, dtype)


@contextmanager
def _each(count: Expr, on_gpu: bool) -> Iterator[Expr]:
    """One thread each, or one after another."""
    if not on_gpu:
        with T.serial(0, count) as i:
            yield i
        return
    with (
        T.thread_binding(0, (count + _THREADS - 1) // _THREADS, "blockIdx.x") as block,
        T.thread_binding(0, _THREADS, "threadIdx.x") as thread,
    ):
        i = block * _THREADS + thread
        with T.If(i < count), T.Then():
            yield i
