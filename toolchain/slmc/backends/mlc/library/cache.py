"""The paged key-value cache of TVM's runtime, with TVM's own kernels for attention, all but one.

TVM's `TIRPagedKVCache` makes the same call, but with six numbers for its sizes, which MLC's runtimes of before August
2026 refuse (apache/tvm#20121); five are taken by all. Positions turn queries and keys before they come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.nn.llm import kv_cache as kernels

from slmc.architecture import Architecture
from slmc.backends.mlc.library.merge import merge_states

CREATE = "create_tir_paged_kv_cache"
SIZES = ("max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window")
_THETA = 10000
"""Of a rope that never turns anything."""


def new_cache(
    builder: relax.BlockBuilder, a: Architecture, dtype: str, target: tvm.target.Target, sizes: Sequence[Any]
) -> Any:
    """The call that makes a cache of `sizes`, integers as in SIZES; adds its kernels to the builder's module.

    It can't slide, and has no kernels for trees of tokens, which speculative decoding asks for.
    """

    def add(name: str, kernel: Any) -> Any:
        return builder.add_func(kernel, f"kv_cache_{name}")

    def attention(name: str, kernel: Any) -> Any:
        return relax.Tuple([tvm.ir.StringImm("tirx"), add(f"attention_{name}", kernel)])

    k, nothing, shape = kernels, relax.Tuple([]), (a.kv_heads, a.heads, a.head_dim)
    if target.kind.name == "llvm":
        ragged = k._attention_prefill_ragged_cpu(*shape, a.head_dim, dtype, {})
        prefill = k._attention_prefill_cpu(*shape, dtype, False, {})
        decode = k._attention_decode_cpu(*shape, dtype, False, {})
        merge = k._merge_state_inplace_cpu(dtype)
        copy = k._copy_single_page_cpu(a.kv_heads, sizes[3], a.head_dim, dtype)
        compact = k._compact_kv_copy_cpu(a.kv_heads, a.head_dim, dtype)
    else:
        ragged = k._attention_prefill_ragged(*shape, a.head_dim, dtype, {}, target)
        prefill = k._attention_prefill(*shape, dtype, False, {}, target)
        decode = k._attention_decode(*shape, dtype, False, {}, target)
        merge = merge_states(a, dtype)
        copy = k._copy_single_page(a.kv_heads, sizes[3], a.head_dim, dtype, target)
        compact = k._compact_kv_copy(a.kv_heads, a.head_dim, dtype, target)
    split = k.llama_rope_with_position_map(_THETA, 1, a.head_dim, a.heads, a.kv_heads, dtype, {}, a.head_dim)
    return relax.call_pure_packed(
        "vm.builtin.paged_attention_kv_cache_create",
        relax.ShapeExpr(sizes),
        relax.ShapeExpr([0, a.layers]),
        *(relax.prim_value(number) for number in (a.heads, a.kv_heads, a.head_dim, a.head_dim)),
        relax.ShapeExpr([int(k.AttnKind.MHA)] * a.layers),
        relax.prim_value(False),
        *(relax.prim_value(number) for number in (int(k.RopeMode.NONE), 1, _THETA, 0)),
        relax.op.zeros((), dtype),
        add("append", k._kv_cache_transpose_append(a.kv_heads, a.head_dim, dtype)),
        relax.prim_value(0),
        attention("prefill_ragged", ragged),
        attention("prefill", prefill),
        attention("decode", decode),
        *(nothing for _ in ("prefill sliding", "decode sliding", "tree, paged", "tree, ragged", "MLA")),
        relax.Tuple([add("merge", merge)]),
        add("split", split),
        add("copy_page", copy),
        add("debug_get", k._kv_cache_debug_get_kv(a.layers, a.kv_heads, a.head_dim, dtype)),
        add("compact", compact),
        ty_args=relax.AnyType(),
    )
