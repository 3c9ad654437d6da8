"""What lies in MLC's weight files: q4f16_1 or q4f32_1, tensor by tensor.

A quantized matrix [rows, columns] is `.q_weight`, uint32 [rows, columns / 8] with element k in bits 4 (k mod 8) of
word k div 8, and `.q_scale`, float [rows, columns / 32]; a weight is (code - 7) * scale, from
`python/mlc_llm/quantization/group_quantization.py`. Our codes q in [-8, 7] are stored as 7 - q, and our scales
negated: the product is the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slmc.architecture import MATRICES, Architecture, TensorSpec
from slmc.backends.mlc.names import Weight, weights
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import row_blocks
from slmc.errors import CompileError
from slmc.models.projections import stored_vector
from slmc.names import Activations
from slmc.quant.fp16 import narrow_scales
from slmc.quant.packing import pack
from slmc.quant.reader import QuantizedReader

Format = Literal["q4f16_1", "q4f32_1"]
GROUP, CODES = 32, ".q_weight"
DTYPES: Mapping[Format, str] = {"q4f16_1": "float16", "q4f32_1": "float32"}
"""Of everything but the codes, and of what the model computes with between its matrices."""
FORMATS: Mapping[Activations, Format] = {"float16": "q4f16_1", "float32": "q4f32_1"}

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Tensor:
    """One entry of the weight files."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    weight: Weight
    kind: Literal["codes", "scales", "plain"]


def tensors(architecture: Architecture, quantized: Container[str], form: Format) -> dict[str, tuple[Tensor, ...]]:
    """Of each of the decoder's parameters; `quantized` has MLC's names of matrices."""
    found = {}
    for parameter, parts in weights(architecture).items():
        found[parameter] = tuple(tensor for weight in parts for tensor in _tensors(weight, quantized, DTYPES[form]))
    return found


def _tensors(weight: Weight, quantized: Container[str], dtype: str) -> list[Tensor]:
    if weight.name in quantized:
        rows, columns = weight.shape
        return [
            Tensor(f"{weight.name}{CODES}", (rows, columns // 8), "uint32", weight, "codes"),
            Tensor(f"{weight.name}.q_scale", (rows, columns // GROUP), dtype, weight, "scales"),
        ]
    name = weight.name if weight.sources[0].role == "bias" else f"{weight.name}.weight"
    return [Tensor(name, weight.shape, dtype, weight, "plain")]


def quantized_weights(reader: QuantizedReader) -> frozenset[str]:
    """MLC's names of the matrices that are. Raises CompileError where a fused one has a part that is not."""
    found = set()
    for weight in (weight for parts in weights(reader.architecture).values() for weight in parts):
        kept = [source.name for source in weight.sources if not reader.is_quantized(source.name)]
        if not kept:
            found.add(weight.name)
        elif len(kept) < len(weight.sources):
            raise CompileError(
                f"{kept[0]} is kept and what it is fused with is quantized",
                where=weight.name,
                todo=f"keep all of {', '.join(source.name for source in weight.sources)}, or none",
            )
    return frozenset(found)


def blocks(reader: QuantizedReader, tensor: Tensor) -> Iterator[Array]:
    """The tensor's rows, as many at a time as fit a small memory. Raises CompileError for what its type can't hold."""
    for source in tensor.weight.sources:
        if tensor.kind == "plain":
            with np.errstate(over="ignore"):
                yield _held(plain(reader, source).astype(tensor.dtype), reader, source.name)
            continue
        for start, stop in row_blocks(source.shape):
            if tensor.kind == "codes":
                yield pack((-1 - reader.codes(source.name, start, stop)).astype(np.int8), 4).view(np.uint32)
            else:
                scales = reader.scales(source.name, start, stop)
                stored = scales if tensor.dtype == "float32" else narrow_scales(scales)
                _held(stored, reader, source.name)
                yield np.negative(stored).repeat(reader.group_size // GROUP, axis=1)


def plain(reader: QuantizedReader, source: TensorSpec) -> Float32:
    """What is kept, a norm or a bias, as MLC has it."""
    return reader.plain(source.name) if source.role in MATRICES else stored_vector(reader, source)


def _held(values: NDArray[np.floating], reader: QuantizedReader, name: str) -> NDArray[np.floating]:
    if not np.isfinite(values).all():
        raise CompileError(
            f"{name} has values or scales above fp16's 65504",
            where=reader.folder,
            todo="set activations: float32 for the target, or take another backend",
        )
    return values
