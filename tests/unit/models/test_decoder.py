from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from slmc.architecture import FAMILIES, MATRICES, Architecture, FactorScaling, Family, Llama3Scaling, Rope
from slmc.config_json import parse_architecture
from slmc.models.decoder import decoder_parameters, matrices, rope_tables

from ..configs import changed


def parse(family: Family, **change: object) -> Architecture:
    return parse_architecture(changed(family, change), Path("config.json"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_in_exactly_one_parameter(family: Family, tied: bool) -> None:
    architecture = parse(family, tie_word_embeddings=tied)
    parameters = list(decoder_parameters(architecture))
    used = [source.name for parameter in parameters for source in parameter.sources]
    assert sorted(used) == sorted(spec.name for spec in architecture.tensors())
    assert len({parameter.name for parameter in parameters}) == len(parameters)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_quantized_tensor_is_in_exactly_one_matrix(family: Family, tied: bool) -> None:
    architecture = parse(family, tie_word_embeddings=tied)
    found = matrices(architecture)
    quantized = [spec.name for spec in architecture.tensors() if spec.role in MATRICES]
    assert sorted(name for names in found for name in names) == sorted(quantized)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_parameters_have_the_same_shape_in_every_family(family: Family) -> None:
    architecture = parse(family, head_dim=16)
    shapes = {parameter.name: parameter.shape for parameter in decoder_parameters(architecture)}
    assert shapes["layers.3.qkv"] == ((4 + 2 * 2) * 16, 64)
    assert shapes["layers.3.o"] == (64, 4 * 16)
    assert shapes["layers.3.gate_up"] == (2 * 128, 64)
    assert shapes["layers.3.down"] == (64, 128)


def test_fused_parameters_keep_their_parts_in_order() -> None:
    parts = {one.name: [source.name for source in one.sources] for one in decoder_parameters(parse("qwen2"))}
    layer = "model.layers.0."
    assert parts["layers.0.qkv"] == [f"{layer}self_attn.{part}_proj.weight" for part in "qkv"]
    assert parts["layers.0.qkv_bias"] == [f"{layer}self_attn.{part}_proj.bias" for part in "qkv"]
    assert parts["layers.0.gate_up"] == [f"{layer}mlp.{part}_proj.weight" for part in ("gate", "up")]


def test_each_norm_is_where_its_family_has_it() -> None:
    """The same name in a checkpoint is another norm with Gemma 3."""

    def norm(family: Family, name: str) -> str:
        found = next(one for one in decoder_parameters(parse(family)) if one.name == f"layers.0.{name}")
        return found.sources[0].name.removeprefix("model.layers.0.")

    assert norm("llama", "mlp_norm") == "post_attention_layernorm.weight"
    assert norm("gemma3_text", "attention_post_norm") == "post_attention_layernorm.weight"
    assert norm("gemma3_text", "mlp_norm") == "pre_feedforward_layernorm.weight"
    assert norm("gemma3_text", "mlp_post_norm") == "post_feedforward_layernorm.weight"


@pytest.mark.parametrize("family", FAMILIES)
def test_rope_tables_are_rotations_of_what_a_head_turns(family: Family) -> None:
    architecture = parse(family, head_dim=16)
    tables = rope_tables(architecture, 20)
    assert len(tables) == (2 if family == "gemma3_text" else 1)
    for rope, (cosines, sines) in zip(architecture.ropes, tables, strict=True):
        assert cosines.shape == sines.shape == (20, 6 if family == "phi3" else 8)
        assert cosines.dtype == sines.dtype == np.float32
        length = rope.scaling.magnitude if isinstance(rope.scaling, FactorScaling) else 1.0
        np.testing.assert_allclose(np.hypot(cosines, sines), length, rtol=1e-6)


def angles(rope: Rope) -> np.ndarray:
    """Of position one."""
    [(cosines, sines)] = rope_tables(dataclasses.replace(parse("llama"), ropes=(rope,)), 2)
    found: np.ndarray = np.arctan2(sines[1], cosines[1])
    return found


def test_llama3_scaling_leaves_short_waves_and_slows_long_ones() -> None:
    before, after = angles(Rope(10000.0)), angles(Rope(10000.0, Llama3Scaling(8.0, 1.0, 4.0, 64)))
    np.testing.assert_allclose(before, 10000.0 ** (-np.arange(8) / 8), rtol=1e-5)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    np.testing.assert_allclose(after[-1], before[-1] / 8, rtol=1e-5)


def test_linear_scaling_slows_all_waves_alike_and_longrope_each_by_its_own_factor() -> None:
    before, factors = angles(Rope(10000.0)), tuple(1.0 + index for index in range(8))
    np.testing.assert_allclose(angles(Rope(10000.0, FactorScaling((4.0,)))), before / 4, rtol=1e-5)
    np.testing.assert_allclose(angles(Rope(10000.0, FactorScaling(factors, 1.5))), before / factors, rtol=1e-5)
