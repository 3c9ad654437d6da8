"""A Hugging Face `config.json` to an `Architecture`, family by family.

Lenient with keys we do not use, strict with those that change the numbers: an activation, a rope type, a
softcap that we would compute wrongly is an error, never ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc.architecture import FAMILIES, Architecture, FactorScaling, Family, LayerKind, Llama3Scaling, Rope
from slmc.errors import CheckpointError, did_you_mean


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
    family = _family(keys)
    _refuse_what_changes_numbers(config, family, path)
    heads, hidden = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    head_dim = keys.integer("head_dim", hidden // heads)
    layers, gemma = keys.integer("num_hidden_layers"), family == "gemma3_text"
    max_context = keys.integer("max_position_embeddings")
    ropes = _ropes(keys, family, max_context)
    scaled = keys.number("query_pre_attn_scalar") if gemma else float(head_dim)
    found = Architecture(
        family=family,
        vocab_size=keys.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.integer("intermediate_size"),
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        rotary_dim=_rotary_dim(keys, family, head_dim),
        rms_eps=keys.number("rms_norm_eps"),
        ropes=ropes,
        layer_kinds=_layer_kinds(keys, family, layers, len(ropes)),
        # What transformers takes a missing key for: its own classes for Gemma and SmolLM3 tie.
        tied=bool(config.get("tie_word_embeddings", gemma or family == "smollm3")),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3" or gemma,
        max_context=max_context,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        fused=family == "phi3",
        post_norms=gemma,
        norm_offset=1.0 if gemma else 0.0,
        gate="gelu_tanh" if gemma else "silu",
        embedding_scale=math.sqrt(hidden) if gemma else 1.0,
        attention_scale=scaled**-0.5,
    )
    if found.heads % found.kv_heads:
        raise CheckpointError(
            f"{found.heads} attention heads can't share {found.kv_heads} key-value heads evenly",
            where=f"{path}: num_key_value_heads",
        )
    return found


def _family(keys: _Keys) -> Family:
    named = keys.text("model_type")
    for family in FAMILIES:
        if family == named:
            return family
    raise CheckpointError(
        f"unknown architecture {named!r}",
        where=f"{keys.path}: model_type",
        expected=f"one of {', '.join(FAMILIES)}",
        todo=did_you_mean(named, FAMILIES),
    )


def _refuse_what_changes_numbers(config: Mapping[str, object], family: Family, path: Path) -> None:
    """Options of these families that we do not compute: better refused than wrong."""
    gemma = family == "gemma3_text"
    act, wanted = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
    refused = {
        act: config.get(act, wanted) != wanted,
        "mlp_bias": bool(config.get("mlp_bias", False)),
        # Qwen2 has a bias on q, k, v whatever this key says; elsewhere it also puts one on o_proj.
        "attention_bias": family != "qwen2" and bool(config.get("attention_bias", False)),
        "partial_rotary_factor": family != "phi3" and config.get("partial_rotary_factor", 1.0) != 1.0,
        # Windows of Qwen and SmolLM3 are written in several ways, and no released model has them.
        "use_sliding_window": bool(config.get("use_sliding_window", False)),
        "attn_logit_softcapping": config.get("attn_logit_softcapping") is not None,
        "final_logit_softcapping": config.get("final_logit_softcapping") is not None,
        "use_bidirectional_attention": bool(config.get("use_bidirectional_attention", False)),
    }
    for key, present in refused.items():
        if present:
            raise CheckpointError(
                f"{key} = {config[key]!r} is not supported for {family}",
                where=f"{path}: {key}",
                todo="use a checkpoint without it",
            )


def _layer_kinds(keys: _Keys, family: Family, layers: int, ropes: int) -> tuple[LayerKind, ...]:
    if family == "gemma3_text":
        window, local = keys.integer("sliding_window"), _gemma_local(keys, layers)
        return tuple(LayerKind(rope=1, window=window) if one else LayerKind(rope=0) for one in local)
    if family == "smollm3":
        turned = keys.list("no_rope_layers", [(index + 1) % 4 for index in range(layers)], layers)
        return tuple(LayerKind(rope=0 if one else None) for one in turned)
    if family == "phi3" and keys.values.get("sliding_window") is not None:
        return (LayerKind(window=keys.integer("sliding_window")),) * layers
    return (LayerKind(),) * layers


def _gemma_local(keys: _Keys, layers: int) -> Sequence[bool]:
    """Which layers see a window; before `layer_types` there was a pattern: every so many layers one that sees all."""
    if keys.values.get("layer_types") is None:
        every = keys.integer("sliding_window_pattern", 6)
        return [(index + 1) % every != 0 for index in range(layers)]
    kinds = keys.list("layer_types", [], layers)
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown:
        raise CheckpointError(f"a layer type {unknown.pop()!r}", where=f"{keys.path}: layer_types")
    return [kind == "sliding_attention" for kind in kinds]


def _rotary_dim(keys: _Keys, family: Family, head_dim: int) -> int:
    if family != "phi3":
        return head_dim
    section = keys.values.get("rope_parameters")
    nested = section.get("partial_rotary_factor") if isinstance(section, dict) else None
    share = nested if nested is not None else keys.values.get("partial_rotary_factor", 1.0)
    dim = int(head_dim * share) if isinstance(share, int | float) else 0
    if dim <= 0 or dim > head_dim or dim % 2:
        raise CheckpointError(f"partial_rotary_factor is {share!r}", where=keys.path, expected="a share of the head")
    return dim


def _ropes(keys: _Keys, family: Family, max_context: int) -> tuple[Rope, ...]:
    """Read `rope_parameters` (transformers 5) or the older `rope_theta` and `rope_scaling`."""
    config, path = keys.values, keys.path
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    if family == "gemma3_text":
        return _gemma_ropes(keys, new, old)
    section = new if isinstance(new, dict) else old if isinstance(old, dict) else {}
    name = "rope_parameters" if isinstance(new, dict) else "rope_scaling"
    theta = section.get("rope_theta", config.get("rope_theta"))
    original = section.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return (
        _rope(_Keys({**section, "original_max_position_embeddings": original}, path, name + "."), theta, max_context),
    )


def _gemma_ropes(keys: _Keys, new: object, old: object) -> tuple[Rope, ...]:
    """Of layers that see all, and of those that see a window."""
    if isinstance(new, dict) and isinstance(new.get("full_attention"), dict):
        sections = [(new.get(kind), f"rope_parameters.{kind}.") for kind in ("full_attention", "sliding_attention")]
        read = [_Keys(one if isinstance(one, dict) else {}, keys.path, name) for one, name in sections]
        return tuple(_rope(one, one.values.get("rope_theta"), None) for one in read)
    scaling = _Keys(old if isinstance(old, dict) else {}, keys.path, "rope_scaling.")
    local = _Keys({}, keys.path)
    return (
        _rope(scaling, keys.values.get("rope_theta"), None),
        _rope(local, keys.values.get("rope_local_base_freq"), None),
    )


def _rope(section: _Keys, theta: object, max_context: int | None) -> Rope:
    if isinstance(theta, bool) or not isinstance(theta, int | float):
        raise CheckpointError(
            "no rope_theta", where=section.path, expected="rope_parameters.rope_theta or a top-level rope_theta"
        )
    kind = section.values.get("rope_type", section.values.get("type", "default"))
    if kind == "default":
        return Rope(float(theta))
    if kind == "linear":
        return Rope(float(theta), FactorScaling((section.number("factor"),)))
    if kind == "longrope" and max_context is not None:
        return Rope(float(theta), _longrope(section, max_context))
    if kind == "llama3":
        return Rope(
            float(theta),
            Llama3Scaling(
                factor=section.number("factor"),
                low_frequency_factor=section.number("low_freq_factor"),
                high_frequency_factor=section.number("high_freq_factor"),
                original_context=section.integer("original_max_position_embeddings"),
            ),
        )
    raise CheckpointError(
        f"rope type {kind!r} is not supported",
        where=f"{section.path}: {section.prefix}rope_type",
        expected="'default', 'linear', 'llama3' or 'longrope'",
    )


def _longrope(section: _Keys, max_context: int) -> FactorScaling:
    """As transformers computes it (`_compute_longrope_parameters`) for what fits the original context."""
    original = section.integer("original_max_position_embeddings")
    factors = section.values.get("short_factor")
    if not isinstance(factors, list) or not all(isinstance(one, int | float) and one > 0 for one in factors):
        raise CheckpointError("short_factor is no list of positive numbers", where=f"{section.path}: {section.prefix}")
    given = section.values.get("attention_factor")
    longer = max_context / original
    magnitude = 1.0 if longer <= 1 else math.sqrt(1 + math.log(longer) / math.log(original))
    return FactorScaling(
        tuple(map(float, factors)),
        magnitude=float(given) if isinstance(given, int | float) else magnitude,
        most_context=original,
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

    def list(self, key: str, default: Sequence[object], length: int) -> Sequence[object]:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise self._bad(key, value, f"a list of {length}, one for each layer")
        return value

    def _bad(self, key: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.prefix}{key} is {'missing' if value is None else repr(value)}",
            where=f"{self.path}: {self.prefix}{key}",
            expected=expected,
        )
