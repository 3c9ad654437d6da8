from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from slmc.architecture import Llama3Scaling, Rope
from slmc.config_json import parse_architecture
from slmc.models.decoder import decoder_parameters, matrices, rope_tables

from ..conftest import CONFIG


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_is_in_exactly_one_parameter(family: str, tied: bool) -> None:
    config = CONFIG | {"model_type": family, "tie_word_embeddings": tied}
    architecture = parse_architecture(config, Path("config.json"))
    used = [source.name for parameter in decoder_parameters(architecture) for source in parameter.sources]
    assert sorted(used) == sorted(spec.name for spec in architecture.tensors())


def test_fused_parameters_keep_their_parts_in_order() -> None:
    architecture = parse_architecture(CONFIG, Path("config.json"))
    qkv = next(one for one in decoder_parameters(architecture) if one.name == "layers.0.qkv")
    assert [source.name.rsplit(".", 2)[1] for source in qkv.sources] == ["q_proj", "k_proj", "v_proj"]
    assert qkv.shape == ((4 + 2 * 2) * 32, 64)


@pytest.mark.parametrize("tied", [True, False])
def test_every_quantized_tensor_is_in_exactly_one_matrix(tied: bool) -> None:
    config = CONFIG | {"model_type": "qwen2", "tie_word_embeddings": tied}
    architecture = parse_architecture(config, Path("config.json"))
    found = matrices(architecture)
    quantized = [spec.name for spec in architecture.tensors() if spec.role in ("embedding", "head", "linear")]
    assert sorted(name for names in found for name in names) == sorted(quantized)
    assert ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight") in found


def test_the_rope_tables_are_rotations() -> None:
    architecture = parse_architecture(CONFIG, Path("config.json"))
    cosines, sines = rope_tables(architecture, 20)
    assert cosines.shape == sines.shape == (20, 16)
    np.testing.assert_allclose(cosines**2 + sines**2, 1, rtol=1e-6)
    np.testing.assert_allclose(cosines[1, 0], np.cos(1.0), rtol=1e-6)


def test_llama3_scaling_leaves_short_waves_and_slows_long_ones() -> None:
    plain = parse_architecture(CONFIG, Path("config.json"))
    scaled = dataclasses.replace(plain, rope=Rope(10000.0, Llama3Scaling(8.0, 1.0, 4.0, 64)))
    before, after = rope_tables(plain, 2)[1][1], rope_tables(scaled, 2)[1][1]
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    np.testing.assert_allclose(np.arcsin(after[-1]), np.arcsin(before[-1]) / 8, rtol=1e-5)
