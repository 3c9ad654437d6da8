"""mlc-chat-config.json and mlc-package-config.json, as MLC's engines and tools demand them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmc.architecture import FAMILIES, Architecture, Family
from slmc.backends.mlc.config import write_chat_config
from slmc.backends.mlc.package import write_package_config
from slmc.config_json import parse_architecture
from slmc.models.mlc import PACKAGE_CONFIG
from slmc.names import TargetName

from ..configs import changed

LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
SIZES = {
    "context_window_size": 96,
    "sliding_window_size": -1,
    "prefill_chunk_size": 32,
    "attention_sink_size": -1,
    "tensor_parallel_shards": 1,
    "pipeline_parallel_stages": 1,
}


def parse(family: Family, **change: object) -> Architecture:
    return parse_architecture(changed(family, change), Path("config.json"))


def written(folder: Path, architecture: Architecture) -> dict[str, Any]:
    write_chat_config(architecture, "q4f16_1", 96, 32, {"name": "slmc", "roles": {"user": "é"}}, folder)
    found: dict[str, Any] = json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_finds_every_key_that_it_demands(tmp_path: Path, family: Family) -> None:
    """A size that is no integer, or a key that is null, ends the engine's process."""
    config = written(tmp_path, parse(family))
    inner = config["model_config"]
    assert (config["model_type"], config["quantization"]) == (family, "q4f16_1")
    assert config["conv_template"] == {"name": "slmc", "roles": {"user": "é"}}
    for holder in (config, inner):
        found = {key: holder[key] for key in ("vocab_size", *SIZES)}
        assert found == {"vocab_size": 300, **SIZES}
        assert all(type(value) is int for value in found.values())
        assert None not in holder.values()
    for key in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty"):
        assert type(config[key]) is float
    assert config["tokenizer_files"] == []
    (tmp_path / "tokenizer.json").touch()
    assert written(tmp_path, parse(family))["tokenizer_files"] == ["tokenizer.json"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_compiler_finds_each_family_s_sizes(tmp_path: Path, family: Family) -> None:
    inner = written(tmp_path, parse(family, head_dim=16))["model_config"]
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    assert {key: inner[key] for key in sizes} == sizes
    assert all(type(inner[key]) is int for key in sizes)
    assert (inner["rms_norm_eps"], inner["model_type"]) == (1e-6, family)
    assert type(inner["tie_word_embeddings"]) is bool
    assert inner["hidden_act"] == ("gelu_pytorch_tanh" if family == "gemma3_text" else "silu")


def test_no_rope_is_left_to_be_guessed(tmp_path: Path) -> None:
    for family in FAMILIES:
        inner = written(tmp_path, parse(family))["model_config"]
        assert type(inner["rope_theta"]) is float
        assert "rope_parameters" not in inner
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    inner = written(tmp_path, parse("llama", **rope))["model_config"]
    assert (inner["rope_theta"], inner.get("rope_scaling")) == (500000.0, None)


def test_llama_s_scaling_has_the_key_without_which_it_is_ignored(tmp_path: Path) -> None:
    rope = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}
    inner = written(tmp_path, parse("llama", **rope))["model_config"]
    assert inner["rope_theta"] == 5e5
    assert inner["rope_scaling"] == {"rope_type": "llama3", **LLAMA3}


def test_each_family_has_the_keys_of_its_own(tmp_path: Path) -> None:
    assert written(tmp_path, parse("qwen3"))["model_config"]["attention_bias"] is False
    assert written(tmp_path, parse("phi3"))["model_config"]["partial_rotary_factor"] == 0.75
    assert written(tmp_path, parse("gemma3_text"))["model_config"]["is_text_model"] is True


@pytest.mark.parametrize(("target", "device"), [("ios", "iphone"), ("android", "android")])
def test_a_phone_s_package_names_weights_and_library(tmp_path: Path, target: TargetName, device: str) -> None:
    write_package_config(tmp_path, target, "small-MLC", "slmc_small", "lib/slmc_small.tar", 123456)
    config = json.loads((tmp_path / PACKAGE_CONFIG).read_text())
    assert config["device"] == device
    [model] = config["model_list"]
    assert model == {
        "model": "small-MLC",
        "model_id": "small-MLC",
        "model_lib": "slmc_small",
        "estimated_vram_bytes": 123456,
        "bundle_weight": True,
    }
    assert config["model_lib_path_for_prepare_libs"] == {"slmc_small": "lib/slmc_small.tar"}


def test_a_mac_needs_no_package(tmp_path: Path) -> None:
    write_package_config(tmp_path, "metal", "small-MLC", "slmc_small", "lib/slmc_small.dylib", 1)
    assert list(tmp_path.iterdir()) == []
