"""A config.json of each family with the keys of its released models, made small."""

from __future__ import annotations

from collections.abc import Mapping

from slmc.architecture import Family

Config = dict[str, object]

_SIZES: Config = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "dtype": "bfloat16",
}
_PLAIN: Config = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
SHORT = [1.0 + index / 4 for index in range(6)]

CONFIGS: Mapping[Family, Config] = {
    "llama": _SIZES | _PLAIN | {"model_type": "llama", "hidden_act": "silu"},
    "qwen2": _SIZES | _PLAIN | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 64},
    "qwen3": _SIZES | _PLAIN | {"model_type": "qwen3", "head_dim": 32, "attention_bias": False},
    "gemma3_text": _SIZES
    | {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 64,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "phi3": _SIZES
    | {
        "model_type": "phi3",
        "sliding_window": 96,
        "original_max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": SHORT,
            "long_factor": [32.0] * 6,
        },
    },
    "smollm3": _SIZES | _PLAIN | {"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0], "use_sliding_window": False},
}


def changed(family: Family, change: Config) -> Config:
    """A family's config with other keys; one that is None is taken out."""
    return {key: value for key, value in (CONFIGS[family] | change).items() if value is not None or key not in change}
