"""The matrices of a decoder as its layers use them, one by one, wherever a checkpoint stores them; and its vectors.

Phi-3 stores q, k and v as rows of one tensor, and gate and up of another; a tied head is the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slmc.architecture import EMBEDDING, HEAD, Architecture, TensorSpec
from slmc.checkpoint.dtypes import Float32
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader


@dataclass(frozen=True)
class Projection:
    """Rows [start, stop) of a stored tensor, and the bias of as many elements where it has one."""

    source: str
    start: int
    stop: int
    bias: str | None = None

    @classmethod
    def attention(cls, a: Architecture, layer: int, part: Literal["q", "k", "v"]) -> Projection:
        prefix, queries, keys = f"model.layers.{layer}.self_attn.", a.heads * a.head_dim, a.kv_heads * a.head_dim
        sizes = {"q": queries, "k": keys, "v": keys}
        if a.fused:
            start = {"q": 0, "k": queries, "v": queries + keys}[part]
            return cls(prefix + "qkv_proj.weight", start, start + sizes[part])
        bias = f"{prefix}{part}_proj.bias" if a.qkv_bias else None
        return cls(f"{prefix}{part}_proj.weight", 0, sizes[part], bias)

    @classmethod
    def output(cls, a: Architecture, layer: int) -> Projection:
        """Of attention."""
        return cls(f"model.layers.{layer}.self_attn.o_proj.weight", 0, a.hidden_size)

    @classmethod
    def mlp(cls, a: Architecture, layer: int, part: Literal["gate", "up", "down"]) -> Projection:
        prefix, inner = f"model.layers.{layer}.mlp.", a.intermediate_size
        if part == "down":
            return cls(prefix + "down_proj.weight", 0, a.hidden_size)
        if a.fused:
            start = inner if part == "up" else 0
            return cls(prefix + "gate_up_proj.weight", start, start + inner)
        return cls(f"{prefix}{part}_proj.weight", 0, inner)

    @classmethod
    def head(cls, a: Architecture) -> Projection:
        return cls(EMBEDDING if a.tied else HEAD, 0, a.vocab_size)

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def read(self, reader: QuantizedReader) -> tuple[Codes, Float32]:
        """Codes int8 [rows, columns] and scales float32 [rows, columns / group]."""
        return reader.codes(self.source, self.start, self.stop), reader.scales(self.source, self.start, self.stop)


def split(matrix: Projection, most: int) -> list[Projection]:
    """Into parts of at most so many rows."""
    starts = range(matrix.start, matrix.stop, most)
    return [Projection(matrix.source, start, min(start + most, matrix.stop), matrix.bias) for start in starts]


def projections(a: Architecture) -> list[Projection]:
    """All of them, in the order of use."""
    found = []
    for layer in range(a.layers):
        found += [Projection.attention(a, layer, part) for part in ("q", "k", "v")]
        found += [Projection.output(a, layer)]
        found += [Projection.mlp(a, layer, part) for part in ("gate", "up", "down")]
    return [*found, Projection.head(a)]


def stored_vector(reader: QuantizedReader, source: TensorSpec) -> Float32:
    """A norm or bias as backends store it: where the family's norms scale by 1 + w, the 1 is in it."""
    vector = reader.plain(source.name)
    offset = reader.architecture.norm_offset if source.role == "norm" else 0.0
    stored: Float32 = (vector + np.float32(offset)).astype(np.float32)
    return stored
