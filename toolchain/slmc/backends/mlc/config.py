"""`mlc-chat-config.json`: what MLC's engines read of a model, and what `mlc_llm compile` makes a library from.

Keys are those of `python/mlc_llm/protocol/mlc_chat_config.py` and of each family's configuration in
`python/mlc_llm/model/`, of mlc-ai/mlc-llm. None of them reads transformers 5's `rope_parameters`: a rope is written
as older checkpoints had it, else MLC would take theta 10000 without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slmc.architecture import Architecture, FactorScaling, Family, Rope
from slmc.backends.mlc.library.metadata import MAX_BATCH
from slmc.backends.mlc.tensors import Format
from slmc.models.mlc import CHAT_CONFIG

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_VERSION = "0.1.0"
"""Of the file's format, as MLC calls it."""


def write_chat_config(
    a: Architecture, form: Format, context: int, chunk: int, template: Mapping[str, Any], folder: Path
) -> None:
    """Into the folder that has the tokenizer."""
    sizes = {
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": chunk,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
    }
    config = {
        "version": _VERSION,
        "model_type": a.family,
        "quantization": form,
        "model_config": model_config(a) | sizes | {"max_batch_size": MAX_BATCH},
        "vocab_size": a.vocab_size,
        **sizes,
        # A narrow task's answer is its likeliest one.
        "temperature": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "tokenizer_files": [name for name in TOKENIZER_FILES if (folder / name).is_file()],
        "conv_template": template,
    }
    (folder / CHAT_CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_config(a: Architecture) -> dict[str, Any]:
    """The family's own keys."""
    common = {
        "model_type": a.family,
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "rms_norm_eps": a.rms_eps,
        "tie_word_embeddings": a.tied,
        "max_position_embeddings": a.max_context,
        "hidden_act": "silu" if a.gate == "silu" else "gelu_pytorch_tanh",
    }
    own = _OWN.get(a.family)
    return common | _rope(a.ropes[0]) | ({} if own is None else own(a))


def _rope(rope: Rope) -> dict[str, Any]:
    scaling = rope.scaling
    if scaling is None or isinstance(scaling, FactorScaling):
        return {"rope_theta": rope.theta}
    return {
        "rope_theta": rope.theta,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        },
    }


_OWN: Mapping[Family, Callable[[Architecture], dict[str, Any]]] = {
    "qwen3": lambda a: {"attention_bias": a.qkv_bias},
    "phi3": lambda a: {"partial_rotary_factor": a.rotary_dim / a.head_dim},
    "gemma3_text": lambda a: {"is_text_model": True, "hidden_activation": "gelu_pytorch_tanh"},
}
