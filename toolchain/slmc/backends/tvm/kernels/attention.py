"""The cache of keys and values, and attention over it.

A head's caches lie as their loops read them: eight positions of a key side by side, so that one vector
meets eight positions; a value's own elements side by side.

    keys     [context / 8, head_dim, 8]
    values   [context, head_dim]
"""

from __future__ import annotations

import operator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from slmc.backends.tvm.kernels.tir import (
    LANES,
    Buffer,
    Expr,
    PrimFunc,
    T,
    arguments,
    exp,
    kernel,
    lanes,
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


def append(name: str, cache_dtype: str) -> PrimFunc:
    """key, value float32 [head_dim], keys, values, head_dim, position: both written into a head's caches."""

    def body() -> None:
        cache = cache_dtype + "*"
        key, value, keys, values, head_dim, at = arguments(
            key="float32*", value="float32*", keys=cache, values=cache, head_dim="int64", position="int64"
        )
        first = let(at // LANES * head_dim * LANES + at % LANES)
        with loop(head_dim) as d:
            store(keys, T.Cast(cache_dtype, key[d]), first + d * LANES)
        with loop(head_dim // LANES) as step:
            narrow = T.Cast(f"{cache_dtype}x{LANES}", value[lanes(step * LANES)])
            store(values, narrow, lanes(at * head_dim + step * LANES))

    return kernel(name, body)


def attend(name: str, cache_dtype: str, queries: int) -> PrimFunc:
    """queries float32 [queries, head_dim], keys, values, begins, ends int32 [queries], scores float32 [queries,
    stride], stride, head_dim, start, stop, result float32 [queries, head_dim].

    Query i attends to positions begins[i] to ends[i] - 1; none is outside `start`, a multiple of 8, to
    `stop` - 1. A query with begins[i] = ends[i] gets some finite result. Scores are scratch.
    """

    def body() -> None:
        cache = cache_dtype + "*"
        _Attention(
            queries,
            *arguments(
                queries="float32*",
                keys=cache,
                values=cache,
                begins="int32*",
                ends="int32*",
                scores="float32*",
                **dict.fromkeys(("stride", "head_dim", "start", "stop"), "int64"),
                result="float32*",
            ),
        ).run()

    return kernel(name, body)


@dataclass(frozen=True)
class _Attention:
    count: int
    queries: Buffer
    keys: Buffer
    values: Buffer
    begins: Buffer
    ends: Buffer
    scores: Buffer
    stride: Expr
    head_dim: Expr
    start: Expr
    stop: Expr
    result: Buffer

    def run(self) -> None:
        with self._blocks() as block:
            self._score(block)
        inverse = scratch(self.count)
        for query in range(self.count):
            store(inverse, self._softmax(query), query)
        with loop(self.head_dim // _VALUE_STEP) as step:
            self._sum_values(step, inverse)

    def _blocks(self) -> AbstractContextManager[Expr]:
        return loop(T.ceildiv(self.stop, LANES), start=self.start // LANES)

    def _slot(self, query: int, block: Expr) -> Expr:
        return lanes(query * self.stride + block * LANES)

    def _score(self, block: Expr) -> None:
        """Each query's products with eight keys; those that it does not see are masked."""
        sums = scratch(self.count * LANES)
        for query in range(self.count):
            store(sums, splat(0.0), lanes(query * LANES))
        with loop(self.head_dim) as d:
            key = let(T.Cast("float32x8", self.keys[lanes((block * self.head_dim + d) * LANES)]))
            for query in range(self.count):
                slot = lanes(query * LANES)
                product = key * splat(self.queries[query * self.head_dim + d])
                store(sums, sums[slot] + product, slot)
        positions = let(T.Cast("int32x8", lanes(block * LANES)))
        for query in range(self.count):
            seen = T.And(positions >= splat(self.begins[query]), positions < splat(self.ends[query]))
            store(self.scores, T.Select(seen, sums[lanes(query * LANES)], splat(_MASKED)), self._slot(query, block))

    def _softmax(self, query: int) -> Expr:
        """A query's scores become exp(score - largest); 1 / their sum."""
        largest, total = scratch(LANES), scratch(LANES)
        store(largest, splat(_MASKED), lanes(0))
        store(total, splat(0.0), lanes(0))
        with self._blocks() as block:
            store(largest, T.max(largest[lanes(0)], self.scores[self._slot(query, block)]), lanes(0))
        top = let(reduce_lanes(largest, T.max))
        with self._blocks() as block:
            power = let(exp(self.scores[self._slot(query, block)] - splat(top)))
            store(self.scores, power, self._slot(query, block))
            store(total, total[lanes(0)] + power, lanes(0))
        return T.float32(1) / reduce_lanes(total, operator.add)

    def _sum_values(self, step: Expr, inverse: Buffer) -> None:
        """A step's elements of every query's result."""
        places = [(query, part) for query in range(self.count) for part in range(0, _VALUE_STEP, LANES)]
        sums = scratch(self.count * _VALUE_STEP)
        for query, part in places:
            store(sums, splat(0.0), lanes(query * _VALUE_STEP + part))
        with loop(self.stop, start=self.start) as t:
            for part in range(0, _VALUE_STEP, LANES):
                columns = lanes(t * self.head_dim + step * _VALUE_STEP + part)
                value = let(T.Cast("float32x8", self.values[columns]))
                for query in range(self.count):
                    slot = lanes(query * _VALUE_STEP + part)
                    weight = self.scores[query * self.stride + t]
                    store(sums, sums[slot] + value * splat(weight), slot)
        for query, part in places:
            total = sums[lanes(query * _VALUE_STEP + part)] * splat(inverse[query])
            store(self.result, total, lanes(query * self.head_dim + step * _VALUE_STEP + part))
