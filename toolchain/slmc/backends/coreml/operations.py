"""A decoder's blocks as operations of MIL, Core ML's own language (coremltools' `mb`), in fp16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - as everywhere
from coremltools.converters.mil.mil import Var

from slmc.backends.coreml.weights import Weights
from slmc.checkpoint.dtypes import Float32
from slmc.models.blocks import TOKENS
from slmc.models.projections import Projection

SMALLEST = np.float16(1e-3)
"""Of what a norm divides by before it squares."""


class Matrices:
    """Of one function: a tied embedding and head are one."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._made: dict[Projection, Var] = {}

    def __call__(self, matrix: Projection) -> Var:
        if matrix not in self._made:
            self._made[matrix] = self.weights.matrix(matrix)
        return self._made[matrix]


class MilOperations:
    """Writes into the function that is being built."""

    axis = -1
    """Where a value's last dimension lies."""

    def __init__(self, matrices: Matrices, tokens: int, inputs: Sequence[Var]) -> None:
        self._matrices, self._tokens, self._inputs = matrices, tokens, iter(inputs)

    def input(self, *shape: int) -> Var:
        return next(self._inputs)

    def constant(self, values: Float32) -> Var:
        return self._matrices.weights.constant(values)

    def linear(self, x: Var, matrix: Projection, bias: Float32 | None = None) -> Var:
        weight = self._matrices(matrix)
        return mb.linear(x=x, weight=weight, bias=None if bias is None else self.constant(bias))

    def norm(self, x: Var, weight: Float32, epsilon: float) -> Var:
        """Squares of what is at most 1, as fp16 overflows at 65504. Epsilon shrinks with them."""
        largest = mb.maximum(x=mb.reduce_max(x=mb.abs(x=x), axes=[self.axis], keep_dims=True), y=SMALLEST)
        x = mb.real_div(x=x, y=largest)
        mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[self.axis], keep_dims=True)
        root = np.float16(epsilon**0.5)
        shrunk = mb.real_div(x=root, y=largest)
        shifted = mb.add(x=mean, y=mb.mul(x=shrunk, y=shrunk))
        return mb.mul(x=mb.mul(x=x, y=mb.rsqrt(x=shifted, epsilon=np.float16(0))), y=self.vector(weight))

    def vector(self, values: Float32) -> Var:
        """Along the last dimension."""
        return self.constant(values)

    def add(self, left: Var, right: Var) -> Var:
        return mb.add(x=left, y=right)

    def multiply(self, left: Var, right: Var) -> Var:
        return mb.mul(x=left, y=right)

    def silu(self, x: Var) -> Var:
        return mb.silu(x=x)

    def gelu_tanh(self, x: Var) -> Var:
        return mb.gelu(x=x, mode="TANH_APPROXIMATION")

    def reshape(self, x: Var, *shape: int) -> Var:
        return mb.reshape(x=x, shape=[self._tokens if extent == TOKENS else extent for extent in shape])

    def slice_last(self, x: Var, start: int, stop: int) -> Var:
        begin, end = [0] * len(x.shape), list(x.shape)
        begin[self.axis], end[self.axis] = start, stop
        return mb.slice_by_index(x=x, begin=begin, end=end)

    def concatenate_last(self, parts: Sequence[Var]) -> Var:
        return mb.concat(values=list(parts), axis=self.axis)
