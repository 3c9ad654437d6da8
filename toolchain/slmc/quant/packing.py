"""compressed-tensors' pack-quantized layout of 4-bit and 8-bit integers, in numpy.

`int8 [rows, columns]` becomes `int32 [rows, columns * bits / 32]`: a code plus 2^(bits - 1) is stored
without sign, and column k lies in word k div (32 / bits), lowest bits first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from slmc.names import Bits

Codes = npt.NDArray[np.int8]
Packed = npt.NDArray[np.int32]


def pack(codes: Codes, bits: Bits) -> Packed:
    """Raises ValueError for another shape or type, or a code that does not fit the bits."""
    per_word, half = 32 // bits, 1 << (bits - 1)
    if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] % per_word:
        raise ValueError(f"{codes.dtype} {codes.shape} is not int8 [rows, a multiple of {per_word}]")
    if codes.size and (codes.min() < -half or codes.max() >= half):
        raise ValueError(f"codes outside [{-half}, {half - 1}]")
    octets = np.ascontiguousarray(codes).view(np.uint8) ^ half  # of its bits, q + half is q with its sign bit turned
    if bits == 4:
        octets = (octets[:, 0::2] & 0x0F) | (octets[:, 1::2] << 4)
    return octets.view("<i4").astype(np.int32, copy=False)


def unpack(packed: Packed, bits: Bits) -> Codes:
    """The inverse of `pack`. Raises ValueError for another shape or type."""
    if packed.dtype != np.int32 or packed.ndim != 2:
        raise ValueError(f"{packed.dtype} {packed.shape} is not int32 [rows, words]")
    octets = np.ascontiguousarray(packed).astype("<i4", copy=False).view(np.uint8)
    if bits == 8:
        return (octets ^ 0x80).view(np.int8)
    codes = np.empty((packed.shape[0], packed.shape[1] * 8), np.int8)
    np.subtract(octets & 0x0F, 8, out=codes.view(np.uint8)[:, 0::2])
    np.subtract(octets >> 4, 8, out=codes.view(np.uint8)[:, 1::2])
    return codes
