"""Two partial attentions made one, in place: what the cache does where a prompt is read in several chunks.

In TVM's own kernel each thread of a head reads the head's log-sum, and then one writes it, with nothing between. Where
threads don't run in step, or a head has more of them than step together, some read what others wrote: logits were
wrong on both OpenCL implementations that it was tried on. Here one thread reads and writes it, and tells the others
through the group's memory.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812 - as everywhere

from slmc.architecture import Architecture

NAME = "attention_merge"
_THREADS = 128
"""At most, in a group: any GPU has them."""


def merge_states(a: Architecture, dtype: str) -> tirx.PrimFunc:
    """The kernel, for attended values [tokens, heads, head_dim] and log-sums float32 [tokens, heads], base 2.

    `merge(values, sums, other_values, other_sums)` leaves the merged ones in the first two.
    """
    threads = min(a.head_dim, _THREADS)
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(NAME)
            T.func_attr({"global_symbol": NAME, "tirx.is_scheduled": True})
            tokens = tirx.Var("tokens", "int32")
            shape, narrow = (tokens, a.heads, a.head_dim), (tokens, a.heads)
            values, sums = _argument("values", shape, dtype), _argument("sums", narrow, "float32")
            others, other_sums = _argument("others", shape, dtype), _argument("other_sums", narrow, "float32")
            with (
                T.thread_binding(0, tokens, "blockIdx.x") as token,
                T.thread_binding(0, a.heads, "blockIdx.y") as head,
                T.thread_binding(0, threads, "threadIdx.x") as thread,
            ):
                both = T.alloc_buffer((2,), "float32", scope="shared")
                with T.If(thread == 0), T.Then():
                    T.buffer_store(both, sums[token, head], [0])
                    T.buffer_store(both, other_sums[token, head], [1])
                T.evaluate(T.tvm_storage_sync("shared"))
                higher = T.Bind(T.max(both[0], both[1]))
                weight, other = T.Bind(T.exp2(both[0] - higher)), T.Bind(T.exp2(both[1] - higher))
                with T.serial(0, -(-a.head_dim // threads)) as part:
                    place = part * threads + thread
                    with T.If(place < a.head_dim), T.Then():
                        at = [token, head, place]
                        summed = T.Cast("float32", values[at]) * weight + T.Cast("float32", others[at]) * other
                        T.buffer_store(values, T.Cast(dtype, summed / (weight + other)), at)
                with T.If(thread == 0), T.Then():
                    T.buffer_store(sums, T.log2(weight + other) + higher, [token, head])
        return builder.get()


def _argument(name: str, shape: tuple[Any, ...], dtype: str) -> Any:
    return T.match_buffer(T.arg(name, T.handle()), shape, dtype)
