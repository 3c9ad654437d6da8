from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from slmc.checkpoint.adapter_config import read_adapter_config
from slmc.checkpoint.lora import merge
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.errors import AdapterError, CheckpointError

from .models import EMBEDDING, HEAD, PREFIX, Q_PROJ, Tensors, pair, tensors, write_adapter, write_checkpoint

A, B = f"{PREFIX}{Q_PROJ}.lora_A.weight", f"{PREFIX}{Q_PROJ}.lora_B.weight"


def merged(base: Path, adapter: Path) -> Path:
    out = base.parent / "out"
    out.mkdir()
    merge(open_checkpoint(base), adapter, out, lambda weights: None)
    open_checkpoint(out)
    return out


def test_the_pair_is_added_and_the_rest_is_copied(tmp_path: Path) -> None:
    weights, low_rank = tensors(), pair(Q_PROJ, 128, 64)
    base = write_checkpoint(tmp_path / "base", weights)
    out = merged(base, write_adapter(tmp_path / "adapter", low_rank))
    wanted = weights[f"{Q_PROJ}.weight"].astype(np.float32) + 2 * (low_rank[B] @ low_rank[A])
    with TensorReader(out) as reader:
        assert set(reader.names) == set(weights)
        assert np.allclose(reader.array(f"{Q_PROJ}.weight"), wanted, rtol=1e-6, atol=1e-6)
        for name in set(weights) - {f"{Q_PROJ}.weight"}:
            assert reader.stored_rows(name, 0, len(weights[name])).tobytes() == weights[name].tobytes()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((out / name).read_text()) == json.loads((base / name).read_text())


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64))
    first = open_checkpoint(merged(base, adapter)).digest
    shutil.rmtree(tmp_path / "out")
    assert open_checkpoint(merged(base, adapter)).digest == first


def test_a_head_that_parts_from_its_embedding(tmp_path: Path) -> None:
    weights = tensors()
    base = write_checkpoint(tmp_path / "base", weights)
    head = weights[EMBEDDING].astype(np.float32) + 1
    out = merged(base, write_adapter(tmp_path / "adapter", {PREFIX + HEAD: head}))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    with TensorReader(out) as reader:
        assert np.array_equal(reader.array(HEAD), head)
        assert reader.stored_rows(EMBEDDING, 0, 300).tobytes() == weights[EMBEDDING].tobytes()


def test_another_base_weight_under_a_tied_embedding_is_under_the_head_too(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    other = tensors(seed=9)[EMBEDDING].astype(np.float32)
    out = merged(base, write_adapter(tmp_path / "adapter", {f"{PREFIX}model.embed_tokens.base_layer.weight": other}))
    with TensorReader(out) as reader:
        assert HEAD not in reader.names
        assert np.array_equal(reader.array(EMBEDDING), other)


@pytest.mark.parametrize(
    ("options", "module", "rank", "scaling"),
    [
        ({}, "model.layers.0.self_attn.q_proj", 8, 2.0),
        ({"use_rslora": True}, "model.layers.0.self_attn.q_proj", 8, 16 / math.sqrt(8)),
        ({"rank_pattern": {"q_proj": 4}}, "model.layers.0.self_attn.q_proj", 4, 4.0),
        ({"rank_pattern": {"proj": 4}}, "model.layers.0.self_attn.q_proj", 8, 2.0),
        ({"rank_pattern": {"layers": 4}}, "model.layers.0.self_attn.q_proj", 8, 2.0),
        ({"rank_pattern": {"^q_proj": 4}}, "model.layers.0.self_attn.q_proj", 8, 2.0),
        ({"rank_pattern": {"q_proj": 4, r".*\.0\..*": 2}}, "model.layers.0.self_attn.q_proj", 4, 4.0),
        ({"rank_pattern": {r"model\.layers\.1\..*": 2}}, "model.layers.0.self_attn.q_proj", 8, 2.0),
        ({"alpha_pattern": {"self_attn.q_proj": 32}}, "model.layers.0.self_attn.q_proj", 8, 4.0),
        ({"lora_alpha": 0.5}, "lm_head", 8, 0.0625),
    ],
)
def test_ranks_and_scalings(tmp_path: Path, options: dict[str, object], module: str, rank: int, scaling: float) -> None:
    config = read_adapter_config(write_adapter(tmp_path / "a", {}, **({"r": 8, "lora_alpha": 16} | options)))
    assert config.needs_peft is None
    assert config.rank_of(module) == rank
    assert config.scaling_of(module) == pytest.approx(scaling)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"peft_type": "LOHA"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "loftq"},
        {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 1]]},
        {"target_parameters": ["x"]},
        {"alora_invocation_tokens": [1]},
    ],
)
def test_what_is_left_to_peft(tmp_path: Path, options: dict[str, object]) -> None:
    adapter = write_adapter(tmp_path / "a", {}, **options)
    key, value = next(iter(options.items()))
    assert read_adapter_config(adapter).needs_peft == f"{key} = {value!r}"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": "8"}, "r is '8'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"rank_pattern": {"q_proj": -1}}, r"rank_pattern\.q_proj is -1"),
        ({"rank_pattern": [4]}, "rank_pattern is not an object"),
        ({"rank_pattern": {"(": 4}}, "no regular expression"),
        ({"peft_type": None}, "no peft_type"),
        ({"tripled": 3}, "tripled = 3 is not known"),
    ],
)
def test_options_that_are_none(tmp_path: Path, options: dict[str, object], match: str) -> None:
    adapter = write_adapter(tmp_path / "a", pair(Q_PROJ, 128, 64), **options)
    with pytest.raises(AdapterError, match=match):
        merged(write_checkpoint(tmp_path / "base"), adapter)


