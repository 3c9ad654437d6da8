"""How a profile lays a decoder's values out: for the GPU as they are, for the Neural Engine channels first.

A layout makes the operations of blocks, and turns what goes into the first block, comes out of attention, and leaves
the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - as everywhere
from coremltools.converters.mil.mil import Var

from slmc.architecture import Architecture
from slmc.backends.coreml.operations import Matrices, MilOperations
from slmc.checkpoint.dtypes import Float32
from slmc.models.projections import Projection, split

MOST_CHANNELS = 16384
"""Of one convolution that the Neural Engine takes."""


class Layout:
    """The GPU's: x [1, tokens, hidden], heads [1, tokens, heads, head_dim]."""

    def __init__(self, a: Architecture, count: int) -> None:
        self._a, self._count = a, count

    def operations(self, matrices: Matrices, inputs: Sequence[Var]) -> MilOperations:
        return MilOperations(matrices, self._count, inputs)

    def opened(self, rows: Var) -> Var:
        """Of the embedding's rows [1, tokens, hidden]."""
        return rows

    def rope(self, rows: Var) -> Var:
        """Of a table's rows [tokens, head_dim]."""
        return mb.expand_dims(x=rows, axes=[1])

    def heads_first(self, heads: Var) -> Var:
        """[1, heads, tokens, head_dim]."""
        return mb.transpose(x=heads, perm=[0, 2, 1, 3])

    def attended(self, x: Var) -> Var:
        """As the blocks take it, of [1, heads, tokens, head_dim]."""
        apart = mb.transpose(x=x, perm=[0, 2, 1, 3])
        return mb.reshape(x=apart, shape=[1, self._count, self._a.heads * self._a.head_dim])

    def attend(self, queries: Var, keys: Var, values: Var, mask: Var) -> Var:
        """[1, kv_heads, any, head_dim]; the queries are scaled by the root of head_dim here."""
        return mb.scaled_dot_product_attention(query=queries, key=keys, value=values, attn_mask=mask)

    def take(self, x: Var, place: Var) -> Var:
        """One of the tokens."""
        return mb.gather(x=x, indices=place, axis=1, batch_dims=0, validate_indices=False)

    def logits(self, x: Var) -> Var:
        """[1, tokens, vocab]."""
        return x


class NeuralEngine(Layout):
    """x [1, hidden, 1, tokens], heads [heads, head_dim, 1, tokens]; products are 1x1 convolutions."""

    def operations(self, matrices: Matrices, inputs: Sequence[Var]) -> MilOperations:
        return _Channels(matrices, self._count, inputs)

    def opened(self, rows: Var) -> Var:
        return mb.expand_dims(x=mb.transpose(x=rows, perm=[0, 2, 1]), axes=[2])

    def rope(self, rows: Var) -> Var:
        return mb.expand_dims(x=mb.transpose(x=rows, perm=[1, 0]), axes=[0, 2])

    def heads_first(self, heads: Var) -> Var:
        return mb.transpose(x=heads, perm=[2, 0, 3, 1])

    def attended(self, x: Var) -> Var:
        turned = mb.transpose(x=x, perm=[0, 1, 3, 2])
        return mb.reshape(x=turned, shape=[1, self._a.heads * self._a.head_dim, 1, self._count])

    def attend(self, queries: Var, keys: Var, values: Var, mask: Var) -> Var:
        scaled = mb.mul(x=queries, y=np.float16(self._a.head_dim**-0.5))
        scores = mb.add(x=mb.matmul(x=scaled, y=keys, transpose_y=True), y=mask)
        return mb.matmul(x=mb.softmax(x=scores, axis=-1), y=values)

    def take(self, x: Var, place: Var) -> Var:
        return mb.gather(x=x, indices=place, axis=3, batch_dims=0, validate_indices=False)

    def logits(self, x: Var) -> Var:
        return mb.transpose(x=mb.squeeze(x=x, axes=[2]), perm=[0, 2, 1])


class _Channels(MilOperations):
    """Blocks' values with their last dimension as channels, the second one here."""

    axis = 1

    def linear(self, x: Var, matrix: Projection, bias: Float32 | None = None) -> Var:
        weights, made = self._matrices.weights, []
        for part in split(matrix, MOST_CHANNELS):
            shift = None if bias is None else weights.constant(bias[part.start - matrix.start :][: part.rows])
            made.append(mb.conv(x=x, weight=weights.convolution(part), bias=shift, pad_type="valid"))
        return made[0] if len(made) == 1 else mb.concat(values=made, axis=1)

    def vector(self, values: Float32) -> Var:
        return self.constant(values.reshape(1, -1, 1, 1))

    def reshape(self, x: Var, *shape: int) -> Var:
        """Only ever rows into heads."""
        _, _, heads, head_dim = shape
        return mb.reshape(x=x, shape=[heads, head_dim, 1, self._tokens])
