"""The decoder as two Relax functions, `prefill` and `decode`, over the kernels.

Both take ids, position, keys, values and the tuple of parameters, as `slmc.models.compiled` tells.
The caches are arguments that the attention kernel writes in place. Relax takes a kernel's call to be
pure; each call here gives a result that the next one needs, so none is moved or dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm import relax, tirx
from tvm.ir import IRModule

from slmc.architecture import Architecture
from slmc.backends.tvm import layout
from slmc.backends.tvm.kernels import activations
from slmc.backends.tvm.kernels.attention import AttentionShape, attention
from slmc.backends.tvm.kernels.embedding import embedding
from slmc.backends.tvm.kernels.formats import FORMATS, TILE_ROWS
from slmc.backends.tvm.kernels.matmul import Addend, matmul
from slmc.backends.tvm.kernels.tir import Expr, PrimFunc
from slmc.backends.tvm.parameters import COSINES, SINES, codes_name, padded_context, scales_name, stored_tensors
from slmc.models.compiled import CACHE_DTYPES, Kernels

_DTYPES = {"F32": "float32", "BF16": "uint16", "U8": "uint8"}
"""Of stored tensors as the kernels see them."""


@dataclass(frozen=True)
class Options:
    shapes: Mapping[str, layout.Shape]
    """Of each matrix, by its parameter's name."""
    context: int
    prefill_tokens: int
    """Ids that one call of `prefill` takes at most."""
    kernels: Kernels


def attention_shape(architecture: Architecture, options: Options) -> AttentionShape:
    rows = (architecture.heads + 2 * architecture.kv_heads) * architecture.head_dim
    return AttentionShape(
        layers=architecture.layers,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        context=padded_context(options.context),
        width=layout.padded_rows(rows),
        norm_epsilon=architecture.rms_eps if architecture.qk_norm else None,
        cache_dtype=CACHE_DTYPES[options.kernels],
    )


def decoder_module(architecture: Architecture, options: Options) -> IRModule:
    builder = relax.BlockBuilder()
    for many in (True, False):
        _Decoder(builder, architecture, options, many).build()
    return builder.finalize()


