"""Rope, the cache of keys and values, and grouped-query attention, in one kernel.

The caches lie as their loops read them: eight positions of a key side by side, so that one vector meets
eight positions; a value's own elements side by side.

    keys     [layers, kv_heads, context / 8, head_dim, 8]
    values   [layers, kv_heads, context, head_dim]
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cache

from slmc.backends.tvm.kernels.activations import rms_factor
from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    PrimFunc,
    T,
    argument,
    exp,
    kernel,
    lanes,
    length,
    let,
    loop,
    reduce_lanes,
    scratch,
    splat,
    store,
)

_MASKED = -1e30
_VALUE_STEP = 16
"""Elements of a value that are summed at once; head_dim is a multiple."""


@dataclass(frozen=True)
class AttentionShape:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    """A multiple of 8."""
    width: int
    """Of a row of queries, keys and values; padding may follow them."""
    norm_epsilon: float | None
    """Of the RMSNorm over each query and key, None where there is none."""
    cache_dtype: str

    @property
    def keys(self) -> tuple[int, ...]:
        return (self.layers, self.kv_heads, self.context // LANES, self.head_dim, LANES)

    @property
    def values(self) -> tuple[int, ...]:
        return (self.layers, self.kv_heads, self.context, self.head_dim)


@cache
def attention(name: str, shape: AttentionShape, many: bool) -> PrimFunc:
    """qkv float32 [n, width], keys, values, cosines and sines [context, head_dim / 2], position int32 [1],
    [query and key norm [head_dim],] layer int64, result float32 [n, heads * head_dim].

    Writes the rows' keys and values into the caches from `position` on, then attends to all up to each row.
    """

    def body() -> None:
        n = length() if many else T.int64(1)
        half = (shape.context, shape.head_dim // 2)
        normed = shape.norm_epsilon is not None
        kernel_body = _Attention(
            shape,
            qkv=argument("qkv", (n, shape.width), "float32"),
            keys=argument("keys", shape.keys, shape.cache_dtype),
            values=argument("values", shape.values, shape.cache_dtype),
            cosines=argument("cosines", half, "float32"),
            sines=argument("sines", half, "float32"),
            position=argument("position", (1,), "int32"),
            query_norm=argument("query_norm", (shape.head_dim,), "float32") if normed else None,
            key_norm=argument("key_norm", (shape.head_dim,), "float32") if normed else None,
            layer=T.arg("layer", T.var("int64", "layer")),
            result=argument("result", (n, shape.heads * shape.head_dim), "float32"),
        )
        with loop(shape.kv_heads, parallel=True) as head:
            rotated = scratch(shape.head_dim)
            with loop(n) as row:
                kernel_body.append(head, row, rotated)
            queries = scratch(kernel_body.shared * shape.head_dim)
            weights = scratch(kernel_body.shared * shape.context)
            with loop(n) as row:
                kernel_body.attend(head, row, queries, weights)

    return kernel(name, body)


@dataclass(frozen=True)
class _Attention:
    shape: AttentionShape
    qkv: Buffer
    keys: Buffer
    values: Buffer
    cosines: Buffer
    sines: Buffer
    position: Buffer
    query_norm: Buffer | None
    key_norm: Buffer | None
    layer: Expr
    result: Buffer

    @property
    def shared(self) -> int:
        """Queries that share a key."""
        return self.shape.heads // self.shape.kv_heads

    def append(self, head: Expr, row: Expr, rotated: Buffer) -> None:
        """Write a row's key and value of a head into the caches."""
        shape, at = self.shape, let(self._position(row))
        self._rotate(row, (shape.heads + head) * shape.head_dim, self.key_norm, 1.0, rotated, 0)
        with loop(shape.head_dim) as d:
            key = T.Cast(shape.cache_dtype, rotated[d])
            store(self.keys, key, self.layer, head, at // LANES, d, at % LANES)
        first = let((shape.heads + shape.kv_heads + head) * shape.head_dim)
        with loop(shape.head_dim // LANES) as step:
            value = T.Cast(f"{shape.cache_dtype}x{LANES}", self.qkv[row, lanes(first + step * LANES)])
            store(self.values, value, self.layer, head, at, lanes(step * LANES))

    def attend(self, head: Expr, row: Expr, queries: Buffer, weights: Buffer) -> None:
        """One row's result for the queries that share a key."""
        shape, seen = self.shape, let(self._position(row) + 1)
        for j in range(self.shared):
            first = (head * self.shared + j) * shape.head_dim
            self._rotate(row, first, self.query_norm, shape.head_dim**-0.5, queries, j * shape.head_dim)
        self._scores(head, seen, queries, weights)
        inverse = scratch(self.shared)
        for j in range(self.shared):
            store(inverse, self._softmax(seen, weights, j * shape.context), j)
        self._weighted_values(head, row, seen, weights, inverse)

    def _position(self, row: Expr) -> Expr:
        return T.Cast("int64", self.position[0]) + row

    def _rotate(self, row: Expr, first: Expr, norm: Buffer | None, scale: float, out: Buffer, start: int) -> None:
        """A query or key from column `first` of a row, normed, turned by its position, times `scale`."""
        shape, half, at = self.shape, self.shape.head_dim // 2, let(self._position(row))
        factor = None
        if norm is not None and shape.norm_epsilon is not None:
            factor = rms_factor(lambda d: self.qkv[row, lanes(first + d)], shape.head_dim, shape.norm_epsilon)

        def element(d: Expr) -> Expr:
            value = self.qkv[row, lanes(first + d)]
            if norm is None or factor is None:
                return let(value)
            return let(value * splat(factor) * norm[lanes(d)])

        with loop(half // LANES) as step:
            d = let(step * LANES)
            left, right = element(d), element(d + half)
            cosine = let(self.cosines[at, lanes(d)] * splat(scale))
            sine = let(self.sines[at, lanes(d)] * splat(scale))
            store(out, left * cosine - right * sine, lanes(d + start))
            store(out, right * cosine + left * sine, lanes(d + start + half))

    def _scores(self, head: Expr, seen: Expr, queries: Buffer, weights: Buffer) -> None:
        """weights[j, t] = query j · key t; lanes beyond the last position are masked."""
        shape = self.shape
        with loop(T.ceildiv(seen, LANES)) as block:
            sums = scratch(self.shared * LANES)
            for j in range(self.shared):
                store(sums, splat(0.0), lanes(j * LANES))
            with loop(shape.head_dim) as d:
                key = let(T.Cast("float32x8", self.keys[self.layer, head, block, d, lanes(0)]))
                for j in range(self.shared):
                    product = key * splat(queries[j * shape.head_dim + d])
                    store(sums, sums[lanes(j * LANES)] + product, lanes(j * LANES))
            before = lanes(block * LANES) < splat(seen)
            for j in range(self.shared):
                masked = T.Select(before, sums[lanes(j * LANES)], splat(_MASKED))
                store(weights, masked, lanes(j * shape.context + block * LANES))

    def _softmax(self, seen: Expr, weights: Buffer, start: int) -> Expr:
        """Scores from `start` on become exp(score - largest); 1 / their sum."""
        largest, total = scratch(LANES), scratch(LANES)
        store(largest, splat(_MASKED), lanes(0))
        store(total, splat(0.0), lanes(0))
        with loop(T.ceildiv(seen, LANES)) as block:
            store(largest, T.max(largest[lanes(0)], weights[lanes(start + block * LANES)]), lanes(0))
        top = let(reduce_lanes(largest, T.max))
        with loop(T.ceildiv(seen, LANES)) as block:
            power = let(exp(weights[lanes(start + block * LANES)] - splat(top)))
            store(weights, power, lanes(start + block * LANES))
            store(total, total[lanes(0)] + power, lanes(0))
        return T.float32(1) / reduce_lanes(total, operator.add)

    def _weighted_values(self, head: Expr, row: Expr, seen: Expr, weights: Buffer, inverse: Buffer) -> None:
        shape = self.shape
        starts = [(j, part) for j in range(self.shared) for part in range(0, _VALUE_STEP, LANES)]
        with loop(shape.head_dim // _VALUE_STEP) as step:
            sums = scratch(self.shared * _VALUE_STEP)
            for j, part in starts:
                store(sums, splat(0.0), lanes(j * _VALUE_STEP + part))
            with loop(seen) as t:
                for part in range(0, _VALUE_STEP, LANES):
                    columns = lanes(step * _VALUE_STEP + part)
                    value = let(T.Cast("float32x8", self.values[self.layer, head, t, columns]))
                    for j in range(self.shared):
                        slot = lanes(j * _VALUE_STEP + part)
                        store(sums, sums[slot] + value * splat(weights[j * shape.context + t]), slot)
            for j, part in starts:
                column = (head * self.shared + j) * shape.head_dim + step * _VALUE_STEP + part
                total = sums[lanes(j * _VALUE_STEP + part)] * splat(inverse[j])
                store(self.result, total, row, lanes(column))
