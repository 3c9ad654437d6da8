"""A decoder cut into blocks at its attentions: what lies between two of them is one XNNPACK graph.

    opening    rows, ropes             -> x, q, k, v          the embedding's rows in, the first layer's queries out
    between    attended, x, ropes      -> x, q, k, v          one layer's MLP and the next one's queries
    closing    attended, x             -> x                   the last layer's MLP
    head       x                       -> logits

rows are the embedding's as `embedding_4bit` reads codes that `pack_codes` wrote: each pair of columns swapped, which
the opening undoes. So a tied embedding is stored once, for that operator and for the head.

x is [1, tokens, hidden], q [1, tokens, heads, head_dim], k and v the same with kv_heads, attended
[1, tokens, heads * head_dim]. A rope is two inputs [tokens, 1, head_dim]: cosines, and sines whose first half is
negative; where a rope turns but a part of a head, the rest has cosines 1 and sines 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slmc.backends.executorch.xnnpack.graph import TOKENS, Constants, Graph, Value, Weight, pack_weight
from slmc.checkpoint.dtypes import Float32
from slmc.models.projections import Projection, stored_vector
from slmc.quant.reader import QuantizedReader


@dataclass(frozen=True)
class Block:
    """A graph as the delegate takes it, with the keys of its constants."""

    payload: bytes
    keys: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    """Shapes, with TOKENS where the number of tokens stands."""
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Blocks:
    """Builds the graphs of one checkpoint."""

    reader: QuantizedReader
    constants: Constants
    tokens: int
    """The most in one call."""

    def at(self, place: int) -> Block:
        """Before the first layer's attention, 0, to after the last one's."""
        if place == 0:
            return self._opening()
        return self._between(place - 1) if place < self.reader.architecture.layers else self._closing()

    def _opening(self) -> Block:
        graph = self._graph()
        rows, ropes = graph.input(1, TOKENS, self._hidden), self._rope_inputs(graph, 0)
        pairs = graph.reshape(rows, TOKENS, self._hidden // 2, 2)
        swapped = graph.concatenate_last([graph.slice_last(pairs, 1, 2), graph.slice_last(pairs, 0, 1)])
        x = graph.reshape(swapped, 1, TOKENS, self._hidden)
        scale = self.reader.architecture.embedding_scale
        if scale != 1:
            x = graph.multiply(x, graph.constant(np.array([scale], np.float32)))
        return _block(graph, [x, *self._queries(graph, x, 0, ropes)])

    def _between(self, layer: int) -> Block:
        graph = self._graph()
        attended, x = self._after_attention(graph)
        ropes = self._rope_inputs(graph, layer + 1)
        out = self._finish_layer(graph, attended, x, layer)
        return _block(graph, [out, *self._queries(graph, out, layer + 1, ropes)])

    def _closing(self) -> Block:
        graph = self._graph()
        attended, x = self._after_attention(graph)
        return _block(graph, [self._finish_layer(graph, attended, x, self.reader.architecture.layers - 1)])

    def head(self) -> Block:
        graph = self._graph()
        x = self._norm(graph, graph.input(1, TOKENS, self._hidden), "model.norm.weight")
        return _block(graph, [graph.linear(x, self.weight(Projection.head(self.reader.architecture)))])

    def weight(self, matrix: Projection) -> Weight:
        codes, scales = matrix.read(self.reader)
        return pack_weight(codes, scales, self.constants)

    @property
    def _hidden(self) -> int:
        return self.reader.architecture.hidden_size

    def _graph(self) -> Graph:
        return Graph(self.tokens, self.constants)

    def _rope_inputs(self, graph: Graph, layer: int) -> tuple[Value, Value] | None:
        a = self.reader.architecture
        if a.layer_kinds[layer].rope is None:
            return None
        return graph.input(TOKENS, 1, a.head_dim), graph.input(TOKENS, 1, a.head_dim)

    def _after_attention(self, graph: Graph) -> tuple[Value, Value]:
        a = self.reader.architecture
        return graph.input(1, TOKENS, a.heads * a.head_dim), graph.input(1, TOKENS, a.hidden_size)

    def _queries(self, graph: Graph, x: Value, layer: int, ropes: tuple[Value, Value] | None) -> list[Value]:
        a = self.reader.architecture
        normed = self._norm(graph, x, f"model.layers.{layer}.input_layernorm.weight")
        found = []
        parts: tuple[tuple[Literal["q", "k", "v"], int], ...] = (("q", a.heads), ("k", a.kv_heads), ("v", a.kv_heads))
        for part, heads in parts:
            matrix = Projection.attention(a, layer, part)
            rows = graph.linear(normed, self.weight(matrix), self._bias(matrix))
            value = graph.reshape(rows, 1, TOKENS, heads, a.head_dim)
            if part != "v":
                if a.qk_norm:
                    value = self._norm(graph, value, f"model.layers.{layer}.self_attn.{part}_norm.weight")
                value = value if ropes is None else self._turn(graph, value, ropes)
            found.append(value)
        return found

    def _turn(self, graph: Graph, heads: Value, ropes: tuple[Value, Value]) -> Value:
        a, (cosines, sines) = self.reader.architecture, ropes
        half = a.rotary_dim // 2
        parts = [graph.slice_last(heads, half, 2 * half), graph.slice_last(heads, 0, half)]
        if a.rotary_dim < a.head_dim:
            parts.append(graph.slice_last(heads, a.rotary_dim, a.head_dim))
        swapped = graph.concatenate_last(parts)
        return graph.add(graph.multiply(heads, cosines), graph.multiply(swapped, sines))

    def _finish_layer(self, graph: Graph, attended: Value, x: Value, layer: int) -> Value:
        a, prefix = self.reader.architecture, f"model.layers.{layer}."
        branch = graph.linear(attended, self.weight(Projection.output(a, layer)))
        norms = ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
        if a.post_norms:
            branch = self._norm(graph, branch, f"{prefix}{norms[0]}.weight")
        x = graph.add(x, branch)
        normed = self._norm(graph, x, f"{prefix}{norms[1] if a.post_norms else norms[0]}.weight")
        gate, up = (graph.linear(normed, self.weight(Projection.mlp(a, layer, part))) for part in ("gate", "up"))
        inner = graph.multiply(_GATES[a.gate](graph, gate), up)
        branch = graph.linear(inner, self.weight(Projection.mlp(a, layer, "down")))
        if a.post_norms:
            branch = self._norm(graph, branch, f"{prefix}{norms[2]}.weight")
        return graph.add(x, branch)

    def _norm(self, graph: Graph, x: Value, name: str) -> Value:
        a = self.reader.architecture
        epsilon = graph.constant(np.array([a.rms_eps], np.float32))
        inverse = graph.reciprocal_square_root(graph.add(graph.mean(graph.multiply(x, x)), epsilon))
        return graph.multiply(graph.multiply(x, inverse), graph.constant(self._vector(name)))

    def _bias(self, matrix: Projection) -> Float32 | None:
        return None if matrix.bias is None else self._vector(matrix.bias)

    def _vector(self, name: str) -> Float32:
        specs = {spec.name: spec for spec in self.reader.architecture.tensors()}
        return stored_vector(self.reader, specs[name])


def _block(graph: Graph, outputs: list[Value]) -> Block:
    payload = graph.payload(outputs)
    return Block(payload, tuple(dict.fromkeys(graph.keys)), tuple(graph.inputs), tuple(out.shape for out in outputs))


def _silu(graph: Graph, x: Value) -> Value:
    return graph.multiply(x, graph.sigmoid(x))


def _gelu_tanh(graph: Graph, x: Value) -> Value:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))."""

    def number(value: float) -> Value:
        return graph.constant(np.array([value], np.float32))

    root = math.sqrt(2 / math.pi)
    square = graph.multiply(x, x)
    factor = graph.add(graph.multiply(square, number(0.044715 * root)), number(root))
    turned = graph.add(graph.tanh(graph.multiply(x, factor)), number(1.0))
    return graph.multiply(graph.multiply(x, number(0.5)), turned)


_GATES = {"silu": _silu, "gelu_tanh": _gelu_tanh}
