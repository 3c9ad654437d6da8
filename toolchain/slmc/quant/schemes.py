"""The named 4-bit schemes, and what their codes stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slmc.checkpoint.dtypes import Float32
from slmc.names import SchemeName
from slmc.quant.packing import Codes


@dataclass(frozen=True)
class Scheme:
    """Signed integers in [-8, 7] along the input axis, one positive bf16 scale for each group of them."""

    name: SchemeName
    bits: int
    group_size: int

    @property
    def bits_per_weight(self) -> float:
        """With the group's 16-bit scale."""
        return self.bits + 16 / self.group_size


SCHEMES: Mapping[SchemeName, Scheme] = {
    scheme.name: scheme
    for scheme in (Scheme("int4-g32", 4, 32), Scheme("int4-g64", 4, 64), Scheme("int4-g128", 4, 128))
}


def dequantize(codes: Codes, scales: Float32) -> Float32:
    """Codes [rows, columns] times scales [rows, columns / group]: float32, exact, as both are short."""
    rows, groups = scales.shape
    weights = codes.reshape(rows, groups, -1).astype(np.float32)
    weights *= scales[:, :, np.newaxis]
    return weights.reshape(codes.shape)
