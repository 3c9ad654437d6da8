"""The cache of keys and values, and attention over it.

A head's caches lie as their loops read them: a block of positions of a key side by side, so that vectors meet as
many positions as they are wide; a value's own elements side by side.

    keys     [context / positions, head_dim, positions]
    values   [context, head_dim]
"""

from __future__ import annotations

import operator
from collections.abc import Callable
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
from slmc.backends.tvm.layout import HEAD_DIM_STEP

_MASKED = -1e30


@dataclass(frozen=True)
class Tiling:
    """What fits a CPU's registers."""

    width: int
    """Floats in a vector."""
    vectors: int
    """Of keys, or of a value's elements, that meet the queries at once."""
    few: int
    """Queries of one call that takes few."""
    many: int

    @property
    def positions(self) -> int:
        """Of keys that lie side by side."""
        return self.width * self.vectors


def append(name: str, cache_dtype: str, tiling: Tiling) -> PrimFunc:
    """key, value float32 [head_dim], keys, values, head_dim, position: both written into a head's caches."""

    def body() -> None:
        cache = cache_dtype + "*"
        key, value, keys, values, head_dim, at = arguments(
            key="float32*", value="float32*", keys=cache, values=cache, head_dim="int64", position="int64"
        )
        positions = tiling.positions
        first = let(at // positions * head_dim * positions + at % positions)
        with loop(head_dim) as d:
            store(keys, T.Cast(cache_dtype, key[d]), first + d * positions)
        with loop(head_dim // LANES) as step:
            narrow = T.Cast(f"{cache_dtype}x{LANES}", value[lanes(step * LANES)])
            store(values, narrow, lanes(at * head_dim + step * LANES))

    return kernel(name, body)


def attend(name: str, cache_dtype: str, tiling: Tiling, queries: int) -> PrimFunc:
    """queries float32 [queries, head_dim], keys, values, begins, ends int32 [queries], scores float32 [queries,
    stride], stride, head_dim, start, stop, result float32 [queries, head_dim].

    Query i attends to positions begins[i] to ends[i] - 1; none is outside `start`, a multiple of the
    tiling's positions, to `stop` - 1. A query with begins[i] = ends[i] gets some finite result. Scores are scratch.
    """

    def body() -> None:
        cache = cache_dtype + "*"
        _Attention(
            tiling,
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
    tiling: Tiling
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
        wide = self.tiling.width * self.tiling.vectors
        with loop(self.head_dim // wide) as step:
            self._sum_values(step * wide, self.tiling.width, self.tiling.vectors, inverse)
        if wide > HEAD_DIM_STEP:
            with loop(self.head_dim % wide // HEAD_DIM_STEP) as step:
                first = self.head_dim // wide * wide + step * HEAD_DIM_STEP
                self._sum_values(first, HEAD_DIM_STEP, 1, inverse)

    def _blocks(self) -> AbstractContextManager[Expr]:
        positions = self.tiling.positions
        return loop(T.ceildiv(self.stop, positions), start=self.start // positions)

    def _vectors(self, block: Expr) -> list[Expr]:
        """The first position of each vector of a block."""
        return [block * self.tiling.positions + i * self.tiling.width for i in range(self.tiling.vectors)]

    def _lanes(self, start: int | Expr) -> Expr:
        return lanes(start, self.tiling.width)

    def _splat(self, value: float | Expr) -> Expr:
        return splat(value, self.tiling.width)

    def _score(self, block: Expr) -> None:
        """Each query's products with a block of keys; those that it does not see are masked."""
        sums = _Sums(self.count, self.tiling.vectors, self.tiling.width)
        with loop(self.head_dim) as d:
            places = [
                (block * self.head_dim + d) * self.tiling.positions + i * self.tiling.width
                for i in range(self.tiling.vectors)
            ]
            sums.add(self.keys, places, lambda query: self.queries[query * self.head_dim + d])
        for i, position in enumerate(self._vectors(block)):
            positions = let(T.Cast(f"int32x{self.tiling.width}", self._lanes(position)))
            for query in range(self.count):
                begin, end = self._splat(self.begins[query]), self._splat(self.ends[query])
                seen = T.And(positions >= begin, positions < end)
                score = T.Select(seen, sums.of(query, i), self._splat(_MASKED))
                store(self.scores, score, self._lanes(query * self.stride + position))

    def _softmax(self, query: int) -> Expr:
        """A query's scores become exp(score - largest); 1 / their sum.

        The sum is of eight lanes whatever a vector's width, so that all CPUs add in one order, to the same bits.
        """
        width, whole = self.tiling.width, self._lanes(0)
        largest, total = scratch(width), scratch(LANES)
        store(largest, self._splat(_MASKED), whole)
        store(total, splat(0.0), lanes(0))
        with self._blocks() as block:
            for position in self._vectors(block):
                store(largest, T.max(largest[whole], self.scores[self._lanes(query * self.stride + position)]), whole)
        top = let(reduce_lanes(largest, T.max, width))
        with self._blocks() as block:
            for position in self._vectors(block):
                first = query * self.stride + position
                store(self.scores, exp(self.scores[self._lanes(first)] - self._splat(top)), self._lanes(first))
                for start in range(0, width, LANES):
                    store(total, total[lanes(0)] + self.scores[lanes(first + start)], lanes(0))
        return T.float32(1) / reduce_lanes(total, operator.add)

    def _sum_values(self, first: Expr, width: int, vectors: int, inverse: Buffer) -> None:
        """`width` * `vectors` elements, from `first`, of every query's result."""
        sums = _Sums(self.count, vectors, width)
        starts = [first + i * width for i in range(vectors)]
        with loop(self.stop, start=self.start) as t:
            places = [t * self.head_dim + start for start in starts]
            sums.add(self.values, places, lambda query: self.scores[query * self.stride + t])
        for query in range(self.count):
            for i, start in enumerate(starts):
                total = sums.of(query, i) * splat(inverse[query], width)
                store(self.result, total, lanes(query * self.head_dim + start, width))


class _Sums:
    """A vector or some for each query, in registers, from zero."""

    def __init__(self, count: int, vectors: int, width: int) -> None:
        self._width = width
        self._slots = [lanes(i * width, width) for i in range(vectors)]
        # A buffer for each query: TVM takes one of a kilobyte from its runtime instead.
        self._sums = [scratch(vectors * width) for _ in range(count)]
        for sums in self._sums:
            for slot in self._slots:
                store(sums, splat(0.0, width), slot)

    def add(self, cache: Buffer, places: list[Expr], factor: Callable[[int], Expr]) -> None:
        """Vectors of a cache, each times every query's factor."""
        found = [let(T.Cast(f"float32x{self._width}", cache[lanes(place, self._width)])) for place in places]
        for query, sums in enumerate(self._sums):
            factors = let(splat(factor(query), self._width))
            for vector, slot in zip(found, self._slots, strict=True):
                store(sums, sums[slot] + vector * factors, slot)

    def of(self, query: int, vector: int) -> Expr:
        return self._sums[query][self._slots[vector]]
