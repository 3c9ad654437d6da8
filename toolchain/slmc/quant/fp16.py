"""A checkpoint's scales as float16, for runtimes that hold no other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slmc.checkpoint.dtypes import Float32


def narrow_scales(scales: Float32) -> NDArray[np.float16]:
    """Only those below 2^-14 change, by 2^-25 at most, and none becomes 0; those above 65504 become infinite."""
    with np.errstate(over="ignore"):
        narrow: NDArray[np.float16] = np.maximum(scales.astype(np.float16), np.finfo(np.float16).smallest_subnormal)
    return narrow
