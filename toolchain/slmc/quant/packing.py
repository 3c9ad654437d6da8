"""compressed-tensors' pack-quantized layout of 4-bit integers, in numpy.

`int8 [rows, columns]` in [-8, 7] becomes `int32 [rows, columns / 8]`: code + 8 is a nibble, and
column k lies in bits 4·(k mod 8) of word k div 8, lowest first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Packed = npt.NDArray[np.int32]

LOWEST, HIGHEST = -8, 7
PER_WORD = 8


def pack(codes: Codes) -> Packed:
    """Raises ValueError for another shape or type, or a code outside [-8, 7]."""
    if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] % PER_WORD:
        raise ValueError(f"{codes.dtype} {codes.shape} is not int8 [rows, a multiple of {PER_WORD}]")
    if codes.size and (codes.min() < LOWEST or codes.max() > HIGHEST):
        raise ValueError(f"codes outside [{LOWEST}, {HIGHEST}]")
    nibbles = (
        np.ascontiguousarray(codes).view(np.uint8) ^ 0x08
    )  # of the low four bits, q + 8 is q with its sign bit turned
    packed = (nibbles[:, 0::2] & 0x0F) | (nibbles[:, 1::2] << 4)
    return packed.view("<i4").astype(np.int32, copy=False)


def unpack(packed: Packed) -> Codes:
    """The inverse of `pack`. Raises ValueError for another shape or type."""
    if packed.dtype != np.int32 or packed.ndim != 2:
        raise ValueError(f"{packed.dtype} {packed.shape} is not int32 [rows, words]")
    octets = np.ascontiguousarray(packed).astype("<i4", copy=False).view(np.uint8)
    codes = np.empty((packed.shape[0], packed.shape[1] * PER_WORD), np.int8)
    np.subtract(octets & 0x0F, 8, out=codes.view(np.uint8)[:, 0::2])
    np.subtract(octets >> 4, 8, out=codes.view(np.uint8)[:, 1::2])
    return codes