def test_unknown_options_without_a_value_are_ignored(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", {}, tripled=None, quadrupled=False, more=[])
    assert read_adapter_config(adapter).needs_peft is None


def renamed(old: str, new: str) -> Callable[[Tensors], None]:
    return lambda weights: weights.update({new: weights.pop(old)})


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda w: w.pop(B), rf"{A} has no B beside it"),
        (lambda w: w.pop(A), rf"{B} has no A beside it"),
        (lambda w: w.clear(), "the adapter holds no tensor"),
        (renamed(A, A.removeprefix(PREFIX)), "is not a key that peft saves"),
        (
            renamed(A, A.replace("layers.0", "layers.7")),
            r"model\.layers\.7\.self_attn\.q_proj, which the base does not",
        ),
        (renamed(A, A.replace("q_proj", "query")), r"self_attn\.query, which the base does not have"),
        (renamed(A, A.replace("lora_A", "lora_C")), "fits no tensor of the base"),
        (renamed(A, f"{PREFIX}model.norm.lora_A.weight"), r"can't adapt model\.norm\.weight"),
        (renamed(A, f"{PREFIX}model.embed_tokens.lora_A.weight"), r"can't adapt model\.embed_tokens\.weight"),
        (lambda w: w.update({A: w[A][:, :63].copy()}), r"lora_A\.weight has shape \[2, 63\]"),
        (lambda w: w.update({A: w[A][:1].copy(), B: w[B][:, :1].copy()}), r"lora_A\.weight has shape \[1, 64\]"),
        (lambda w: w.update({B: w[B][:64].copy()}), r"lora_B\.weight has shape \[64, 2\]"),
        (lambda w: w.update({A: w[A].astype(np.float64)}), "stored as F64"),
        (lambda w: w.update({f"{PREFIX}{Q_PROJ}.weight": np.ones((128, 64), np.float32)}), "replaces"),
        (lambda w: w.update({f"{PREFIX}model.norm.weight": np.ones(65, np.float32)}), r"has shape \[65\]"),
        (lambda w: w.update({f"{PREFIX}{Q_PROJ}.lora_magnitude_vector": np.ones(128, np.float32)}), "magnitude"),
        (lambda w: w[A].__setitem__((1, 5), np.nan), rf"{A} holds NaN"),
        (lambda w: w[B].__setitem__((1, 1), -np.inf), rf"{B} holds NaN"),
        (lambda w: (np.copyto(w[A], 1e38), np.copyto(w[B], 1e38)), f"{Q_PROJ}.weight is no longer finite"),
    ],
)
def test_an_adapter_that_does_not_fit(tmp_path: Path, edit: Callable[[Tensors], None], match: str) -> None:
    weights = pair(Q_PROJ, 128, 64)
    edit(weights)
    with pytest.raises(AdapterError, match=match):
        merged(write_checkpoint(tmp_path / "base"), write_adapter(tmp_path / "adapter", weights))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_base_that_is_not_finite_is_not_the_adapters_fault(tmp_path: Path) -> None:
    weights = tensors()
    weights[f"{Q_PROJ}.weight"][3, 3] = ml_dtypes.bfloat16(np.inf)
    with pytest.raises(CheckpointError, match=f"{Q_PROJ}.weight holds NaN or infinity"):
        merged(write_checkpoint(tmp_path / "base", weights), write_adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64)))


def test_weights_that_are_not_safetensors(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", pair(Q_PROJ, 128, 64))
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AdapterError, match="not a whole safetensors file"):
        merged(base, adapter)
    path.rename(adapter / "adapter_model.bin")
    checkpoint = open_checkpoint(base)
    with pytest.raises(AdapterError, match="a pickle"):
        merge(checkpoint, adapter, tmp_path, lambda weights: None)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(AdapterError, match="no weights in the adapter"):
        merge(checkpoint, adapter, tmp_path, lambda weights: None)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        merge(checkpoint, adapter, tmp_path, lambda weights: None)
