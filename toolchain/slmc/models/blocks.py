"""A decoder cut into blocks at its attentions, written once for every backend that computes with whole matrices.

    opening    x                       -> x, q, k, v          the first layer's queries
    between    attended, x, ropes      -> x, q, k, v          one layer's MLP and the next one's queries
    closing    attended, x             -> x                   the last layer's MLP
    head       x                       -> logits

x is [1, tokens, hidden], q [1, tokens, heads, head_dim], k and v the same with kv_heads, attended
[1, tokens, heads * head_dim]. A rope is two inputs [tokens, 1, head_dim]: cosines, and sines whose first half is
negative; where a rope turns but a part of a head, the rest has cosines 1 and sines 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from slmc.checkpoint.dtypes import Float32
from slmc.models.projections import Projection, stored_vector
from slmc.quant.reader import QuantizedReader

TOKENS = 0
"""In a shape: the number of tokens, which is known only when the program runs."""
Value = TypeVar("Value")


class Operations(Protocol[Value]):
    """What blocks are made of; each backend has its own."""

    def input(self, *shape: int) -> Value:
        """The next of the block's inputs."""

    def constant(self, values: Float32) -> Value: ...

    def linear(self, x: Value, matrix: Projection, bias: Float32 | None = None) -> Value:
        """x times the quantized matrix's transpose."""

    def norm(self, x: Value, weight: Float32, epsilon: float) -> Value:
        """x over the root of the mean of its squares plus epsilon, in the last dimension, times weight."""

    def add(self, left: Value, right: Value) -> Value: ...

    def multiply(self, left: Value, right: Value) -> Value: ...

    def silu(self, x: Value) -> Value: ...

    def gelu_tanh(self, x: Value) -> Value:
        """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))."""

    def reshape(self, x: Value, *shape: int) -> Value: ...

    def slice_last(self, x: Value, start: int, stop: int) -> Value:
        """Elements of the last dimension."""

    def concatenate_last(self, parts: Sequence[Value]) -> Value: ...


