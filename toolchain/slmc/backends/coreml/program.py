"""A decoder as functions of one ML program that share weights and state.

    prefill      tokens int32 [1, chunk], position int32 [1], last int32 [1]  ->  logits fp16 [1, 1, vocab]
    decode       tokens int32 [1, 1], position int32 [1]                      ->  logits fp16 [1, 1, vocab]
    full_logits  tokens int32 [1, chunk], position int32 [1]                  ->  logits fp16 [1, chunk, vocab]

with the states `keys` and `values`, fp16 [layers, kv_heads, context, head_dim]. A chunk that is not full is padded with
any tokens behind; `last` is the index of its last real one. What padding writes into the state lies behind every
real position, and is written again before it is seen. Where position + chunk is beyond the context, logits are no
numbers: the last tokens of a context go through `decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - as everywhere
from coremltools.converters.mil.mil import Function, Var, types

from slmc.architecture import EMBEDDING, Architecture
from slmc.backends.coreml.layouts import Layout
from slmc.backends.coreml.operations import Matrices
from slmc.backends.coreml.weights import Weights
from slmc.models.blocks import Blocks
from slmc.models.decoder import rope_inputs
from slmc.models.projections import Projection

OPSET = ct.target.iOS18
_HIDDEN = np.float16(-3e4)
"""Added to a score that nobody sees: fp16 holds it, and its exponential is 0."""


@dataclass(frozen=True)
class FunctionBuilder:
    """Makes the functions of one checkpoint."""

    weights: Weights
    context: int
    layout: type[Layout] = Layout

    def prefill(self, chunk: int) -> Function:
        def body(tokens: Var, position: Var, last: Var, keys: Var, values: Var) -> Var:
            return self._logits(tokens, position, (keys, values), last)

        specs = [*self._inputs(chunk), mb.TensorSpec((1,), types.int32), *self._states()]
        return mb.function(input_specs=specs, opset_version=OPSET)(body)

    def decode(self) -> Function:
        return self.full_logits(1)

    def full_logits(self, chunk: int) -> Function:
        def body(tokens: Var, position: Var, keys: Var, values: Var) -> Var:
            return self._logits(tokens, position, (keys, values), None)

        specs = [*self._inputs(chunk), *self._states()]
        return mb.function(input_specs=specs, opset_version=OPSET)(body)

    @property
    def _a(self) -> Architecture:
        return self.weights.reader.architecture

    def _inputs(self, tokens: int) -> list[object]:
        return [mb.TensorSpec((1, tokens), types.int32), mb.TensorSpec((1,), types.int32)]

    def _states(self) -> list[object]:
        shape = (self._a.layers, self._a.kv_heads, self.context, self._a.head_dim)
        return [mb.StateTensorSpec(shape, types.fp16) for _ in range(2)]

    def _logits(self, tokens: Var, position: Var, states: tuple[Var, Var], last: Var | None) -> Var:
        a, count = self._a, tokens.shape[1]
        places, blocks = _Places(position, count, self.context), Blocks[Var](self.weights.reader, swapped=False)
        layout, matrices = self.layout(a, count), Matrices(self.weights)
        attention = _Attention(a, places, states, layout)

        def run(place: int, *inputs: Var) -> list[Var]:
            return blocks.build(place, layout.operations(matrices, inputs))

        embedding = matrices(Projection(EMBEDDING, 0, a.vocab_size))
        rows = mb.gather(x=embedding, indices=tokens, axis=0, batch_dims=0, validate_indices=False)
        ropes = self._ropes(places, layout)
        x, q, k, v = run(0, layout.opened(rows), *ropes[0])
        for layer in range(a.layers):
            attended = attention(q, k, v, layer)
            if layer + 1 < a.layers:
                x, q, k, v = run(layer + 1, attended, x, *ropes[layer + 1])
            else:
                (x,) = run(layer + 1, attended, x)
        if last is not None:
            x = layout.take(x, last)
        (logits,) = run(blocks.head, places.checked(x))
        return mb.identity(x=layout.logits(logits), name="logits")

    def _ropes(self, places: _Places, layout: Layout) -> list[list[Var]]:
        """Of each layer: cosines and sines as the layout has them, or none."""
        tables = rope_inputs(self._a, self.context)
        turned = [
            [layout.rope(places.rows(self.weights.constant(tables[f"{name}_{i}"]))) for name in ("cosines", "sines")]
            for i in range(len(self._a.ropes))
        ]
        return [[] if kind.rope is None else turned[kind.rope] for kind in self._a.layer_kinds]


class _Places:
    """The positions of a call's tokens."""

    def __init__(self, position: Var, count: int, context: int) -> None:
        self.count, self.context = count, context
        self._fits = mb.less_equal(x=position, y=np.int32(context - count))
        # A position that does not fit must not write outside the state.
        self.start = mb.minimum(x=position, y=np.int32(context - count))
        self.end = mb.add(x=self.start, y=np.int32(count))
        self._queries = mb.add(x=self.start, y=np.arange(count, dtype=np.int32))

    def rows(self, table: Var) -> Var:
        """[tokens, any] of a table [context, any]."""
        return mb.gather(x=table, indices=self._queries, axis=0, batch_dims=0, validate_indices=False)

    def mask(self, window: int | None) -> Var:
        """fp16 [1, 1, tokens, context]: 0 for a position that a query sees."""
        keys = np.arange(self.context, dtype=np.int32)[None]
        queries = mb.expand_dims(x=self._queries, axes=[1])
        seen = mb.less_equal(x=keys, y=queries)
        if window is not None:
            oldest = mb.sub(x=queries, y=np.int32(window))
            seen = mb.logical_and(x=seen, y=mb.greater(x=keys, y=oldest))
        hidden = mb.sub(x=np.float16(1), y=mb.cast(x=seen, dtype="fp16"))
        return mb.expand_dims(x=mb.mul(x=hidden, y=_HIDDEN), axes=[0, 1])

    def checked(self, x: Var) -> Var:
        """x, or no numbers where the tokens do not fit the context."""
        return mb.select(cond=self._fits, a=x, b=np.full((1,) * len(x.shape), np.nan, np.float16))


