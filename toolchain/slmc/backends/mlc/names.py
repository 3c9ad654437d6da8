"""What MLC-LLM calls a decoder's weights, and which tensors of the checkpoint lie in each.

From `python/mlc_llm/model/*/*_loader.py` of mlc-ai/mlc-llm. SmolLM3 is none of its families; its names are Llama's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slmc.architecture import Architecture, Family, TensorSpec
from slmc.models.decoder import Parameter, decoder_parameters


@dataclass(frozen=True)
class Weight:
    """A matrix, norm or bias, by MLC's name."""

    name: str
    """Without what the kind of storing adds: a module's name, or a bias' own."""
    sources: tuple[TensorSpec, ...]
    """Their rows lie one after another."""

    @property
    def shape(self) -> tuple[int, ...]:
        return Parameter(self.name, self.sources).shape


@dataclass(frozen=True)
class _Names:
    around: Mapping[str, str]
    layer: str
    inner: Mapping[str, str]
    fused: bool = True
    """q, k and v are one matrix."""


_LLAMA = _Names(
    {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    "model.layers",
    {
        "attention_norm": "input_layernorm",
        "qkv": "self_attn.qkv_proj",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
        "o": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate_up": "mlp.gate_up_proj",
        "down": "mlp.down_proj",
    },
)
_QWEN = _Names(_LLAMA.around, _LLAMA.layer, {**_LLAMA.inner, "qkv": "self_attn.c_attn"})
_GEMMA = _Names(
    {role: f"language_model.{name}" for role, name in _LLAMA.around.items()},
    f"language_model.{_LLAMA.layer}",
    {
        **_LLAMA.inner,
        "attention_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
    fused=False,
)
_PHI = _Names(
    {"embedding": "transformer.embd", "norm": "transformer.norm", "head": "lm_head"},
    "transformer.h",
    {
        **_LLAMA.inner,
        "attention_norm": "ln",
        "qkv": "mixer.qkv_proj",
        "o": "mixer.out_proj",
    },
)
_FAMILIES: Mapping[Family, _Names] = {
    "llama": _LLAMA,
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "gemma3_text": _GEMMA,
    "phi3": _PHI,
    "smollm3": _LLAMA,
}


def weights(architecture: Architecture) -> dict[str, tuple[Weight, ...]]:
    """Of each of the decoder's parameters, in its order; several where MLC keeps its parts apart."""
    names = _FAMILIES[architecture.family]
    return {p.name: tuple(_weights(names, p)) for p in decoder_parameters(architecture)}


def _weights(names: _Names, parameter: Parameter) -> list[Weight]:
    if not parameter.name.startswith("layers."):
        return [Weight(names.around[parameter.name], parameter.sources)]
    _, layer, role = parameter.name.split(".")
    prefix = f"{names.layer}.{layer}."
    if role.startswith("qkv") and not names.fused:
        parts = [f"self_attn.{part}_proj" for part in "qkv"]
        return [Weight(prefix + part, (one,)) for part, one in zip(parts, parameter.sources, strict=True)]
    name = prefix + names.inner[role.removesuffix("_bias")]
    return [Weight(f"{name}.bias" if role.endswith("_bias") else name, parameter.sources)]
