"""A decoder as backends compute it: fused projections, and the rope tables.

Llama, Qwen2 and Qwen3 are one decoder with optional parts. Per layer, each a parameter under
`layers.<i>.`:

    attention_norm   [hidden]
    qkv              [(heads + 2 * kv_heads) * head_dim, hidden], its rows q, k, v; qkv_bias with Qwen2
    q_norm, k_norm   [head_dim], with Qwen3
    o                [hidden, heads * head_dim]
    mlp_norm         [hidden]
    gate_up          [2 * intermediate, hidden], its rows gate, up
    down             [hidden, intermediate]

and around them `embedding` [vocab, hidden], `norm` [hidden] and, where it is not tied, `head` [vocab, hidden].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slmc.architecture import Architecture, Llama3Scaling, TensorSpec

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

    def parameter(name: str, *sources: str) -> Parameter:
        return Parameter(name, tuple(tensors[source] for source in sources))

    yield parameter("embedding", "model.embed_tokens.weight")
    for layer in range(architecture.layers):
        name, source = f"layers.{layer}.", f"model.layers.{layer}."
        attention, mlp = source + "self_attn.", source + "mlp."
        yield parameter(name + "attention_norm", source + "input_layernorm.weight")
        yield parameter(name + "qkv", *(f"{attention}{part}_proj.weight" for part in "qkv"))
        if architecture.qkv_bias:
            yield parameter(name + "qkv_bias", *(f"{attention}{part}_proj.bias" for part in "qkv"))
        if architecture.qk_norm:
            yield parameter(name + "q_norm", attention + "q_norm.weight")
            yield parameter(name + "k_norm", attention + "k_norm.weight")
        yield parameter(name + "o", attention + "o_proj.weight")
        yield parameter(name + "mlp_norm", source + "post_attention_layernorm.weight")
        yield parameter(name + "gate_up", mlp + "gate_proj.weight", mlp + "up_proj.weight")
        yield parameter(name + "down", mlp + "down_proj.weight")
    yield parameter("norm", "model.norm.weight")
    if not architecture.tied:
        yield parameter("head", "lm_head.weight")


def matrices(architecture: Architecture) -> list[tuple[str, ...]]:
    """The tensors of each matrix. They must share their bits: a backend computes them as one."""
    parameters = (parameter for parameter in decoder_parameters(architecture) if parameter.is_matrix)
    return [tuple(source.name for source in parameter.sources) for parameter in parameters]


def rope_tables(architecture: Architecture, positions: int) -> tuple[Float32, Float32]:
    """Cosines and sines of the rotation angles, float32 [positions, head_dim / 2] each.

    In float32 throughout, as transformers computes them: the model was trained with these roundings.
    """
    half = np.arange(0, architecture.head_dim, 2, dtype=np.float32) / np.float32(architecture.head_dim)
    frequencies = (np.float32(1) / np.float32(architecture.rope.theta) ** half).astype(np.float32)
    if architecture.rope.scaling is not None:
        frequencies = _llama3_scaled(frequencies, architecture.rope.scaling)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def _llama3_scaled(frequencies: Float32, scaling: Llama3Scaling) -> Float32:
    """Long waves slowed by the factor, short ones left, those between blended (Llama 3.1's rope scaling)."""
    turns = np.float32(scaling.original_context) * frequencies / np.float32(2 * np.pi)
    """How often each wave turns within the context that the model was first trained on."""
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)
    scaled: Float32 = (1 - kept) * frequencies / np.float32(scaling.factor) + kept * frequencies
    return scaled.astype(np.float32)
