"""The element types of safetensors files that we read and write, as numpy has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

DType = Literal["F32", "F16", "BF16", "I32", "I64", "U8"]

NUMPY: Mapping[DType, np.dtype[np.generic]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
}
FLOATS: frozenset[DType] = frozenset({"F32", "F16", "BF16"})

Float32 = npt.NDArray[np.float32]


def known(name: str) -> DType | None:
    """The name as one of ours, None where safetensors has it and we do not (F64, F8_E4M3, ...)."""
    return next((dtype for dtype in NUMPY if dtype == name), None)


def to_float32(values: npt.NDArray[np.generic]) -> Float32:
    """Float32, float16 or bfloat16 to float32, exactly."""
    if values.dtype == NUMPY["BF16"]:
        # A bfloat16 is the upper half of a float32; this is several times faster than ml_dtypes' cast.
        widened = values.view(np.uint16).astype(np.uint32)
        widened <<= 16
        return widened.view(np.float32)
    return values.astype(np.float32, copy=False)


def rounded_to_bfloat16(values: Float32) -> Float32:
    """The nearest bfloat16 of each, as float32."""
    return to_float32(values.astype(ml_dtypes.bfloat16))
