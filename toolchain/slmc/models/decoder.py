"""A decoder as backends compute it: fused projections, and the rope tables.

The families that we read are one decoder with optional parts. Per layer, each a parameter under
`layers.<i>.`:

    attention_norm        [hidden]
    qkv                   [(heads + 2 * kv_heads) * head_dim, hidden], its rows q, k, v; qkv_bias with Qwen2
    q_norm, k_norm        [head_dim], with Qwen3 and Gemma 3
    o                     [hidden, heads * head_dim]
    attention_post_norm   [hidden], with Gemma 3
    mlp_norm              [hidden]
    gate_up               [2 * intermediate, hidden], its rows gate, up
    down                  [hidden, intermediate]
    mlp_post_norm         [hidden], with Gemma 3

and around them `embedding` [vocab, hidden], `norm` [hidden] and, where it is not tied, `head` [vocab, hidden].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slmc.architecture import Architecture, FactorScaling, Llama3Scaling, Rope, TensorSpec

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parameter:
    """Tensors of the checkpoint that lie one after another along their rows."""

    name: str
    sources: tuple[TensorSpec, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(source.shape[0] for source in self.sources), *self.sources[0].shape[1:])

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) == 2


def decoder_parameters(architecture: Architecture) -> Iterator[Parameter]:
    """Every parameter, in the order in which the decoder uses them. Each checkpoint tensor is in exactly one."""
    tensors = {spec.name: spec for spec in architecture.tensors()}
    fused, post_norms = architecture.fused, architecture.post_norms

    def parameter(name: str, *sources: str) -> Parameter:
        return Parameter(name, tuple(tensors[source] for source in sources))

    yield parameter("embedding", "model.embed_tokens.weight")
    for layer in range(architecture.layers):
        name, source = f"layers.{layer}.", f"model.layers.{layer}."
        attention, mlp = source + "self_attn.", source + "mlp."
        yield parameter(name + "attention_norm", source + "input_layernorm.weight")
        parts = ["qkv"] if fused else list("qkv")
        yield parameter(name + "qkv", *(f"{attention}{part}_proj.weight" for part in parts))
        if architecture.qkv_bias:
            yield parameter(name + "qkv_bias", *(f"{attention}{part}_proj.bias" for part in parts))
        if architecture.qk_norm:
            yield parameter(name + "q_norm", attention + "q_norm.weight")
            yield parameter(name + "k_norm", attention + "k_norm.weight")
        yield parameter(name + "o", attention + "o_proj.weight")
        after_attention = "attention_post_norm" if post_norms else "mlp_norm"
        yield parameter(name + after_attention, source + "post_attention_layernorm.weight")
        if post_norms:
            yield parameter(name + "mlp_norm", source + "pre_feedforward_layernorm.weight")
        parts = ["gate_up"] if fused else ["gate", "up"]
        yield parameter(name + "gate_up", *(f"{mlp}{part}_proj.weight" for part in parts))
        yield parameter(name + "down", mlp + "down_proj.weight")
        if post_norms:
            yield parameter(name + "mlp_post_norm", source + "post_feedforward_layernorm.weight")
    yield parameter("norm", "model.norm.weight")
    if not architecture.tied:
        yield parameter("head", "lm_head.weight")


def matrices(architecture: Architecture) -> list[tuple[str, ...]]:
    """The tensors of each matrix. They must share their bits: a backend computes them as one."""
    parameters = (parameter for parameter in decoder_parameters(architecture) if parameter.is_matrix)
    return [tuple(source.name for source in parameter.sources) for parameter in parameters]


def rope_tables(architecture: Architecture, positions: int) -> list[tuple[Float32, Float32]]:
    """Of each of the architecture's ropes: cosines and sines of the angles, float32 [positions, rotary_dim / 2] each.

    Frequencies and angles are rounded to float32, as transformers has them: the model was trained with these
    roundings. Powers, cosines and sines are found in float64: numpy's own in float32 are off by more than torch's,
    and by other amounts on other CPUs.
    """
    return [_table(rope, architecture.rotary_dim, positions) for rope in architecture.ropes]


def rope_inputs(a: Architecture, context: int) -> dict[str, Float32]:
    """Of each rope by name, as `blocks` takes them: float32 [context, head_dim]."""
    found = {}
    for i, (cosines, sines) in enumerate(rope_tables(a, context)):
        rest = np.zeros((context, a.head_dim - a.rotary_dim), np.float32)
        found[f"cosines_{i}"] = np.concatenate([cosines, cosines, rest + 1], 1)
        found[f"sines_{i}"] = np.concatenate([-sines, sines, rest], 1)
    return found


def _table(rope: Rope, dim: int, positions: int) -> tuple[Float32, Float32]:
    half = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = (rope.theta ** half.astype(np.float64)).astype(np.float32)
    magnitude = np.float32(1)
    if isinstance(rope.scaling, FactorScaling) and len(rope.scaling.factors) > 1:
        # longrope multiplies before it takes the reciprocal; "linear" divides after.
        powers = np.asarray(rope.scaling.factors, np.float32) * powers
    frequencies = (np.float32(1) / powers).astype(np.float32)
    if isinstance(rope.scaling, FactorScaling):
        magnitude = np.float32(rope.scaling.magnitude)
        if len(rope.scaling.factors) == 1:
            frequencies = frequencies / np.float32(rope.scaling.factors[0])
    elif rope.scaling is not None:
        frequencies = _llama3_scaled(frequencies, rope.scaling)
    angles = (np.arange(positions, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32) * magnitude, np.sin(angles).astype(np.float32) * magnitude


def _llama3_scaled(frequencies: Float32, scaling: Llama3Scaling) -> Float32:
    """Long waves slowed by the factor, short ones left, those between blended (Llama 3.1's rope scaling)."""
    turns = np.float32(scaling.original_context) * frequencies / np.float32(2 * np.pi)
    """How often each wave turns within the context that the model was first trained on."""
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)
    scaled: Float32 = (1 - kept) * frequencies / np.float32(scaling.factor) + kept * frequencies
    return scaled.astype(np.float32)
