from __future__ import annotations

from pathlib import Path

import pytest

from slmc.architecture import Llama3Scaling, Rope
from slmc.config_json import parse_architecture
from slmc.errors import CheckpointError

from .conftest import CONFIG

LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
WHERE = Path("config.json")


def without(*keys: str) -> dict[str, object]:
    return {key: value for key, value in CONFIG.items() if key not in keys}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
    ],
)
def test_both_spellings_of_rope(keys: dict[str, object]) -> None:
    found = parse_architecture(without("rope_parameters") | {"model_type": "llama"} | keys, WHERE)
    assert found.rope == Rope(5e5, Llama3Scaling(32.0, 1.0, 4.0, 8192))


def test_plain_rope_in_both_spellings() -> None:
    assert parse_architecture(CONFIG, WHERE).rope == Rope(10000.0)
    older = without("rope_parameters") | {"rope_theta": 10000, "rope_scaling": None}
    assert parse_architecture(older, WHERE).rope == Rope(10000.0)


def test_families_differ_in_their_tensors() -> None:
    names = {}
    for family in ("llama", "qwen2", "qwen3"):
        found = parse_architecture(CONFIG | {"model_type": family, "tie_word_embeddings": False}, WHERE)
        names[family] = {tensor.name for tensor in found.tensors()}
    assert {n.rsplit(".", 2)[-2] for n in names["qwen3"] - names["llama"]} == {"q_norm", "k_norm"}
    assert all(n.endswith(".bias") for n in names["qwen2"] - names["llama"])
    assert "lm_head.weight" in names["llama"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        ({"rope_parameters": {}}, "no rope_theta"),
        ({"num_key_value_heads": 3}, "evenly"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"rms_norm_eps": None}, "rms_norm_eps is missing"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
    ],
)
def test_what_we_would_compute_wrongly_is_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        parse_architecture(CONFIG | change, WHERE)


def test_an_unused_key_is_let_pass() -> None:
    assert parse_architecture(CONFIG | {"some_future_key": 1}, WHERE) == parse_architecture(CONFIG, WHERE)