class _Decoder:
    """One of the two functions: `prefill` for any number of ids (`many`), `decode` for one."""

    def __init__(self, builder: relax.BlockBuilder, architecture: Architecture, options: Options, many: bool) -> None:
        self.builder, self.architecture, self.options, self.many = builder, architecture, options, many
        self.held_as = FORMATS[options.kernels]
        self.tokens: Expr = tirx.Var("n", "int64") if many else tirx.IntImm("int64", 1)
        self.suffix = "many" if many else "one"
        self.attention_shape = attention_shape(architecture, options)
        self.formats = {tensor.name: tensor for tensor in stored_tensors(architecture, options.shapes, options.context)}
        self.parameters: dict[str, Expr] = {}

    def build(self) -> None:
        dtype = self.attention_shape.cache_dtype
        ids, position = _variable("ids", (self.tokens,), "int32"), _variable("position", (1,), "int32")
        keys = _variable("keys", self.attention_shape.keys, dtype)
        values = _variable("values", self.attention_shape.values, dtype)
        types = [relax.TensorType(tensor.shape, _DTYPES[tensor.dtype]) for tensor in self.formats.values()]
        packed = relax.Var("parameters", relax.TupleType(types))
        # With a bound, memory is planned once, for the longest prompt: calls of other lengths take no more.
        bound = {"tir_var_upper_bound": {"n": self.options.prefill_tokens}} if self.many else {}
        arguments = [ids, position, keys, values, packed]
        with self.builder.function("prefill" if self.many else "decode", arguments, attrs=bound):
            with self.builder.dataflow():
                for index, name in enumerate(self.formats):
                    self.parameters[name] = self.builder.emit(relax.TupleGetItem(packed, index))
                state = [keys, values, self.parameters[COSINES], self.parameters[SINES], position]
                logits = self.builder.emit_output(self._logits(ids, state))
            self.builder.emit_func_output(logits)

    def _logits(self, ids: Expr, state: list[Expr]) -> Expr:
        """float32 [1, padded vocabulary], after the last id."""
        shape = self.options.shapes["embedding"]
        function = embedding(f"embedding_{self.suffix}", shape, self.many)
        x = self._call(function, [ids, *self._matrix("embedding")], (self.tokens, shape.columns))
        for layer in range(self.architecture.layers):
            x = self._layer(layer, x, state)
        last = self._normalized(x, "norm", last=True)
        return self._matmul("embedding" if self.architecture.tied else "head", last, None, "none", many=False)

    def _layer(self, layer: int, x: Expr, state: list[Expr]) -> Expr:
        name = f"layers.{layer}."
        bias = self.parameters.get(name + "qkv_bias")
        held = self._normalized(x, name + "attention_norm")
        qkv = self._matmul(name + "qkv", held, bias, "none" if bias is None else "bias", self.many)
        attended = self._attention(layer, qkv, state)
        queries = self.architecture.heads * self.architecture.head_dim
        copied = activations.copied(f"copied_{self.suffix}", queries, self.held_as, self.many)
        held = self._held(copied, [attended], queries, self.many)
        x = self._matmul(name + "o", held, x, "residual", self.many)

        held = self._normalized(x, name + "mlp_norm")
        gate_up = self._matmul(name + "gate_up", held, None, "none", self.many)
        inner = self.architecture.intermediate_size
        gated = activations.gated(f"gated_{self.suffix}", inner, self.held_as, self.many)
        held = self._held(gated, [gate_up], inner, self.many)
        return self._matmul(name + "down", held, x, "residual", self.many)

    def _attention(self, layer: int, qkv: Expr, state: list[Expr]) -> Expr:
        shape = self.attention_shape
        names = [f"layers.{layer}.{part}_norm" for part in "qk"] if shape.norm_epsilon is not None else []
        arguments = [qkv, *state, *(self.parameters[name] for name in names), tirx.IntImm("int64", layer)]
        function = attention(f"attention_{self.suffix}", shape, self.many)
        return self._call(function, arguments, (self.tokens, shape.heads * shape.head_dim))

    def _normalized(self, x: Expr, weights: str, last: bool = False) -> list[Expr]:
        """RMSNorm of x, held for a matmul; `last` is its last row alone."""
        columns, epsilon = self.architecture.hidden_size, self.architecture.rms_eps
        name = f"normalized{'_last' if last else ''}_{self.suffix}"
        function = activations.normalized(name, columns, epsilon, self.held_as, self.many, last)
        return self._held(function, [x, self.parameters[weights]], columns, self.many and not last)

    def _held(self, function: PrimFunc, arguments: list[Expr], columns: int, many: bool) -> list[Expr]:
        """Activations [rows, columns] as the matmuls take them, with rows for whole tiles."""
        rows = (self.tokens + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS if many else 1
        types = [relax.TensorType((rows, *part.shape), part.dtype) for part in self.held_as.parts(columns)]
        held = self.builder.emit(relax.call_tir(self._function(function), arguments, types))
        if len(types) == 1:
            return [held]
        return [self.builder.emit(relax.TupleGetItem(held, index)) for index in range(len(types))]

    def _matmul(self, name: str, held: list[Expr], added: Expr | None, addend: Addend, many: bool) -> Expr:
        shape = self.options.shapes[name]
        kernel_name = f"matmul_{shape.rows}x{shape.columns}_{shape.bits}bit_{addend}_{'many' if many else 'one'}"
        function = matmul(kernel_name, shape, self.options.kernels, addend, many)
        arguments = [*self._matrix(name), *held, *([] if added is None else [added])]
        return self._call(function, arguments, (self.tokens if many else 1, shape.rows))

    def _call(self, function: PrimFunc, arguments: list[Expr], shape: tuple[int | Expr, ...]) -> Expr:
        """A kernel with one result, float32 of that shape."""
        result = relax.TensorType(shape, "float32")
        return self.builder.emit(relax.call_tir(self._function(function), arguments, result))

    def _function(self, function: PrimFunc) -> Expr:
        """The kernel in the module, once however often it is called."""
        return self.builder.add_func(function.without_attr("global_symbol"), function.attrs["global_symbol"])

    def _matrix(self, name: str) -> list[Expr]:
        return [self.parameters[codes_name(name)], self.parameters[scales_name(name)]]


def _variable(name: str, shape: tuple[int | Expr, ...], dtype: str) -> Expr:
    return relax.Var(name, relax.TensorType(shape, dtype))
