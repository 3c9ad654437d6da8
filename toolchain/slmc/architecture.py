"""What a decoder is: dimensions, rope, what differs between layers, and its tensors' names.

Read from a Hugging Face `config.json` by `slmc.config_json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Family = Literal["llama", "qwen2", "qwen3", "gemma3_text", "phi3", "smollm3"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "qwen3", "gemma3_text", "phi3", "smollm3")
CALIBRATED: tuple[Family, ...] = ("llama", "qwen2", "qwen3")
"""Families that the calibrated methods of quantization know the layers of, which must all be alike."""
Role = Literal["embedding", "head", "linear", "bias", "norm"]
MATRICES: frozenset[Role] = frozenset({"embedding", "head", "linear"})
"""What is quantized, where nothing keeps it."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Llama3Scaling:
    """Frequency scaling of Llama 3.1 and later ("rope_type": "llama3")."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class FactorScaling:
    """Each frequency divided by a factor of its own, cosines and sines times another number.

    "linear" has the same factor for all; of "longrope" these are the short factors, which hold up to the context
    that the model was first trained on.
    """

    factors: tuple[float, ...]
    """One for all, or one for each frequency."""
    magnitude: float = 1.0
    most_context: int | None = None
    """Beyond which other factors hold."""


@dataclass(frozen=True)
class Rope:
    theta: float
    scaling: Llama3Scaling | FactorScaling | None = None


@dataclass(frozen=True)
class LayerKind:
    """What may differ between the layers of one decoder."""

    rope: int | None = 0
    """Which of the architecture's ropes; None where positions turn nothing (NoPE)."""
    window: int | None = None
    """Positions that a token attends to, itself among them; None for all before it."""


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
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    """Elements of a head that rope turns: the first ones; the rest stay."""
    rms_eps: float
    ropes: tuple[Rope, ...]
    layer_kinds: tuple[LayerKind, ...]
    """Of every layer."""
    tied: bool
    """lm_head is the embedding's own weight."""
    qkv_bias: bool
    """q, k and v projections carry a bias (Qwen2)."""
    qk_norm: bool
    """RMSNorm over each head's query and key before rope (Qwen3, Gemma 3)."""
    max_context: int
    dtype: str
    """The checkpoint's own precision: "bfloat16", "float16" or "float32"."""
    fused: bool = False
    """q, k, v are one tensor, gate and up another (Phi-3)."""
    post_norms: bool = False
    """RMSNorm over what attention and MLP give, before it is added to the residual stream (Gemma 3)."""
    norm_offset: float = 0.0
    """Norms scale by this much more than their weight (Gemma 3: 1)."""
    gate: Literal["silu", "gelu_tanh"] = "silu"
    embedding_scale: float = 1.0
    """What the embedding's rows are multiplied by as a model's input."""
    attention_scale: float = 1.0
    """What a query's products with keys are multiplied by."""

    @property
    def layers(self) -> int:
        return len(self.layer_kinds)

    @property
    def most_context(self) -> int:
        """Tokens that the ropes hold for as they were read."""
        limits = [rope.scaling.most_context for rope in self.ropes if isinstance(rope.scaling, FactorScaling)]
        return min([self.max_context, *(limit for limit in limits if limit is not None)])

    @property
    def weights(self) -> int:
        """How many there are in all tensors."""
        return sum(tensor.size for tensor in self.tensors())

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor of the checkpoint under its Hugging Face name; a tied head has none."""
        hidden = self.hidden_size
        yield TensorSpec(EMBEDDING, (self.vocab_size, hidden), "embedding")
        for layer in range(self.layers):
            yield from self._attention_tensors(layer)
            yield from self._mlp_tensors(layer)
        yield TensorSpec("model.norm.weight", (hidden,), "norm")
        if not self.tied:
            yield TensorSpec(HEAD, (self.vocab_size, hidden), "head")

    def _attention_tensors(self, layer: int) -> Iterator[TensorSpec]:
        prefix, hidden = f"model.layers.{layer}.", self.hidden_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield TensorSpec(prefix + "input_layernorm.weight", (hidden,), "norm", layer)
        parts = (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))
        for name, rows in (("qkv_proj", queries + 2 * keys),) if self.fused else parts:
            yield TensorSpec(f"{prefix}self_attn.{name}.weight", (rows, hidden), "linear", layer)
            if self.qkv_bias:
                yield TensorSpec(f"{prefix}self_attn.{name}.bias", (rows,), "bias", layer)
        if self.qk_norm:
            for name in ("q_norm", "k_norm"):
                yield TensorSpec(f"{prefix}self_attn.{name}.weight", (self.head_dim,), "norm", layer)
        yield TensorSpec(prefix + "self_attn.o_proj.weight", (hidden, queries), "linear", layer)
        yield TensorSpec(prefix + "post_attention_layernorm.weight", (hidden,), "norm", layer)

    def _mlp_tensors(self, layer: int) -> Iterator[TensorSpec]:
        prefix, hidden, inner = f"model.layers.{layer}.", self.hidden_size, self.intermediate_size
        if self.post_norms:
            yield TensorSpec(prefix + "pre_feedforward_layernorm.weight", (hidden,), "norm", layer)
        parts = (("gate_proj", inner), ("up_proj", inner))
        for name, rows in (("gate_up_proj", 2 * inner),) if self.fused else parts:
            yield TensorSpec(f"{prefix}mlp.{name}.weight", (rows, hidden), "linear", layer)
        yield TensorSpec(prefix + "mlp.down_proj.weight", (hidden, inner), "linear", layer)
        if self.post_norms:
            yield TensorSpec(prefix + "post_feedforward_layernorm.weight", (hidden,), "norm", layer)
