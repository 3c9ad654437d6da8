"""Tiny checkpoints and adapters made with numpy and the safetensors library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from slmc.config_json import parse_architecture

from ..conftest import CONFIG, write_tokenizer

Tensors = dict[str, npt.NDArray[np.generic]]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Q_PROJ = "model.layers.0.self_attn.q_proj"
PREFIX = "base_model.model."


def tensors(config: Mapping[str, object] = CONFIG, seed: int = 0) -> Tensors:
    """Every tensor of the architecture, random, in bf16."""
    random = np.random.default_rng(seed)
    specs = parse_architecture(config, Path("config.json")).tensors()
    return {spec.name: (random.standard_normal(spec.shape) * 0.05).astype(ml_dtypes.bfloat16) for spec in specs}


def write_checkpoint(folder: Path, weights: Tensors | None = None, **changes: object) -> Path:
    """A whole folder; `changes` go into its config.json."""
    config = CONFIG | changes
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(config) if weights is None else weights, folder / "model.safetensors")
    return folder


def write_sharded(folder: Path, weights: Tensors | None = None) -> Path:
    """The same in two shards with an index."""
    weights = tensors() if weights is None else weights
    write_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in halves.items():
        save_file({name: weights[name] for name in held}, folder / shard)
    write_index(folder, {name: shard for shard, held in halves.items() for name in held})
    return folder


def write_index(folder: Path, weight_map: Mapping[str, object]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_adapter(folder: Path, weights: Tensors, **options: object) -> Path:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]} | options
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def pair(module: str, rows: int, columns: int, rank: int = 2) -> Tensors:
    """A LoRA pair for a linear."""
    random = np.random.default_rng(5)
    return {
        f"{PREFIX}{module}.lora_A.weight": random.standard_normal((rank, columns), dtype=np.float32),
        f"{PREFIX}{module}.lora_B.weight": random.standard_normal((rows, rank), dtype=np.float32),
    }
