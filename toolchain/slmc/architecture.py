"""What a decoder is, read from a Hugging Face `config.json`: dimensions, rope, tensor names.

Lenient with keys we do not use, strict with those that change the numbers: an activation, a
rope type or a sliding window that we would compute wrongly is an error, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slmc.errors import CheckpointError, did_you_mean

Family = Literal["llama", "qwen2", "qwen3"]
Role = Literal["embedding", "head", "linear", "bias", "norm"]
MATRICES: frozenset[Role] = frozenset({"embedding", "head", "linear"})
"""What is quantized, where nothing keeps it."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class Llama3Scaling:
    """Frequency scaling of Llama 3.1 and later ("rope_type": "llama3")."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class Rope:
    theta: float
    scaling: Llama3Scaling | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that the architecture demands; `layer` is None outside the decoder layers."""

    name: str
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None

    @property
    def size(self) -> int:
        product = 1
        for extent in self.shape:
            product *= extent
        return product


@dataclass(frozen=True)
class Architecture:
    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    rope: Rope
    tied: bool
    """lm_head is the embedding's own weight."""
    qkv_bias: bool
    """q, k and v projections carry a bias (Qwen2)."""
    qk_norm: bool
    """RMSNorm over each head's query and key before rope (Qwen3)."""
    max_context: int
    dtype: str
    """The checkpoint's own precision: "bfloat16", "float16" or "float32"."""

    @property
    def weights(self) -> int:
        """How many there are in all tensors."""
        return sum(tensor.size for tensor in self.tensors())

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor of the checkpoint under its Hugging Face name; a tied head has none."""
        hidden = self.hidden_size
        yield TensorSpec(EMBEDDING, (self.vocab_size, hidden), "embedding")
        for layer in range(self.layers):
            yield from self._layer_tensors(layer)
        yield TensorSpec("model.norm.weight", (hidden,), "norm")
        if not self.tied:
            yield TensorSpec(HEAD, (self.vocab_size, hidden), "head")

    def _layer_tensors(self, layer: int) -> Iterator[TensorSpec]:
        prefix = f"model.layers.{layer}."
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield TensorSpec(prefix + "input_layernorm.weight", (hidden,), "norm", layer)
        for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            yield TensorSpec(f"{prefix}self_attn.{name}.weight", (rows, hidden), "linear", layer)
            if self.qkv_bias:
                yield TensorSpec(f"{prefix}self_attn.{name}.bias", (rows,), "bias", layer)
        if self.qk_norm:
            for name in ("q_norm", "k_norm"):
                yield TensorSpec(f"{prefix}self_attn.{name}.weight", (self.head_dim,), "norm", layer)
        yield TensorSpec(prefix + "self_attn.o_proj.weight", (hidden, queries), "linear", layer)
        yield TensorSpec(prefix + "post_attention_layernorm.weight", (hidden,), "norm", layer)
        yield TensorSpec(prefix + "mlp.gate_proj.weight", (inner, hidden), "linear", layer)
        yield TensorSpec(prefix + "mlp.up_proj.weight", (inner, hidden), "linear", layer)
        yield TensorSpec(prefix + "mlp.down_proj.weight", (hidden, inner), "linear", layer)


def read_architecture(folder: Path) -> Architecture:
    """Parse `folder/config.json`. Raises CheckpointError naming the key that is missing or unsupported.

    What it says of quantization is read by `slmc.imported`.
    """
    return parse_architecture(read_config(folder), folder / "config.json")


def read_config(folder: Path) -> dict[str, object]:
    """config.json as it stands. Raises CheckpointError where there is none, or it is no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            "no config.json in the checkpoint",
            where=folder,
            expected="a Hugging Face model folder (config.json, *.safetensors, tokenizer.json)",
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"config.json can't be read: {error}", where=path) from None
    if not isinstance(config, dict):
        raise CheckpointError("config.json is not a JSON object", where=path)
    return config


def parse_architecture(config: Mapping[str, object], path: Path) -> Architecture:
    keys = _Keys(config, path)
    family = keys.text("model_type")
    if family not in FAMILIES:
        raise CheckpointError(
            f"unknown architecture {family!r}",
            where=f"{path}: model_type",
            expected=f"one of {', '.join(FAMILIES)}",
            todo=did_you_mean(family, FAMILIES),
        )
    _refuse_what_changes_numbers(config, path)
    heads, hidden = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    found = Architecture(
        family=family,
        vocab_size=keys.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.integer("intermediate_size"),
        layers=keys.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", heads),
        head_dim=keys.integer("head_dim", hidden // heads),
        rms_eps=keys.number("rms_norm_eps"),
        rope=_rope(config, path),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
        qk_norm=family == "qwen3",
        max_context=keys.integer("max_position_embeddings"),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )
    if found.heads % found.kv_heads:
        raise CheckpointError(
            f"{found.heads} attention heads can't share {found.kv_heads} key-value heads evenly",
            where=f"{path}: num_key_value_heads",
        )
    return found


def _refuse_what_changes_numbers(config: Mapping[str, object], path: Path) -> None:
    """Options of these families that we do not compute: better refused than wrong."""
    family = config["model_type"]
    refused = {
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(config.get("use_sliding_window", False)),
        "mlp_bias": bool(config.get("mlp_bias", False)),
        # Qwen2 has a bias on q, k, v whatever this key says; elsewhere it also puts one on o_proj.
        "attention_bias": family != "qwen2" and bool(config.get("attention_bias", False)),
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0) != 1.0,
    }
    for key, present in refused.items():
        if present:
            raise CheckpointError(
                f"{key} = {config[key]!r} is not supported for {family}",
                where=f"{path}: {key}",
                todo="use a checkpoint without it",
            )


def _rope(config: Mapping[str, object], path: Path) -> Rope:
    """Read `rope_parameters` (transformers 5) or the older `rope_theta` and `rope_scaling`."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    section = new if isinstance(new, dict) else old if isinstance(old, dict) else {}
    name = "rope_parameters" if isinstance(new, dict) else "rope_scaling"
    theta = section.get("rope_theta", config.get("rope_theta"))
    if not isinstance(theta, int | float):
        raise CheckpointError(
            "no rope_theta", where=path, expected="rope_parameters.rope_theta or a top-level rope_theta"
        )
    kind = section.get("rope_type", section.get("type", "default"))
    if kind == "default":
        return Rope(float(theta))
    if kind != "llama3":
        raise CheckpointError(
            f"rope type {kind!r} is not supported",
            where=f"{path}: {name}.rope_type",
            expected="'default' or 'llama3'",
        )
    keys = _Keys(section, path, name + ".")
    return Rope(
        float(theta),
        Llama3Scaling(
            factor=keys.number("factor"),
            low_frequency_factor=keys.number("low_freq_factor"),
            high_frequency_factor=keys.number("high_freq_factor"),
            original_context=keys.integer("original_max_position_embeddings"),
        ),
    )


@dataclass(frozen=True)
class _Keys:
    """Typed access to a JSON object; the error names the file and the key."""

    values: Mapping[str, object]
    path: Path
    prefix: str = ""

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self._bad(key, value, "a positive integer")
        return value

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._bad(key, value, "a positive number")
        return float(value)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self._bad(key, value, "a string")
        return value

    def _bad(self, key: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.prefix}{key} is {'missing' if value is None else repr(value)}",
            where=f"{self.path}: {self.prefix}{key}",
            expected=expected,
        )
