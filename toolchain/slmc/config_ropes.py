"""Ropes in a `config.json`: its `rope_parameters` (transformers 5), or the older `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math

from slmc.architecture import FactorScaling, Family, Llama3Scaling, Rope
from slmc.config_keys import Keys
from slmc.errors import CheckpointError


def read_ropes(keys: Keys, family: Family, rotary_dim: int, max_context: int) -> tuple[Rope, ...]:
    """One for all layers; of Gemma 3 that of layers that see all, and that of layers that see a window.

    Raises CheckpointError for a rope that we would compute otherwise than transformers does.
    """
    if family == "gemma3_text":
        return _gemma_ropes(keys)
    section = rope_section(keys)
    theta = _theta(section, section.values.get("rope_theta", keys.values.get("rope_theta")))
    if family != "phi3":
        return (_rope(section, theta),)
    kind = _kind(section)
    if kind == "longrope":
        return (Rope(theta, _longrope(keys, section, rotary_dim, max_context)),)
    if kind != "default":
        raise _unsupported(section, kind, "'default' or 'longrope', for phi3")
    return (Rope(theta),)


def rope_section(keys: Keys) -> Keys:
    """The object that tells of ropes, in either spelling; empty where neither is there."""
    new, old = keys.section("rope_parameters"), keys.section("rope_scaling")
    if new is not None and old is not None:
        raise CheckpointError(
            "both rope_parameters and rope_scaling",
            where=keys.where("rope_scaling"),
            expected="one of them",
            todo="transformers takes rope_scaling; move what you want of it into rope_parameters",
        )
    return new or old or Keys({}, keys.path, "rope_parameters.")


def _gemma_ropes(keys: Keys) -> tuple[Rope, Rope]:
    section = rope_section(keys)
    if keys.values.get("rope_parameters") is None:
        full, local = section, Keys({}, keys.path, "rope_parameters.")
        thetas = keys.values.get("rope_theta"), keys.values.get("rope_local_base_freq")
    else:
        full, local = (_part(section, kind) for kind in ("full_attention", "sliding_attention"))
        thetas = full.values.get("rope_theta"), local.values.get("rope_theta")
    return _rope(full, _theta(full, thetas[0])), _rope(local, _theta(local, thetas[1]))


def _part(section: Keys, kind: str) -> Keys:
    found = section.section(kind)
    if found is None:
        raise section.bad(kind, "the rope of these layers")
    return found


def _theta(section: Keys, theta: object) -> float:
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0:
        raise CheckpointError(
            "no rope_theta",
            where=section.path,
            expected=f"{section.prefix}rope_theta, or a top-level rope_theta (gemma3_text: and rope_local_base_freq)",
        )
    return float(theta)


def _kind(section: Keys) -> object:
    return section.values.get("rope_type", section.values.get("type", "default"))


def _rope(section: Keys, theta: float) -> Rope:
    kind = _kind(section)
    if section.values.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            "a rope that turns part of a head is supported for phi3 alone",
            where=section.where("partial_rotary_factor"),
        )
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, FactorScaling((section.number("factor"),)))
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=section.number("factor"),
            low_frequency_factor=section.number("low_freq_factor"),
            high_frequency_factor=section.number("high_freq_factor"),
            original_context=section.integer("original_max_position_embeddings"),
        )
        return Rope(theta, scaling)
    raise _unsupported(section, kind, "'default', 'linear' or 'llama3'")


def _longrope(keys: Keys, section: Keys, rotary_dim: int, max_context: int) -> FactorScaling:
    """As transformers computes it (`_compute_longrope_parameters`) for what fits the original context.

    Phi-3 has that context beside its rope, and transformers takes it from there.
    """
    original = keys.integer("original_max_position_embeddings")
    longer = section.number("factor", max_context / original)
    magnitude = 1.0 if longer <= 1 else math.sqrt(1 + math.log(longer) / math.log(original))
    return FactorScaling(
        section.numbers("short_factor", rotary_dim // 2, "pair of a head's elements that is turned"),
        magnitude=section.number("attention_factor", magnitude),
        most_context=original,
    )


def _unsupported(section: Keys, kind: object, expected: str) -> CheckpointError:
    return CheckpointError(f"rope type {kind!r} is not supported", where=section.where("rope_type"), expected=expected)
