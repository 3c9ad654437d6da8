"""The decoder as Relax functions under MLC's contract, see `cpp/serve/function_table.cc` of mlc-ai/mlc-llm.

    embed(tokens int32 [n], weights)                        -> [n, hidden]
    prefill(embeddings [1, n, hidden], cache, weights)      -> logits float32 [1, 1, vocab] of the last token, cache
    decode(embeddings [1, 1, hidden], cache, weights)       -> logits [1, 1, vocab], cache
    batch_prefill(embeddings [1, n, hidden], last int32 [b], cache, weights)    -> [1, b, vocab], cache
    batch_decode(embeddings [b, 1, hidden], cache, weights) -> [b, 1, vocab], cache
    batch_verify(embeddings [1, n, hidden], cache, weights) -> [1, n, vocab], cache
    create_tir_paged_kv_cache(five shapes of one integer)   -> cache
    alloc_embedding_tensor()                                -> [prefill_chunk_size, hidden]
    softmax_with_temperature(logits [b, 1, vocab], temperatures [b])            -> probabilities [b, 1, vocab]

`weights` is one tuple, in the order of the metadata's list. The stream between the layers is float32: Gemma's leaves
what float16 holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from slmc.architecture import Architecture
from slmc.backends.mlc.library import operations as op
from slmc.backends.mlc.library.cache import CREATE, SIZES, new_cache
from slmc.backends.mlc.tensors import Tensor
from slmc.models.decoder import rope_tables

Value: TypeAlias = Any
"""A Relax variable; TVM has no types for mypy."""
TOKENS, SEQUENCES = "seq_len", "batch_size"
"""Names of what is known only at run time."""


class DecoderBuilder:
    """Builds one decoder's module. `tensors` are the weights by the decoder's parameters, in the tuple's order."""

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Sequence[Tensor]],
        dtype: str,
        context: int,
        chunk: int,
        target: tvm.target.Target,
    ) -> None:
        self._a, self._tensors, self._dtype = architecture, tensors, dtype
        self._chunk, self._target = chunk, target
        self._ropes = rope_tables(architecture, context)
        self._places = {t.name: i for i, t in enumerate(t for parts in tensors.values() for t in parts)}
        self._builder = relax.BlockBuilder()
        self._weights: Value = None
        """Of the function that is being built."""

    def module(self) -> tvm.IRModule:
        n, b = tirx.Var(TOKENS, "int64"), tirx.Var(SEQUENCES, "int64")

        def embeddings(batch: Any, tokens: Any) -> Value:
            return _tensor("embeddings", (batch, tokens, self._a.hidden_size), self._dtype)

        places = _tensor("logit_positions", (b,), "int32")
        self._function("embed", [_tensor("input_ids", (n,), "int32")], self._embed)
        self._function("prefill", [embeddings(1, n), _cache()], lambda x, kv: self._logits(x, kv, self._last))
        self._function("decode", [embeddings(1, 1), _cache()], self._logits)
        self._function("batch_prefill", [embeddings(1, n), places, _cache()], self._batch_prefill)
        self._function("batch_decode", [embeddings(b, 1), _cache()], self._logits)
        self._function("batch_verify", [embeddings(1, n), _cache()], self._logits)
        self._function("alloc_embedding_tensor", [], self._allocate, weighted=False)
        logits = _tensor("logits", (b, 1, self._a.vocab_size), op.WIDE)
        temperature = _tensor("temperature", (b,), op.WIDE)
        self._function("softmax_with_temperature", [logits, temperature], self._softmax, weighted=False)
        sizes = [tirx.Var(name, "int64") for name in SIZES]
        shapes = [relax.Var(f"{size.name}_", relax.ShapeType([size])) for size in sizes]
        self._function(CREATE, shapes, lambda *_: self._cache(sizes), weighted=False)
        return self._builder.finalize()

    def _function(self, name: str, inputs: list[Value], body: Callable[..., Value], *, weighted: bool = True) -> None:
        builder, parameters = self._builder, list(inputs)
        if weighted:
            every = [t for parts in self._tensors.values() for t in parts]
            self._weights = relax.Var("weights", relax.TupleType([relax.TensorType(t.shape, t.dtype) for t in every]))
            parameters.append(self._weights)
        with builder.function(name, parameters, attrs={"num_input": len(inputs)}):
            with builder.dataflow():
                found = builder.emit_output(body(*inputs))
            builder.emit_func_output(found)

    def _embed(self, tokens: Value) -> Value:
        a, matrix = self._a, self._parts("embedding")
        if len(matrix) == 1:
            return self._emit(
                "embed_rows", lambda ids, kept: op.rows(ids, lambda n, k: kept[n, k], a, kept.dtype), tokens, *matrix
            )
        return self._emit(
            "embed_rows",
            lambda ids, words, scales: op.rows(ids, lambda n, k: op.weight(words, scales, n, k), a, scales.dtype),
            tokens,
            *matrix,
        )

    def _logits(self, x: Value, kv: Value, chosen: Callable[[Value], Value] = lambda x: x) -> Value:
        head = "embedding" if self._a.tied else "head"
        normed = self._norm(chosen(self._layers(x, kv)), "norm")
        return relax.Tuple([self._linear(normed, head, op.WIDE), kv])

    def _batch_prefill(self, x: Value, places: Value, kv: Value) -> Value:
        return self._logits(x, kv, lambda found: self._emit("taken", op.taken, found, places))

    def _last(self, x: Value) -> Value:
        return self._emit("last", op.last, x)

    def _softmax(self, logits: Value, temperature: Value) -> Value:
        return self._emit("softmax", op.softmax, logits, temperature)

    def _allocate(self) -> Value:
        shape = relax.ShapeExpr([self._chunk, self._a.hidden_size])
        return relax.op.builtin.alloc_tensor(shape, self._dtype, runtime_device_index=0)

    def _cache(self, sizes: Sequence[Value]) -> Value:
        return new_cache(self._builder, self._a, self._dtype, self._target, sizes)

    def _layers(self, x: Value, kv: Value) -> Value:
        batch, tokens, _ = x.ty.shape
        positions = self._builder.emit(
            relax.call_pure_packed(
                "vm.builtin.attention_kv_cache_get_query_positions",
                kv,
                ty_args=relax.TensorType((batch * tokens,), "int32"),
            )
        )
        x = self._emit("widened", op.widened, x)
        for layer in range(self._a.layers):
            name = f"layers.{layer}."
            branch = self._attention(self._norm(x, name + "attention_norm"), kv, layer, positions)
            x = self._add(x, branch, name + "attention_post_norm")
            both = self._linear(self._norm(x, name + "mlp_norm"), name + "gate_up")
            inner = self._emit("gated", lambda gate_up: op.gated(gate_up, self._a), both)
            x = self._add(x, self._linear(inner, name + "down"), name + "mlp_post_norm")
        return x

    def _attention(self, x: Value, kv: Value, layer: int, positions: Value) -> Value:
        a, name, (batch, tokens, _) = self._a, f"layers.{layer}.", x.ty.shape
        parts = a.heads + 2 * a.kv_heads
        qkv = self._reshape(self._qkv(x, name), batch, tokens, parts, a.head_dim)
        if a.qk_norm:
            scales = (*self._parts(name + "q_norm"), *self._parts(name + "k_norm"))
            qkv = self._emit("norm_heads", lambda x, q, k: op.norm_heads(x, q, k, a), qkv, *scales)
        rope = a.layer_kinds[layer].rope
        if rope is not None:
            tables = (relax.const(table) for table in self._ropes[rope])
            qkv = self._emit("turn", lambda *args: op.turn(args, a.heads + a.kv_heads), qkv, positions, *tables)
        attended = relax.call_dps_packed(
            "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
            [
                kv,
                relax.prim_value(layer),
                relax.prim_value(a.attention_scale),
                self._reshape(qkv, batch * tokens, parts, a.head_dim),
            ],
            out_ty=relax.TensorType((batch * tokens, a.heads, a.head_dim), self._dtype),
        )
        found = self._reshape(self._builder.emit(attended), batch, tokens, a.heads * a.head_dim)
        return self._linear(found, name + "o")

    def _qkv(self, x: Value, name: str) -> Value:
        if not self._a.qkv_bias:
            return self._linear(x, name + "qkv")
        return self._emit(
            "plus_bias", op.plus_bias, self._linear(x, name + "qkv", op.WIDE), *self._parts(name + "qkv_bias")
        )

    def _add(self, x: Value, branch: Value, norm: str) -> Value:
        if self._a.post_norms:
            branch = self._norm(branch, norm)
        return self._emit("add", op.add, x, branch)

    def _linear(self, x: Value, parameter: str, out: str | None = None) -> Value:
        """Each of the parameter's matrices times x; several are one after another in the last dimension."""
        found = [self._product(x, parts, out or self._dtype) for parts in self._matrices(parameter)]
        return found[0] if len(found) == 1 else self._emit("joined", lambda *parts: op.joined(parts), *found)

    def _product(self, x: Value, matrix: Sequence[Value], out: str) -> Value:
        if len(matrix) == 1:
            return self._emit("product", lambda x, kept: op.product(x, kept, out), x, *matrix)
        return self._emit(
            "q4_product", lambda x, words, scales: op.product(x, op.dequantized(words, scales), out), x, *matrix
        )

    def _matrices(self, parameter: str) -> list[list[Value]]:
        """What each of its matrices is made of: codes and scales, or itself."""
        grouped: dict[str, list[Value]] = {}
        for tensor, value in zip(self._tensors[parameter], self._parts(parameter), strict=True):
            grouped.setdefault(tensor.weight.name, []).append(value)
        return list(grouped.values())

    def _norm(self, x: Value, parameter: str) -> Value:
        return self._emit("norm", lambda x, scale: op.norm(x, scale, self._a.rms_eps), x, *self._parts(parameter))

    def _parts(self, parameter: str) -> list[Value]:
        places = [self._places[tensor.name] for tensor in self._tensors[parameter]]
        return [self._builder.emit(relax.TupleGetItem(self._weights, place)) for place in places]

    def _reshape(self, x: Value, *shape: Any) -> Value:
        return self._builder.emit(relax.op.reshape(x, shape))

    def _emit(self, name: str, expression: Callable[..., Any], *values: Value) -> Value:
        """A tensor expression's value, as a kernel of its own until it is fused with others."""
        return self._builder.emit_te(expression, *values, primfunc_name_hint=name)


def _tensor(name: str, shape: Sequence[Any], dtype: str) -> Value:
    return relax.Var(name, relax.TensorType(shape, dtype))


def _cache() -> Value:
    return relax.Var("cache", relax.AnyType())
