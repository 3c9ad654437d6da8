"""What a model library says of itself: the JSON of its `_metadata`, see `cpp/metadata/model.cc` of mlc-ai/mlc-llm.

Every number is an integer, and every key that the engine reads is there: it takes what is missing from memory that
nothing was written to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slmc.architecture import Architecture
from slmc.backends.mlc.tensors import Format, Tensor

MAX_BATCH = 4
"""Sequences at once; an app's engine asks for one."""


def library_metadata(
    a: Architecture, tensors: Iterable[Tensor], form: Format, context: int, chunk: int
) -> dict[str, Any]:
    """Without the memory that functions take."""
    return {
        "model_type": a.family,
        "quantization": form,
        "context_window_size": context,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": chunk,
        "max_batch_size": MAX_BATCH,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "disaggregation": False,
        "kv_state_kind": "kv_cache",
        "model_task": "chat",
        "params": [{"name": one.name, "shape": list(one.shape), "dtype": one.dtype, "preprocs": []} for one in tensors],
        "kv_cache": {
            "num_hidden_layers": a.layers,
            "num_attention_heads": a.heads,
            "num_key_value_heads": a.kv_heads,
            "head_dim": a.head_dim,
        },
    }
