"""MLC's names against those of `python/mlc_llm/model/*/*_loader.py` of mlc-ai/mlc-llm."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.architecture import FAMILIES, Architecture, Family
from slmc.backends.mlc.names import Weight, weights
from slmc.config_json import parse_architecture

from ..configs import changed


def parse(family: Family, **change: object) -> Architecture:
    return parse_architecture(changed(family, change), Path("config.json"))


def named(family: Family, **change: object) -> dict[str, Weight]:
    found = [weight for parts in weights(parse(family, **change)).values() for weight in parts]
    assert len({weight.name for weight in found}) == len(found)
    return {weight.name: weight for weight in found}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_in_exactly_one_weight(family: Family, tied: bool) -> None:
    found = named(family, tie_word_embeddings=tied)
    used = [source.name for weight in found.values() for source in weight.sources]
    assert sorted(used) == sorted(spec.name for spec in parse(family, tie_word_embeddings=tied).tensors())


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (
            "llama",
            {
                "model.embed_tokens": ["model.embed_tokens.weight"],
                "model.layers.3.input_layernorm": ["model.layers.3.input_layernorm.weight"],
                "model.layers.3.self_attn.qkv_proj": [f"model.layers.3.self_attn.{p}_proj.weight" for p in "qkv"],
                "model.layers.3.self_attn.o_proj": ["model.layers.3.self_attn.o_proj.weight"],
                "model.layers.3.post_attention_layernorm": ["model.layers.3.post_attention_layernorm.weight"],
                "model.layers.3.mlp.gate_up_proj": [f"model.layers.3.mlp.{p}_proj.weight" for p in ("gate", "up")],
                "model.layers.3.mlp.down_proj": ["model.layers.3.mlp.down_proj.weight"],
                "model.norm": ["model.norm.weight"],
                "lm_head": ["lm_head.weight"],
            },
        ),
        (
            "qwen2",
            {
                "model.embed_tokens": ["model.embed_tokens.weight"],
                "model.layers.0.self_attn.c_attn": [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkv"],
                "model.layers.0.self_attn.c_attn.bias": [f"model.layers.0.self_attn.{p}_proj.bias" for p in "qkv"],
                "model.layers.0.self_attn.o_proj": ["model.layers.0.self_attn.o_proj.weight"],
            },
        ),
        (
            "qwen3",
            {
                "model.layers.0.self_attn.c_attn": [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkv"],
                "model.layers.0.self_attn.q_norm": ["model.layers.0.self_attn.q_norm.weight"],
                "model.layers.0.self_attn.k_norm": ["model.layers.0.self_attn.k_norm.weight"],
                "model.layers.0.mlp.gate_up_proj": [f"model.layers.0.mlp.{p}_proj.weight" for p in ("gate", "up")],
            },
        ),
        (
            "gemma3_text",
            {
                "language_model.model.embed_tokens": ["model.embed_tokens.weight"],
                "language_model.model.norm": ["model.norm.weight"],
                **{
                    f"language_model.model.layers.2.{name}": [f"model.layers.2.{name}.weight"]
                    for name in (
                        "self_attn.q_proj",
                        "self_attn.k_proj",
                        "self_attn.v_proj",
                        "self_attn.o_proj",
                        "self_attn.q_norm",
                        "self_attn.k_norm",
                        "input_layernorm",
                        "post_attention_layernorm",
                        "pre_feedforward_layernorm",
                        "post_feedforward_layernorm",
                        "mlp.down_proj",
                    )
                },
                "language_model.model.layers.2.mlp.gate_up_proj": [
                    f"model.layers.2.mlp.{p}_proj.weight" for p in ("gate", "up")
                ],
            },
        ),
        (
            "phi3",
            {
                "transformer.embd": ["model.embed_tokens.weight"],
                "transformer.h.1.ln": ["model.layers.1.input_layernorm.weight"],
                "transformer.h.1.mixer.qkv_proj": ["model.layers.1.self_attn.qkv_proj.weight"],
                "transformer.h.1.mixer.out_proj": ["model.layers.1.self_attn.o_proj.weight"],
                "transformer.h.1.post_attention_layernorm": ["model.layers.1.post_attention_layernorm.weight"],
                "transformer.h.1.mlp.gate_up_proj": ["model.layers.1.mlp.gate_up_proj.weight"],
                "transformer.h.1.mlp.down_proj": ["model.layers.1.mlp.down_proj.weight"],
                "transformer.norm": ["model.norm.weight"],
                "lm_head": ["lm_head.weight"],
            },
        ),
        (
            "smollm3",
            {"model.layers.3.self_attn.qkv_proj": [f"model.layers.3.self_attn.{p}_proj.weight" for p in "qkv"]},
        ),
    ],
)
def test_each_family_has_mlc_s_names(family: Family, names: dict[str, list[str]]) -> None:
    found = named(family, tie_word_embeddings=family in ("qwen2", "qwen3", "gemma3_text"))
    assert {name: [source.name for source in found[name].sources] for name in names} == names


def test_a_tied_head_has_no_weight() -> None:
    for family in FAMILIES:
        assert not [name for name in named(family, tie_word_embeddings=True) if "lm_head" in name]


def test_a_fused_weight_has_the_rows_of_all_its_parts() -> None:
    found = named("llama", head_dim=16)
    assert found["model.layers.0.self_attn.qkv_proj"].shape == ((4 + 2 + 2) * 16, 64)
    assert found["model.layers.0.mlp.gate_up_proj"].shape == (256, 64)
    assert named("qwen2")["model.layers.0.self_attn.c_attn.bias"].shape == ((4 + 2 + 2) * 16,)
