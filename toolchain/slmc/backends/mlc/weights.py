"""A quantized checkpoint's weights in MLC's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmc.backends.mlc.shards import ShardWriter
from slmc.backends.mlc.tensors import Format, Tensor, blocks, quantized_weights, tensors
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import row_blocks
from slmc.console import Advance
from slmc.quant.fp16 import narrow_scales
from slmc.quant.reader import QuantizedReader


@dataclass(frozen=True)
class Written:
    tensors: tuple[Tensor, ...]
    """In the order of the decoder's parameters."""
    rounded_scales: int
    """That the files hold with fewer bits."""


def write_weights(reader: QuantizedReader, form: Format, folder: Path, advance: Advance) -> Written:
    """Write shards and their index; `advance` counts weights. Raises CompileError for scales that fp16 can't hold."""
    a, rounded = reader.architecture, 0
    listed = [one for parts in tensors(a, quantized_weights(reader), form).values() for one in parts]
    with ShardWriter(folder) as writer:
        for tensor in listed:
            writer.write(tensor, blocks(reader, tensor))
            if tensor.kind == "scales":
                rounded += _rounded(reader, tensor)
            else:
                advance(sum(source.size for source in tensor.weight.sources))
        writer.finish(a.weights)
    return Written(tuple(listed), rounded)


def _rounded(reader: QuantizedReader, tensor: Tensor) -> int:
    if tensor.dtype == "float32":
        return 0
    scales = _scales(reader, tensor)
    return sum(int(np.count_nonzero(narrow_scales(block).astype(np.float32) != block)) for block in scales)


def _scales(reader: QuantizedReader, tensor: Tensor) -> Iterator[Float32]:
    for source in tensor.weight.sources:
        for start, stop in row_blocks(source.shape):
            yield reader.scales(source.name, start, stop)
