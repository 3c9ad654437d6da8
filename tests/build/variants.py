"""Tiny random models of every family, in the variants that change what its decoder computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from slmc.architecture import Family
from slmc.names import SchemeName

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = 131
"""No multiple of what the kernels' blocks are made of."""
CONTEXT = 320
CONFIGS: Mapping[Family, type] = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma3_text": transformers.Gemma3TextConfig,
    "phi3": transformers.Phi3Config,
    "smollm3": transformers.SmolLM3Config,
}
WINDOW, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Variant:
    family: Family
    sizes: tuple[int, int, int]
    """Heads, key-value heads, head_dim."""
    tied: bool
    options: Mapping[str, object] = field(default_factory=dict)
    """Of transformers' configuration."""
    rewritten: Mapping[str, object] = field(default_factory=dict)
    """Keys of config.json that are set once the model is saved, None to take one out: as older files have them."""
    layers: int = 2
    hidden: int = 128
    scheme: SchemeName = "int4-g32"


def rope(kind: str = "default", theta: float = 10000.0, **more: object) -> dict[str, object]:
    return {"rope_type": kind, "rope_theta": theta, **more}


def longrope(rotary_dim: int, **more: object) -> dict[str, object]:
    """Factors that differ for each frequency, and those for a longer context that nothing here may use."""
    pairs = rotary_dim // 2
    short = [1.0 + 0.5 * index / pairs for index in range(pairs)]
    return {"short_factor": short, "long_factor": [8.0 * factor for factor in short], **more}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
ORIGINAL = {"max_position_embeddings": 4096, "original_max_position_embeddings": CONTEXT}
GEMMA = {"query_pre_attn_scalar": 256, "sliding_window": 20}
GEMMA_ROPES = {FULL: rope(theta=1e6), WINDOW: rope()}

# Named as in docs/families.md.
VARIANTS: Mapping[str, Variant] = {
    "llama: untied": Variant("llama", (2, 2, 64), tied=False),
    "llama: llama3 rope": Variant(
        "llama", (4, 1, 64), tied=True, options={"rope_parameters": rope("llama3", **LLAMA3)}
    ),
    "llama: SmolLM2's shape": Variant("llama", (3, 1, 64), tied=True, hidden=192, scheme="int4-g64"),
    "llama: older keys, linear rope": Variant(
        "llama",
        (4, 2, 32),
        tied=False,
        rewritten={
            "rope_parameters": None,
            "rope_theta": 50000.0,
            "rope_scaling": {"type": "linear", "factor": 3.0},
            "head_dim": None,
        },
    ),
    "qwen2: seven heads share keys": Variant("qwen2", (7, 1, 32), tied=True, hidden=224),
    "qwen2: untied": Variant("qwen2", (2, 1, 128), tied=False, hidden=256, scheme="int4-g128"),
    "qwen3: heads wider than hidden": Variant("qwen3", (4, 2, 128), tied=True),
    "qwen3: untied, 8 bits": Variant("qwen3", (8, 1, 64), tied=False, scheme="int8-g32"),
    "gemma3_text: windows and full layers": Variant(
        "gemma3_text",
        (4, 1, 256),
        tied=True,
        layers=3,
        options={**GEMMA, "layer_types": [WINDOW, FULL, WINDOW], "rope_parameters": GEMMA_ROPES},
    ),
    "gemma3_text: linear rope, window of one": Variant(
        "gemma3_text",
        (4, 2, 128),
        tied=False,
        layers=3,
        options={
            "query_pre_attn_scalar": 168,
            "sliding_window": 1,
            "layer_types": [FULL, WINDOW, FULL],
            "rope_parameters": {**GEMMA_ROPES, FULL: rope("linear", 1e6, factor=8.0)},
        },
    ),
    "gemma3_text: older keys": Variant(
        "gemma3_text",
        (2, 1, 64),
        tied=True,
        layers=5,
        options={**GEMMA, "layer_types": [WINDOW, WINDOW, FULL, WINDOW, WINDOW]},
        rewritten={
            "layer_types": None,
            "sliding_window_pattern": 3,
            "rope_parameters": None,
            "rope_theta": 1e6,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "tie_word_embeddings": None,
        },
    ),
    "gemma3_text: window beyond the context": Variant(
        "gemma3_text",
        (8, 1, 64),
        tied=True,
        options={
            **GEMMA,
            "sliding_window": 512,
            "layer_types": [WINDOW, FULL],
            "rope_parameters": GEMMA_ROPES,
        },
    ),
    "phi3: MHA": Variant("phi3", (2, 2, 96), tied=False, hidden=192),
    "phi3: part of a head turned": Variant(
        "phi3", (2, 1, 128), tied=True, hidden=256, options={"rope_parameters": rope(partial_rotary_factor=0.75)}
    ),
    "phi3: longrope": Variant(
        "phi3", (2, 2, 64), tied=False, options={**ORIGINAL, "rope_parameters": rope("longrope", **longrope(64))}
    ),
    "phi3: older keys, all at once": Variant(
        "phi3",
        (3, 1, 64),
        tied=True,
        hidden=192,
        options={**ORIGINAL, "sliding_window": 262144},
        rewritten={
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {"type": "longrope", **longrope(48)},
        },
    ),
    "phi3: longrope with a factor": Variant(
        "phi3",
        (2, 1, 64),
        tied=False,
        options={
            **ORIGINAL,
            "rope_parameters": rope("longrope", **longrope(32), factor=3.0, partial_rotary_factor=0.5),
        },
    ),
    "phi3: longrope with an attention factor": Variant(
        "phi3",
        (2, 1, 64),
        tied=False,
        options={**ORIGINAL, "rope_parameters": rope("longrope", **longrope(64), attention_factor=1.1)},
    ),
    "phi3: window": Variant("phi3", (4, 2, 32), tied=False, options={"sliding_window": 31}),
    "smollm3: every fourth layer": Variant("smollm3", (4, 1, 32), tied=True, layers=5),
    "smollm3: chosen layers": Variant(
        "smollm3", (4, 2, 64), tied=False, hidden=256, layers=3, options={"no_rope_layers": [0, 1, 0]}
    ),
    "smollm3: another interval": Variant(
        "smollm3",
        (2, 1, 64),
        tied=True,
        layers=3,
        options={"no_rope_layers": [1, 0, 1]},
        rewritten={"no_rope_layers": None, "no_rope_layer_interval": 2, "tie_word_embeddings": None},
    ),
}


def write_model(variant: Variant, folder: Path) -> None:
    """A checkpoint folder with an empty tokenizer."""
    torch.manual_seed(3)
    heads, kv_heads, head_dim = variant.sizes
    config = CONFIGS[variant.family](
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": variant.hidden,
            "intermediate_size": 384,
            "num_hidden_layers": variant.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": variant.tied,
            "pad_token_id": None,
            **variant.options,
        }
    )
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # Norms and biases are far from their neutral values, and attention chooses.
        for weight in network.parameters():
            spread = 0.2 if weight.ndim == 1 else 0.7 * weight.shape[1] ** -0.5
            weight += spread * torch.randn_like(weight)
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    path = folder / "config.json"
    written = json.loads(path.read_text()) | variant.rewritten
    gone = {key for key, value in variant.rewritten.items() if value is None}
    path.write_text(json.dumps({key: value for key, value in written.items() if key not in gone}))
