from __future__ import annotations

import math
from pathlib import Path

import pytest

from slmc.architecture import FAMILIES, Architecture, FactorScaling, Family, LayerKind, Llama3Scaling, Rope
from slmc.config_json import parse_architecture
from slmc.errors import CheckpointError

from .configs import CONFIGS, SHORT, Config, changed

LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
WHERE = Path("config.json")
PLAIN = (Rope(10000.0),)
ALIKE = (LayerKind(),) * 4


def parse(family: Family, **change: object) -> Architecture:
    return parse_architecture(changed(family, change), WHERE)


def names(architecture: Architecture) -> set[str]:
    return {tensor.name for tensor in architecture.tensors()}


def test_every_family_has_a_config() -> None:
    assert set(CONFIGS) == set(FAMILIES)


def test_llama() -> None:
    found = parse("llama")
    assert (found.ropes, found.layer_kinds, found.head_dim, found.rotary_dim) == (PLAIN, ALIKE, 16, 16)
    assert (found.tied, found.qkv_bias, found.qk_norm, found.fused, found.post_norms) == (False,) * 5
    assert (found.gate, found.norm_offset, found.embedding_scale, found.attention_scale) == ("silu", 0.0, 1.0, 0.25)
    assert parse("llama", tie_word_embeddings=True).tied
    assert parse("llama", head_dim=32).head_dim == 32
    assert parse("llama", num_key_value_heads=None).kv_heads == 4


def test_qwen2_has_biases_whatever_attention_bias_says() -> None:
    for found in (parse("qwen2"), parse("qwen2", attention_bias=True)):
        assert found.qkv_bias
        added = names(found) - names(parse("llama"))
        assert {name.rsplit(".", 2)[-2] for name in added} == {"q_proj", "k_proj", "v_proj"}
        assert all(name.endswith(".bias") for name in added)
    assert (found.ropes, found.layer_kinds) == (PLAIN, ALIKE)


def test_qwen3_has_norms_of_queries_and_keys() -> None:
    found = parse("qwen3")
    assert found.qk_norm
    assert {name.rsplit(".", 2)[-2] for name in names(found) - names(parse("llama"))} == {"q_norm", "k_norm"}
    assert (found.head_dim, found.attention_scale) == (32, 32**-0.5)


def test_gemma3() -> None:
    found = parse("gemma3_text")
    assert found.ropes == (Rope(1e6, FactorScaling((8.0,))), Rope(10000.0))
    local, full = LayerKind(rope=1, window=16), LayerKind(rope=0)
    assert found.layer_kinds == (local, local, full, local)
    assert (found.tied, found.qk_norm, found.post_norms, found.norm_offset) == (True, True, True, 1.0)
    assert (found.gate, found.embedding_scale, found.attention_scale) == ("gelu_tanh", 8.0, 0.125)
    assert not parse("gemma3_text", tie_word_embeddings=False).tied
    added = {name.rsplit(".", 2)[-2] for name in names(found) - names(parse("qwen3"))}
    assert added == {"pre_feedforward_layernorm", "post_feedforward_layernorm"}


def test_gemma3_in_the_older_keys() -> None:
    older: Config = {
        "layer_types": None,
        "sliding_window_pattern": 3,
        "rope_parameters": None,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    assert parse("gemma3_text", **older) == parse("gemma3_text")
    unscaled = parse("gemma3_text", **older | {"rope_scaling": None, "sliding_window_pattern": None})
    assert unscaled.ropes == (Rope(1e6), Rope(10000.0))
    assert unscaled.layer_kinds == (LayerKind(rope=1, window=16),) * 4  # the sixth would see all


def test_phi3() -> None:
    found = parse("phi3")
    assert (found.fused, found.tied, found.head_dim, found.rotary_dim) == (True, True, 16, 12)
    magnitude = math.sqrt(1 + math.log(2) / math.log(64))
    assert found.ropes == (Rope(10000.0, FactorScaling(tuple(SHORT), magnitude, most_context=64)),)
    assert found.layer_kinds == (LayerKind(window=96),) * 4
    assert (found.max_context, found.most_context) == (128, 64)
    shapes = {tensor.name: tensor.shape for tensor in found.tensors()}
    assert shapes["model.layers.3.self_attn.qkv_proj.weight"] == ((4 + 2 * 2) * 16, 64)
    assert shapes["model.layers.3.mlp.gate_up_proj.weight"] == (2 * 128, 64)
    assert parse("phi3", rope_parameters={"rope_theta": 1e4}, sliding_window=None).layer_kinds == ALIKE


def test_phi3_in_the_older_keys() -> None:
    older: Config = {
        "rope_parameters": None,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", "short_factor": SHORT, "long_factor": [32.0] * 6},
    }
    assert parse("phi3", **older) == parse("phi3")


@pytest.mark.parametrize(
    ("given", "magnitude"),
    [
        ({"attention_factor": 1.25}, 1.25),
        ({"factor": 4.0}, math.sqrt(1 + math.log(4) / math.log(64))),
        ({"factor": 1.0}, 1.0),
        ({"factor": 4.0, "attention_factor": 1.25}, 1.25),
    ],
)
def test_what_cosines_and_sines_are_multiplied_by(given: Config, magnitude: float) -> None:
    section = CONFIGS["phi3"]["rope_parameters"]
    assert isinstance(section, dict)
    [rope] = parse("phi3", rope_parameters=section | given).ropes
    assert isinstance(rope.scaling, FactorScaling)
    assert rope.scaling.magnitude == pytest.approx(magnitude)


def test_smollm3() -> None:
    found = parse("smollm3")
    turned, still = LayerKind(), LayerKind(rope=None)
    assert (found.ropes, found.layer_kinds, found.tied) == (PLAIN, (turned, turned, turned, still), True)
    assert parse("smollm3", no_rope_layers=[0, 1, 0, 1]).layer_kinds == (still, turned, still, turned)
    assert parse("smollm3", no_rope_layers=None) == found
    assert parse("smollm3", no_rope_layers=None, no_rope_layer_interval=2) == parse(
        "smollm3", no_rope_layers=[1, 0, 1, 0]
    )
    assert names(found) == names(parse("llama", tie_word_embeddings=True))


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
    ],
)
def test_both_spellings_of_rope(keys: Config) -> None:
    assert parse("llama", **keys).ropes == (Rope(5e5, Llama3Scaling(32.0, 1.0, 4.0, 8192)),)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3"])
