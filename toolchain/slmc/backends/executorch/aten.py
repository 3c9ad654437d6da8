"""A decoder's blocks and embedding by torch's own operators, which a delegate's partitioner takes over.

A quantized matrix is codes and scales under torchao's `dequantize_affine`, the pattern that partitioners know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torchao.quantization.quant_primitives  # noqa: F401 - registers operators
from torch import Tensor, nn
from torch.nn import functional

from slmc.architecture import EMBEDDING
from slmc.checkpoint.dtypes import Float32
from slmc.models.blocks import TOKENS, Blocks
from slmc.models.projections import Projection
from slmc.quant.reader import QuantizedReader

_SMALLEST = 1e-3
"""Of what a norm divides by before it squares."""


class Matrix(nn.Module):
    """A quantized matrix, float32 when called: int8 codes and float32 scales, with zeros for zero points."""

    def __init__(self, reader: QuantizedReader, matrix: Projection) -> None:
        super().__init__()
        codes, scales = matrix.read(reader)
        self._group = codes.shape[1] // scales.shape[1]
        self.register_buffer("codes", torch.from_numpy(codes.copy()))
        self.register_buffer("scales", torch.from_numpy(scales.copy()))
        self.register_buffer("zeros", torch.zeros(scales.shape, dtype=torch.int8))

    def forward(self) -> Tensor:
        return cast(
            Tensor,
            torch.ops.torchao.dequantize_affine(
                self.codes, [1, self._group], self.scales, self.zeros, torch.int8, -8, 7, output_dtype=torch.float32
            ),
        )


class Embedding(nn.Module):
    """Rows float32 [1, n, hidden] of tokens int64 [1, n]."""

    def __init__(self, reader: QuantizedReader) -> None:
        super().__init__()
        self.matrix = Matrix(reader, Projection(EMBEDDING, 0, reader.architecture.vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.matrix())


class AtenBlock(nn.Module):
    """The block at a place. It is built once with zeros, which registers its constants."""

    def __init__(self, reader: QuantizedReader, place: int, *, fp16: bool) -> None:
        """`fp16`: the delegate computes in it, so norms must not square what is large."""
        super().__init__()
        self._blocks, self._place, self._fp16 = Blocks[Tensor](reader, swapped=False), place, fp16
        self.matrices = nn.ModuleDict()
        with torch.no_grad():
            self.forward()

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return self._blocks.build(self._place, _Operations(self, inputs, fp16=self._fp16))

    def matrix(self, wanted: Projection) -> Matrix:
        name = f"{wanted.source}_{wanted.start}".replace(".", "_")
        if name not in self.matrices:
            self.matrices[name] = Matrix(self._blocks.reader, wanted)
        return cast(Matrix, self.matrices[name])

    def vector(self, index: int, values: Float32) -> Tensor:
        name = f"vector_{index}"
        if not hasattr(self, name):
            self.register_buffer(name, torch.from_numpy(values.copy()))
        return cast(Tensor, getattr(self, name))


class _Operations:
    """Tensors for values."""

    def __init__(self, module: AtenBlock, inputs: Sequence[Tensor], *, fp16: bool) -> None:
        """Without inputs they are zeros of one token."""
        self._module, self._inputs, self._fp16 = module, iter(inputs), fp16
        self._tokens = inputs[0].shape[1] if inputs else 1
        self._constants = 0

    def input(self, *shape: int) -> Tensor:
        given = next(self._inputs, None)
        return torch.zeros(self._extents(shape)) if given is None else given

    def constant(self, values: Float32) -> Tensor:
        self._constants += 1
        return self._module.vector(self._constants, values)

    def linear(self, x: Tensor, matrix: Projection, bias: Float32 | None = None) -> Tensor:
        return functional.linear(x, self._module.matrix(matrix)(), None if bias is None else self.constant(bias))

    def norm(self, x: Tensor, weight: Float32, epsilon: float) -> Tensor:
        if self._fp16:
            largest = x.abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
            x = x / largest
            inverse = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.constant(_one(epsilon)) / largest / largest)
        else:
            inverse = torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon)
        return x * inverse * self.constant(weight)

    def add(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        return left * right

    def silu(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def gelu_tanh(self, x: Tensor) -> Tensor:
        return functional.gelu(x, approximate="tanh")

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        return x.reshape(self._extents(shape))

    def slice_last(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[..., start:stop]

    def concatenate_last(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1)

    def _extents(self, shape: Sequence[int]) -> list[int]:
        return [self._tokens if extent == TOKENS else extent for extent in shape]


def _one(value: float) -> Float32:
    return np.array([value], np.float32)
