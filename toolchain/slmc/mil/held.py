"""How the interpreter holds values: in types that torch computes with, floats in float32."""

from __future__ import annotations

import torch

from slmc.mil.dtypes import DType

_TYPES = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "int4": torch.int8,
}
_HELD = {"fp16": torch.float32, "uint16": torch.int32, "uint32": torch.int64}


def outside(dtype: DType) -> torch.dtype:
    """Of inputs and outputs of a function."""
    return _TYPES.get(dtype.name, torch.uint8)


def held(dtype: DType) -> torch.dtype:
    """Of all other values."""
    return _HELD.get(dtype.name, outside(dtype))