def test_plain_and_linear_ropes_in_both_spellings(family: Family) -> None:
    older: Config = {"rope_parameters": None, "rope_theta": 10000, "rope_scaling": None}
    assert parse(family, **older) == parse(family)
    linear = parse(family, **older | {"rope_scaling": {"type": "linear", "factor": 4}})
    assert linear.ropes == (Rope(10000.0, FactorScaling((4.0,))),)
    assert linear.most_context == linear.max_context == 128


def test_a_head_of_its_own_is_one_tensor_more() -> None:
    assert names(parse("llama")) - names(parse("llama", tie_word_embeddings=True)) == {"lm_head.weight"}


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
HALF = {"rope_theta": 1e4, "partial_rotary_factor": 0.5}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": SHORT}


@pytest.mark.parametrize(
    ("family", "change", "match"),
    [
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": HALF}, "part of a head"),
        ("qwen3", {"rope_parameters": YARN}, "'yarn' is not supported"),
        ("qwen3", {"rope_scaling": YARN}, "both rope_parameters and rope_scaling"),
        ("llama", {"rope_parameters": LONG}, "'longrope' is not supported"),
        ("llama", {"rope_parameters": {}}, "no rope_theta"),
        ("llama", {"rope_parameters": {"rope_theta": -1.0}}, "no rope_theta"),
        ("llama", {"rope_parameters": [1]}, r"rope_parameters is \[1\]"),
        ("llama", {"num_key_value_heads": 3}, "evenly"),
        ("llama", {"hidden_size": "64"}, "hidden_size is '64'"),
        ("llama", {"vocab_size": -1}, "vocab_size"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps is missing"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers"),
        ("gemma3_text", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"query_pre_attn_scalar": None}, "query_pre_attn_scalar is missing"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window is missing"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 3}, "layer_types is"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 3 + ["chunked_attention"]}, "'chunked_attention'"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, r"rope_parameters\.full_attention is missing"),
        ("gemma3_text", {"rope_parameters": None, "rope_theta": 1e4}, "no rope_theta"),
        ("gemma3_text", {"rope_parameters": {"full_attention": YARN, "sliding_attention": YARN}}, "yarn"),
        ("phi3", {"rope_parameters": YARN}, "'yarn' is not supported"),
        ("phi3", {"rope_parameters": {**LONG, "partial_rotary_factor": 0.5}}, "short_factor is"),
        ("phi3", {"rope_parameters": {**LONG, "short_factor": [1.0] * 7 + [-1.0]}}, "short_factor is"),
        ("phi3", {"rope_parameters": {**HALF, "partial_rotary_factor": 0.2}}, "partial_rotary_factor is 0.2"),
        ("phi3", {"rope_parameters": {**HALF, "partial_rotary_factor": 1.5}}, "partial_rotary_factor is 1.5"),
        ("phi3", {"original_max_position_embeddings": None}, "original_max_position_embeddings is missing"),
        ("phi3", {"sliding_window": 0}, "sliding_window is 0"),
        ("smollm3", {"use_sliding_window": True}, "use_sliding_window"),
        ("smollm3", {"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers is"),
        ("smollm3", {"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_we_would_compute_wrongly_is_refused(family: Family, change: Config, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        parse(family, **change)
    assert "config.json" in str(caught.value.where)


def test_a_model_of_more_than_text_is_told_how_to_part_it() -> None:
    config = {"model_type": "gemma3", "text_config": CONFIGS["gemma3_text"], "vision_config": {}}
    with pytest.raises(CheckpointError, match="'gemma3' is a model of more than text") as caught:
        parse_architecture(config, WHERE)
    assert "gemma3_text decoder alone" in str(caught.value.todo)
    with pytest.raises(CheckpointError, match="more than text") as caught:
        parse_architecture({"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}}, WHERE)
    assert caught.value.todo is None


def test_an_unused_key_is_let_pass() -> None:
    for family in FAMILIES:
        assert parse(family, some_future_key=1) == parse(family)