@dataclass(frozen=True)
class Blocks(Generic[Value]):
    """The blocks of one checkpoint. Place 0 is before the first layer's attention, `layers` after the last one's, and
    the one after that is the head.
    """

    reader: QuantizedReader
    swapped: bool
    """The opening's input is the embedding's rows with each pair of columns swapped, which it undoes."""

    @property
    def head(self) -> int:
        return self.reader.architecture.layers + 1

    def build(self, place: int, graph: Operations[Value]) -> list[Value]:
        """The outputs of the block at a place."""
        layers = self.reader.architecture.layers
        if place == 0:
            return self._opening(graph)
        if place == self.head:
            return self._head(graph)
        return self._between(graph, place - 1) if place < layers else self._closing(graph)

    def _opening(self, graph: Operations[Value]) -> list[Value]:
        hidden, scale = self.reader.architecture.hidden_size, self.reader.architecture.embedding_scale
        x, ropes = graph.input(1, TOKENS, hidden), self._rope_inputs(graph, 0)
        if self.swapped:
            pairs = graph.reshape(x, TOKENS, hidden // 2, 2)
            turned = graph.concatenate_last([graph.slice_last(pairs, 1, 2), graph.slice_last(pairs, 0, 1)])
            x = graph.reshape(turned, 1, TOKENS, hidden)
        if scale != 1:
            x = graph.multiply(x, graph.constant(np.array([scale], np.float32)))
        return [x, *self._queries(graph, x, 0, ropes)]

    def _between(self, graph: Operations[Value], layer: int) -> list[Value]:
        attended, x = self._after_attention(graph)
        ropes = self._rope_inputs(graph, layer + 1)
        out = self._finish_layer(graph, attended, x, layer)
        return [out, *self._queries(graph, out, layer + 1, ropes)]

    def _closing(self, graph: Operations[Value]) -> list[Value]:
        attended, x = self._after_attention(graph)
        return [self._finish_layer(graph, attended, x, self.reader.architecture.layers - 1)]

    def _head(self, graph: Operations[Value]) -> list[Value]:
        a = self.reader.architecture
        x = self._norm(graph, graph.input(1, TOKENS, a.hidden_size), "model.norm.weight")
        return [graph.linear(x, Projection.head(a))]

    def _rope_inputs(self, graph: Operations[Value], layer: int) -> tuple[Value, Value] | None:
        a = self.reader.architecture
        if a.layer_kinds[layer].rope is None:
            return None
        return graph.input(TOKENS, 1, a.head_dim), graph.input(TOKENS, 1, a.head_dim)

    def _after_attention(self, graph: Operations[Value]) -> tuple[Value, Value]:
        a = self.reader.architecture
        return graph.input(1, TOKENS, a.heads * a.head_dim), graph.input(1, TOKENS, a.hidden_size)

    def _queries(
        self, graph: Operations[Value], x: Value, layer: int, ropes: tuple[Value, Value] | None
    ) -> list[Value]:
        a = self.reader.architecture
        normed = self._norm(graph, x, f"model.layers.{layer}.input_layernorm.weight")
        found = []
        parts: tuple[tuple[Literal["q", "k", "v"], int], ...] = (("q", a.heads), ("k", a.kv_heads), ("v", a.kv_heads))
        for part, heads in parts:
            matrix = Projection.attention(a, layer, part)
            rows = graph.linear(normed, matrix, self._bias(matrix))
            value = graph.reshape(rows, 1, TOKENS, heads, a.head_dim)
            if part != "v":
                if a.qk_norm:
                    value = self._norm(graph, value, f"model.layers.{layer}.self_attn.{part}_norm.weight")
                value = value if ropes is None else self._turn(graph, value, ropes)
            found.append(value)
        return found

    def _turn(self, graph: Operations[Value], heads: Value, ropes: tuple[Value, Value]) -> Value:
        a, (cosines, sines) = self.reader.architecture, ropes
        half = a.rotary_dim // 2
        parts = [graph.slice_last(heads, half, 2 * half), graph.slice_last(heads, 0, half)]
        if a.rotary_dim < a.head_dim:
            parts.append(graph.slice_last(heads, a.rotary_dim, a.head_dim))
        swapped = graph.concatenate_last(parts)
        return graph.add(graph.multiply(heads, cosines), graph.multiply(swapped, sines))

    def _finish_layer(self, graph: Operations[Value], attended: Value, x: Value, layer: int) -> Value:
        a, prefix = self.reader.architecture, f"model.layers.{layer}."
        branch = graph.linear(attended, Projection.output(a, layer))
        norms = ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
        if a.post_norms:
            branch = self._norm(graph, branch, f"{prefix}{norms[0]}.weight")
        x = graph.add(x, branch)
        normed = self._norm(graph, x, f"{prefix}{norms[1] if a.post_norms else norms[0]}.weight")
        gate, up = (graph.linear(normed, Projection.mlp(a, layer, part)) for part in ("gate", "up"))
        inner = graph.multiply(graph.silu(gate) if a.gate == "silu" else graph.gelu_tanh(gate), up)
        branch = graph.linear(inner, Projection.mlp(a, layer, "down"))
        if a.post_norms:
            branch = self._norm(graph, branch, f"{prefix}{norms[2]}.weight")
        return graph.add(x, branch)

    def _norm(self, graph: Operations[Value], x: Value, name: str) -> Value:
        return graph.norm(x, self._vector(name), self.reader.architecture.rms_eps)

    def _bias(self, matrix: Projection) -> Float32 | None:
        return None if matrix.bias is None else self._vector(matrix.bias)

    def _vector(self, name: str) -> Float32:
        specs = {spec.name: spec for spec in self.reader.architecture.tensors()}
        return stored_vector(self.reader, specs[name])
