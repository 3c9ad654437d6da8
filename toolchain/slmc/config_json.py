"""A Hugging Face `config.json` to an `Architecture`, family by family.

Lenient with keys we do not use, strict with those that change the numbers: an activation, a rope type, a
softcap that we would compute wrongly is an error, never ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from slmc.architecture import FAMILIES, Architecture, Family, LayerKind
from slmc.config_keys import Keys
from slmc.config_ropes import read_ropes, rope_section
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
    keys = Keys(config, path)
    family = _family(keys)
    _refuse_what_changes_numbers(keys, family)
    heads, hidden = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    head_dim = keys.integer("head_dim", hidden // heads)
    gemma = family == "gemma3_text"
    max_context, rotary_dim = keys.integer("max_position_embeddings"), _rotary_dim(keys, family, head_dim)
    scaled = keys.number("query_pre_attn_scalar") if gemma else float(head_dim)
    found = Architecture(
        family=family,
        vocab_size=keys.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.integer("intermediate_size"),
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rms_eps=keys.number("rms_norm_eps"),
        ropes=read_ropes(keys, family, rotary_dim, max_context),
        layer_kinds=_layer_kinds(keys, family, keys.integer("num_hidden_layers")),
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
            where=keys.where("num_key_value_heads"),
        )
    return found


def _family(keys: Keys) -> Family:
    named = keys.text("model_type")
    for family in FAMILIES:
        if family == named:
            return family
    inside, expected = keys.section("text_config"), f"one of {', '.join(FAMILIES)}"
    if inside is None:
        raise CheckpointError(
            f"unknown architecture {named!r}",
            where=keys.where("model_type"),
            expected=expected,
            todo=did_you_mean(named, FAMILIES),
        )
    decoder = inside.values.get("model_type")
    raise CheckpointError(
        f"{named!r} is a model of more than text",
        where=keys.where("model_type"),
        expected=expected,
        todo=f"save its {decoder} decoder alone, as docs/families.md shows" if decoder in FAMILIES else None,
    )


def _refuse_what_changes_numbers(keys: Keys, family: Family) -> None:
    """Options of these families that we do not compute: better refused than wrong."""
    config, gemma = keys.values, family == "gemma3_text"
    act, wanted = ("hidden_activation", "gelu_pytorch_tanh") if gemma else ("hidden_act", "silu")
    refused = {
        act: config.get(act, wanted) != wanted,
        "mlp_bias": bool(config.get("mlp_bias", False)),
        # Qwen2 has a bias on q, k, v whatever this key says; elsewhere it also puts one on o_proj.
        "attention_bias": family != "qwen2" and bool(config.get("attention_bias", False)),
        "partial_rotary_factor": family != "phi3" and config.get("partial_rotary_factor", 1.0) != 1.0,
        # Windows of Qwen and SmolLM3 are written in several ways, and no released model has them.
        "use_sliding_window": bool(config.get("use_sliding_window", False)),
        "layer_types": family in ("qwen2", "qwen3", "smollm3") and _windows_among(config.get("layer_types")),
        "attn_logit_softcapping": config.get("attn_logit_softcapping") is not None,
        "final_logit_softcapping": config.get("final_logit_softcapping") is not None,
        "use_bidirectional_attention": bool(config.get("use_bidirectional_attention", False)),
    }
    for key, present in refused.items():
        if present:
            raise CheckpointError(
                f"{key} = {config[key]!r} is not supported for {family}",
                where=keys.where(key),
                todo="use a checkpoint without it",
            )


def _windows_among(layer_types: object) -> bool:
    return isinstance(layer_types, list) and any(kind != "full_attention" for kind in layer_types)


def _layer_kinds(keys: Keys, family: Family, layers: int) -> tuple[LayerKind, ...]:
    if family == "gemma3_text":
        window, local = keys.integer("sliding_window"), _gemma_local(keys, layers)
        return tuple(LayerKind(rope=1, window=window) if one else LayerKind(rope=0) for one in local)
    if family == "smollm3":
        return tuple(LayerKind(rope=0 if turned else None) for turned in _smollm_turned(keys, layers))
    if family == "phi3" and keys.values.get("sliding_window") is not None:
        return (LayerKind(window=keys.integer("sliding_window")),) * layers
    return (LayerKind(),) * layers


def _gemma_local(keys: Keys, layers: int) -> Sequence[bool]:
    """Which layers see a window; before `layer_types` there was a pattern: every so many layers one that sees all."""
    if keys.values.get("layer_types") is None:
        every = keys.integer("sliding_window_pattern", 6)
        return [(index + 1) % every != 0 for index in range(layers)]
    kinds = keys.list("layer_types", layers, "layer")
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown:
        raise CheckpointError(f"a layer type {unknown.pop()!r}", where=keys.where("layer_types"))
    return [kind == "sliding_attention" for kind in kinds]


def _smollm_turned(keys: Keys, layers: int) -> Sequence[bool]:
    """Which layers turn queries and keys by their positions."""
    if keys.values.get("no_rope_layers") is None:
        every = keys.integer("no_rope_layer_interval", 4)
        return [(index + 1) % every != 0 for index in range(layers)]
    return [bool(turned) for turned in keys.list("no_rope_layers", layers, "layer")]


def _rotary_dim(keys: Keys, family: Family, head_dim: int) -> int:
    if family != "phi3":
        return head_dim
    section = rope_section(keys)
    holder = section if section.values.get("partial_rotary_factor") is not None else keys
    dim = int(head_dim * holder.number("partial_rotary_factor", 1.0))
    if not 0 < dim <= head_dim or dim % 2:
        raise holder.bad("partial_rotary_factor", f"a share of a head of {head_dim}, an even number of elements")
    return dim
