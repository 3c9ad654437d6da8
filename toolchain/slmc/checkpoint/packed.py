"""How compressed-tensors' pack-quantized format stores a weight [rows, columns].

<module>.weight_packed   int32 [rows, columns * bits / 32]
<module>.weight_scale    float [rows, columns / group]
<module>.weight_shape    int64 [2]
"""

from __future__ import annotations

from slmc.architecture import TensorSpec
from slmc.checkpoint.dtypes import DType
from slmc.checkpoint.writer import TensorFormat
from slmc.names import Bits


def packed_name(name: str) -> str:
    return name + "_packed"


def scale_name(name: str) -> str:
    return name + "_scale"


def shape_name(name: str) -> str:
    return name + "_shape"


def formats(spec: TensorSpec, bits: Bits, group_size: int, scales: DType) -> list[TensorFormat]:
    """The three stored tensors of a quantized one; `bits` is what a code takes."""
    rows, columns = spec.shape
    return [
        TensorFormat(packed_name(spec.name), "I32", (rows, columns * bits // 32)),
        TensorFormat(scale_name(spec.name), scales, (rows, columns // group_size)),
        TensorFormat(shape_name(spec.name), "I64", (2,)),
    ]