class _Attention:
    """Of each layer, over the states. Queries that share a head's keys are rows of one product: keys are not copied."""

    def __init__(self, a: Architecture, places: _Places, states: tuple[Var, Var], layout: Layout) -> None:
        self._a, self._places, self._states, self._layout = a, places, states, layout
        self._masks: dict[int | None, Var] = {}

    def __call__(self, q: Var, k: Var, v: Var, layer: int) -> Var:
        """Heads as the blocks give them, and what comes of them as the blocks take it."""
        a, count = self._a, self._places.count
        keys, values = (self._put(state, one, layer) for state, one in zip(self._states, (k, v), strict=True))
        usual, scale = 1 / math.sqrt(a.head_dim), float(a.attention_scale)
        turned = self._layout.heads_first(q)
        if not math.isclose(scale, usual):
            turned = mb.mul(x=turned, y=np.float16(scale / usual))
        shared = a.heads // a.kv_heads
        folded = mb.reshape(x=turned, shape=[1, a.kv_heads, shared * count, a.head_dim])
        attended = self._layout.attend(folded, keys, values, self._mask(layer))
        return self._layout.attended(mb.reshape(x=attended, shape=[1, a.heads, count, a.head_dim]))

    def _put(self, state: Var, rows: Var, layer: int) -> Var:
        """Write a layer's new rows; all of its rows, [1, kv_heads, context, head_dim]."""
        a, places = self._a, self._places
        begin = mb.concat(values=[_ints(layer, 0), places.start, _ints(0)], axis=0)
        end = mb.concat(values=[_ints(layer + 1, a.kv_heads), places.end, _ints(a.head_dim)], axis=0)
        update = self._layout.heads_first(rows)
        written = mb.slice_update(x=mb.read_state(input=state), update=update, begin=begin, end=end)
        full = mb.coreml_update_state(state=state, value=written)
        stop = [layer + 1, a.kv_heads, places.context, a.head_dim]
        return mb.slice_by_index(x=full, begin=[layer, 0, 0, 0], end=stop)

    def _mask(self, layer: int) -> Var:
        window = self._a.layer_kinds[layer].window
        window = window if window and window < self._places.context else None
        if window not in self._masks:
            mask, shared = self._places.mask(window), self._a.heads // self._a.kv_heads
            many = shared > 1 and self._places.count > 1
            self._masks[window] = mb.tile(x=mask, reps=[1, 1, shared, 1]) if many else mask
        return self._masks[window]


def _ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)
