"""What the codes of a scheme stand for. The schemes themselves are named on a lower floor, where plans are made."""

from __future__ import annotations

import numpy as np

from slmc.checkpoint.dtypes import Float32, rounded_to_bfloat16
from slmc.names import SCHEMES, Scheme
from slmc.quant.packing import Codes

__all__ = ["SCHEMES", "Scheme", "are_scales", "dequantize"]


def dequantize(codes: Codes, scales: Float32) -> Float32:
    """Codes [rows, columns] times scales [rows, columns / group]: float32, exact, as both are short."""
    rows, groups = scales.shape
    weights = codes.reshape(rows, groups, -1).astype(np.float32)
    weights *= scales[:, :, np.newaxis]
    return weights.reshape(codes.shape)


def are_scales(values: Float32) -> bool:
    """Each is a positive, finite bfloat16."""
    return bool(((values > 0) & (values < np.inf) & (values == rounded_to_bfloat16(values))).all())
